"""Which backend's messages a page is about, and the addresses that say so."""

from __future__ import annotations

from typing import Any, TypeVar, cast
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse

from django_sked.admin.readonly import BaseAdmin
from django_sked.admin.stored import StoredMessages
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend
from django_sked.criteria import Criteria
from django_sked.models import ScheduledMessage

#: The parameter of an address; without it, it is about the default backend.
PARAMETER = "backend"


T = TypeVar("T", bound=Model)


def address(site: AdminSite, page: str, *args: Any, backend: BaseBackend, **query: str) -> str:
    """The address of a page on this site, such as "scheduledmessage_change", that is about this backend."""
    url = reverse(f"admin:django_sked_{page}", args=args, current_app=site.name)
    if backend.alias != DEFAULT_ALIAS:
        query[PARAMETER] = backend.alias
    return f"{url}?{urlencode(query)}" if query else url


class Addresses(BaseAdmin[T]):
    """What is in one backend, and is asked for there."""

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> T | None:
        """By its id in the backend that the address names, else in any: links of the history name none."""
        named = chosen(request)
        for alias in [named] if named else message_backends:
            request.sked_backend = alias  # type: ignore[attr-defined]
            found = super().get_object(request, object_id, from_field)
            if found is not None:
                return found
        return None

    def url_name(self, view: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{view}"

    def url(self, view: str, *args: Any, backend: BaseBackend) -> str:
        """The address of a view on this site, about what is in this backend."""
        return address(self.admin_site, f"{self.opts.model_name}_{view}", *args, backend=backend)

    def page_that_asks(
        self, request: HttpRequest, template: str, title: str, context: dict[str, Any]
    ) -> TemplateResponse:
        """A page with a form of ours, in the frame of those of Django's with a form."""
        frame = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "media": self.media,
            "has_view_permission": True,
            # What Django's template ends the breadcrumbs with.
            "original": title,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, template, frame | context)


class Places(Addresses[ScheduledMessage]):
    """Mixed into the admin of messages."""

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> ScheduledMessage | None:
        """For its page, which shows nothing that `redact` hides."""
        found = super().get_object(request, object_id, from_field)
        return None if found is None else found.without_secrets()

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScheduledMessage]:
        """The messages of one backend: rows, or what stands for a QuerySet of those that are none."""
        backend = message_backends[chosen(request) or DEFAULT_ALIAS]
        if backend.database is None:
            return cast("QuerySet[ScheduledMessage]", StoredMessages(backend, Criteria()))
        return super().get_queryset(request).using(backend.database)


def chosen(request: HttpRequest) -> str | None:
    """The alias that the address names, or that `get_object` is looking into."""
    alias: str | None = getattr(request, "sked_backend", None) or request.GET.get(PARAMETER) or None
    if alias is not None and alias not in message_backends:
        raise Http404(f"There is no backend {alias!r}.")
    return alias
