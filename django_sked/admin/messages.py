"""The admin of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_sked.admin import details, qualifiers, times
from django_sked.admin.actions import offered
from django_sked.admin.asking import Verbs
from django_sked.admin.filters import BackendFilter, DueFilter, QueueFilter, RecurrenceFilter, StatusFilter
from django_sked.admin.lists import CappedPaginator, MessageList
from django_sked.admin.readonly import ReadOnlyAdmin
from django_sked.admin.redelivering import Redelivery
from django_sked.admin.stored import backend_of, is_stored
from django_sked.explaining import explain
from django_sked.models import ScheduledMessage
from django_sked.queries import BulkVerbs
from django_sked.timeline import timeline

#: What a link may filter by besides the dropdowns: nothing confidential, and nothing that reads every row as text.
LOOKUP_FIELDS = {
    *("pk", "id", "event", "queue", "status", "key", "priority", "due_at", "next_at", "created_at", "finished_at"),
    *("claimed_by", "subject_type", "subject_id", "origin", "recurrence_id", "workflow_id", "due"),
}
LOOKUPS = {"exact", "in", "gt", "gte", "lt", "lte", "startswith", "isnull"}
LONGEST_SEARCH = 200


class ScheduledMessageAdminMixin(Verbs, Redelivery, details.Details, ReadOnlyAdmin[ScheduledMessage]):
    """Everything but the ModelAdmin: put it before yours, on any AdminSite."""

    change_form_template = "admin/django_sked/message.html"
    list_display: tuple[Any, ...] = ("event", "queue", "state", "due", "attempts", "key")
    list_filter: ClassVar[tuple[Any, ...]] = (
        *(BackendFilter, ("status", StatusFilter), QueueFilter, RecurrenceFilter, DueFilter),
    )
    list_per_page = 100
    sortable_by: ClassVar[tuple[str, ...]] = ("due",)
    ordering: ClassVar[tuple[str, ...]] = ("-due_at", "-id")
    search_fields: ClassVar[tuple[str, ...]] = ("id", "key", "event")
    search_help_text = gettext_lazy(
        "An id, the beginning of a key or an event, or qualifiers: event:invoice.* status:dead queue:mail "
        "key:invoice-42 metadata.tenant:acme due:<2h"
    )

    @property
    def media(self) -> forms.Media:
        ours = forms.Media(css={"all": ["django_sked/admin.css"]}, js=["django_sked/filters.js"])
        return super().media + ours

    # List

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return MessageList

    def get_paginator(
        self, request: HttpRequest, queryset: QuerySet[Any], per_page: int, *args: Any, **kwargs: Any
    ) -> CappedPaginator:
        try:
            page = int(request.GET.get("p", 1))
        except ValueError:
            page = 1
        return CappedPaginator(queryset, per_page, page=page)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ScheduledMessage], search_term: str
    ) -> tuple[QuerySet[ScheduledMessage], bool]:
        # Not what the list hands over: that is empty, and would find everything, when Django's form refuses the text.
        term = request.GET.get(SEARCH_VAR, search_term).strip()
        if len(term) > LONGEST_SEARCH or "\x00" in term:
            text = _("Search for at most %(count)d printable characters.") % {"count": LONGEST_SEARCH}
            self.message_user(request, text, messages.WARNING)
            return queryset.none(), False
        if not term:
            return queryset, False
        if is_stored(queryset) and not qualifiers.has_qualifier(term):
            found: Any = queryset.search(term)
            return found, False
        return self._found(request, queryset, term), False

    def _found(
        self, request: HttpRequest, queryset: QuerySet[ScheduledMessage], term: str
    ) -> QuerySet[ScheduledMessage]:
        """What the search leaves; where its qualifiers make no sense, or are not for this user, nothing."""
        now = backend_of(cast(BulkVerbs, queryset)).now()
        try:
            wanted = qualifiers.parse(term, now, with_payload=self.has_payload_permission(request))
            found, said = qualifiers.narrow(queryset, wanted)
        except qualifiers.Unclear as error:
            self.message_user(request, str(error), messages.WARNING)
            return queryset.none()
        if said:
            self.message_user(request, said, messages.WARNING)
        return found

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        name, *rest = lookup.split("__")
        known = {field.name for field in self.opts.fields} | {"pk"}
        if name in known and (name not in LOOKUP_FIELDS or rest[1:] or not LOOKUPS.issuperset(rest)):
            return False
        return super().lookup_allowed(lookup, value, request)

    # One message

    def get_fieldsets(self, request: HttpRequest, obj: ScheduledMessage | None = None) -> Any:
        with_recurrence = request.user.has_perm("django_sked.view_recurrence")
        with_payload = self.has_payload_permission(request)
        return details.fieldsets(obj, with_payload=with_payload, with_recurrence=with_recurrence)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        message: ScheduledMessage = context["original"]
        context["verbs"] = [
            {
                "name": action.name,
                "label": action.label,
                "url": self.url("verb", message.pk, action.name, backend=message.backend),
            }
            for action in offered(request, message)
        ] + self.redelivery_offered(request, message)
        with_errors = self.has_payload_permission(request)
        context["why"] = explain(message, with_errors=with_errors)
        context["timeline"] = [
            (times.absolute(moment.at) if moment.at else "", moment)
            for moment in timeline(message, with_errors=with_errors)
        ]
        return super().render_change_form(request, context, *args, **kwargs)


if TYPE_CHECKING:

    class ScheduledMessageAdmin(ScheduledMessageAdminMixin): ...
else:

    class ScheduledMessageAdmin(ScheduledMessageAdminMixin, admin.ModelAdmin):
        """The admin of messages as it is registered."""
