"""The page on which a range of a recurrence is backfilled."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_sked.admin import times
from django_sked.admin.applying import reason_text
from django_sked.admin.places import Addresses
from django_sked.backends import message_backends
from django_sked.exceptions import SkedError
from django_sked.models import Recurrence


def moment_input() -> forms.DateTimeInput:
    """One input with one label, which Django's own two are without."""
    return forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S")


def _instant(label: Any) -> forms.DateTimeField:
    return forms.DateTimeField(label=label, widget=moment_input())


class BackfillForm(forms.Form):
    """A range of time, both ends included, and how fast its messages come."""

    start = _instant(gettext_lazy("From"))
    end = _instant(gettext_lazy("Until"))
    rate = forms.FloatField(
        label=gettext_lazy("Messages a second"),
        initial=1.0,
        min_value=0.001,
        max_value=10_000,
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        required=False,
        max_length=255,
        help_text=gettext_lazy("Shown in the history."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        zone = _("In the time zone %(zone)s.") % {"zone": timezone.get_current_timezone_name()}
        self.fields["start"].help_text = zone
        self.fields["end"].help_text = zone
        self.fields["rate"].help_text = _("The first one is due now.")

    def arguments(self) -> dict[str, Any]:
        """Of `Recurrence.backfill()`."""
        return {name: value for name, value in self.cleaned_data.items() if name != "reason"}


class Backfilling(Addresses[Recurrence]):
    """Mixed into the admin of recurrences."""

    backfill_template = "admin/django_sked/backfill.html"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.backfill_view)
        return [path("<uuid:id>/backfill/", view, name="django_sked_recurrence_backfill"), *super().get_urls()]

    def backfill_view(self, request: HttpRequest, id: UUID) -> HttpResponse:
        """Asks for the range, and schedules what has no message in it."""
        if not request.user.has_perm("django_sked.run_recurrence") or not self.has_view_permission(request):
            raise PermissionDenied
        recurrence = self.get_object(request, str(id))
        if recurrence is None:
            raise Http404
        form = BackfillForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                made = recurrence.backfill(**form.arguments())
            except SkedError as error:
                form.add_error(None, str(error))
            else:
                self._tell(request, recurrence, form, len(made))
                return HttpResponseRedirect(self.page(recurrence, "change"))
        return self._ask(request, recurrence, form)

    def _tell(self, request: HttpRequest, recurrence: Recurrence, form: BackfillForm, count: int) -> None:
        start, end = (times.absolute(form.cleaned_data[name]) for name in ("start", "end"))
        text = ngettext(
            "Backfilled from %(start)s until %(end)s: %(count)d message was scheduled.",
            "Backfilled from %(start)s until %(end)s: %(count)d messages were scheduled.",
            count,
        ) % {"start": start, "end": end, "count": count}
        noted = text + reason_text(form)
        LogEntry.objects.log_actions(request.user.pk, [recurrence], CHANGE, change_message=noted)  # type: ignore[arg-type]
        self.message_user(request, text, messages.SUCCESS if count else messages.WARNING)

    def _ask(self, request: HttpRequest, recurrence: Recurrence, form: BackfillForm) -> TemplateResponse:
        title = _("Backfill: %(name)s") % {"name": recurrence.name}
        context = {"form": form, "back_url": self.page(recurrence, "change")}
        return self.page_that_asks(request, self.backfill_template, title, context)

    def page(self, recurrence: Recurrence, view: str) -> str:
        """The address of a view of this recurrence; of one whose backend is not known here, without that."""
        if recurrence.backend in message_backends:
            return self.url(view, recurrence.pk, backend=recurrence.store)
        return reverse(f"admin:{self.url_name(view)}", args=[recurrence.pk], current_app=self.admin_site.name)
