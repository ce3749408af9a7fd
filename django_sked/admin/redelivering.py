"""Delivering once more what has ended: a button on a message's page, and the page that asks first."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_sked import revising
from django_sked.admin import runs
from django_sked.admin.applying import reason_text
from django_sked.admin.asking import ANSWERED
from django_sked.admin.forms import RedriveForm
from django_sked.admin.places import Places
from django_sked.admin.stored import backend_of
from django_sked.exceptions import IdInUse, SkedError
from django_sked.models import ScheduledMessage


@dataclass(frozen=True, slots=True)
class Redeliver:
    """What the page that asks shows of it."""

    name: str = "redeliver"
    label: Promise | str = gettext_lazy("Redeliver")


class Redelivery(Places):
    """Mixed into the admin of messages."""

    redeliver_template = "admin/django_sked/verb.html"

    def has_redeliver_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_sked.redeliver_scheduledmessage")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.redeliver_view)
        return [path("<uuid:id>/redeliver/", view, name=self.url_name("redeliver")), *super().get_urls()]

    def redelivery_offered(self, request: HttpRequest, message: ScheduledMessage) -> list[dict[str, Any]]:
        """The button, where this user may, and the message has ended."""
        if message.status not in revising.REDELIVERABLE or not self.has_redeliver_permission(request):
            return []
        url = self.url("redeliver", message.pk, backend=message.backend)
        return [{"name": Redeliver().name, "label": Redeliver().label, "url": url}]

    def redeliver_view(self, request: HttpRequest, id: UUID) -> HttpResponse:
        """Ask when and why; then schedule the copy, and lead to it."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_redeliver_permission(request) or not self.has_view_permission(request):
            raise PermissionDenied
        queryset: Any = self.get_queryset(request).filter(pk=id)
        backend, ended = backend_of(queryset), queryset.first()
        if ended is None:
            return HttpResponseRedirect(self.url("change", id, backend=backend))
        known = {"reason": request.POST.get("reason", "")}
        form = RedriveForm(request.POST if ANSWERED in request.POST else None, backend=backend, initial=known)
        if not form.is_valid():
            return self._ask_when(request, ended, form)
        try:
            shown = self._redeliver(request, ended, form)
        except SkedError as error:
            self.message_user(request, str(error), messages.ERROR)
            shown = ended
        return HttpResponseRedirect(self.url("change", shown.pk, backend=backend))

    def _redeliver(self, request: HttpRequest, ended: ScheduledMessage, form: RedriveForm) -> ScheduledMessage:
        """The copy. Its id is made of the page that was sent: the same page sent again stores no other."""
        backend = ended.backend
        copy = revising.redelivery(backend.settings, backend.now(), ended, **form.arguments())
        copy.id = uuid5(ended.pk, runs.page(request))
        try:
            # With its entries in the history, or not at all.
            with transaction.atomic(using=backend.database) if backend.joins_transactions else nullcontext():
                copy = backend.add([copy])[0]
                self._log_redelivery(request, ended, copy, form)
        except IdInUse:
            self.message_user(request, _("Sent before, and not done again."), messages.WARNING)
        else:
            self.message_user(request, _("This is the redelivery of %(id)s.") % {"id": ended.pk}, messages.SUCCESS)
        return copy

    def _log_redelivery(
        self, request: HttpRequest, ended: ScheduledMessage, copy: ScheduledMessage, form: RedriveForm
    ) -> None:
        texts = {
            ended: _("Redelivered as %(id)s.") % {"id": copy.pk},
            copy: _("Redelivery of %(id)s.") % {"id": ended.pk},
        }
        for message, text in texts.items():
            text += reason_text(form)
            LogEntry.objects.log_actions(request.user.pk, [message], CHANGE, change_message=text)  # type: ignore[arg-type]

    def _ask_when(self, request: HttpRequest, ended: ScheduledMessage, form: RedriveForm) -> TemplateResponse:
        context = {
            "action": Redeliver(),
            "form": form,
            "named": [(ended, self.url("change", ended.pk, backend=ended.backend))],
            "list_url": self.url("changelist", backend=ended.backend),
            "unnamed": 0,
            "page": runs.page(request),
            "answered": ANSWERED,
        }
        return self.page_that_asks(request, self.redeliver_template, f"{Redeliver().label}: {ended}", context)
