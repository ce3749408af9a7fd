"""The admin of recurrences: what comes when, made and edited by a form; what the code declares is paused only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import DateTimeField, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.html import format_html_join
from django.utils.translation import get_language, gettext_lazy, pgettext
from django.utils.translation import gettext as _

from django_sked import ticking, triggers
from django_sked.admin import times
from django_sked.admin.backfilling import Backfilling, moment_input
from django_sked.admin.definition import RecurrenceForm, redaction_of
from django_sked.admin.filters import WorkerBackendFilter
from django_sked.admin.forms import ReasonActionForm
from django_sked.admin.places import PARAMETER, address, chosen
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import SkedError
from django_sked.models import Recurrence, ScheduledMessage

#: What a recurrence carries.
CONFIDENTIAL = {"payload", "metadata"}


class RecurrenceAdminMixin(Backfilling):
    """Everything but the ModelAdmin: put it before yours, on any AdminSite."""

    form = RecurrenceForm
    formfield_overrides: ClassVar[dict[Any, Any]] = {
        DateTimeField: {"form_class": forms.DateTimeField, "widget": moment_input()},
    }
    change_form_template = "admin/django_sked/recurrence.html"
    list_display: tuple[Any, ...] = ("name", "event", "when", "state", "next_tick", "occurrences", "failures", "missed")
    list_filter: ClassVar[tuple[Any, ...]] = (WorkerBackendFilter, "status", "is_declared")
    search_fields: ClassVar[tuple[str, ...]] = ("name", "event")
    ordering: ClassVar[tuple[str, ...]] = ("name",)
    actions = ("pause", "resume", "run_now")
    action_form = ReasonActionForm
    readonly_fields: ClassVar[tuple[str, ...]] = (
        *("when", "next_five", "state", "is_declared", "last_tick", "occurrences", "successes", "failures"),
        *("missed", "skipped"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Recurrence]:
        """Recurrences are where their messages are, or, where these are no rows, where the routers say.

        Without a backend in the address they are all that are found where the default backend's are.
        """
        backend = message_backends[chosen(request) or DEFAULT_ALIAS]
        found = super().get_queryset(request).using(Recurrence.objects.database_of(backend))
        named = request.GET.get(PARAMETER)
        return found.filter(backend=named) if named else found

    def get_readonly_fields(self, request: HttpRequest, obj: Recurrence | None = None) -> list[str] | tuple[str, ...]:
        """What is stored in one database does not go to another by a form."""
        return self.readonly_fields if obj is None else [*self.readonly_fields, "backend"]

    def get_fields(self, request: HttpRequest, obj: Recurrence | None = None) -> list[Any]:
        """What is carried is for those who may see it; what has happened, of what is there."""
        fields: list[Any] = list(RecurrenceForm.Meta.fields)
        if not self.has_change_permission(request, obj):
            fields = [name for name in fields if name not in ("cron", "every", "own_trigger")]
        elif "own_trigger" not in self.form(instance=obj).fields:
            fields.remove("own_trigger")
        if obj is None and len(list(message_backends)) == 1:
            fields.remove("backend")
        if not request.user.has_perm("django_sked.view_payload"):
            fields = [name for name in fields if name not in CONFIDENTIAL]
        return fields if obj is None else [*self.readonly_fields, *fields]

    def save_model(self, request: HttpRequest, obj: Recurrence, form: forms.ModelForm[Any], change: bool) -> None:
        """Only what was changed by the form, which may have been open for long."""
        obj.save(**({"update_fields": form.stored_changes} if change else {}))  # type: ignore[attr-defined]

    def delete_model(self, request: HttpRequest, obj: Recurrence) -> None:
        """With what it has made ahead."""
        if obj.backend in message_backends:
            obj.cancel_ahead(reason=f"{ticking.ENDED}: deleted")
        super().delete_model(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Recurrence | None = None) -> bool:
        """The code says what it has declared: a change by hand would be gone with the next deploy."""
        return super().has_change_permission(request, obj) and (obj is None or not obj.is_declared)

    def has_delete_permission(self, request: HttpRequest, obj: Recurrence | None = None) -> bool:
        """One at a time: Django's bulk delete would not ask who owns a row."""
        return obj is not None and not obj.is_declared and super().has_delete_permission(request, obj)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Whether there is one whose payload begins with some letter is for those who may see payloads."""
        name = lookup.split("__")[0]
        if name in CONFIDENTIAL and not request.user.has_perm("django_sked.view_payload"):
            return False
        options = [backend.options for backend in message_backends.all()]
        if name in CONFIDENTIAL and any(each.redact or each.payload_cipher for each in options):
            return False
        return super().lookup_allowed(lookup, value, request)

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_sked.pause_recurrence")

    def has_run_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_sked.run_recurrence")

    @property
    def media(self) -> forms.Media:
        return super().media + forms.Media(css={"all": ["django_sked/admin.css"]})

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        recurrence: Recurrence | None = context["original"]
        if recurrence is not None:
            if not self.has_change_permission(request, recurrence):
                # From here on it is only looked at. The form of who may change it has marks for what is hidden.
                redact = redaction_of(recurrence)
                recurrence.payload = redact.shown(recurrence.payload)
                recurrence.metadata = redact.shown(recurrence.metadata)
            if request.user.has_perm("django_sked.view_scheduledmessage"):
                context["messages_url"] = self._messages_url(recurrence)
            if self.has_run_permission(request):
                context["backfill_url"] = self.page(recurrence, "backfill")
        return super().render_change_form(request, context, *args, **kwargs)

    def _messages_url(self, recurrence: Recurrence) -> str | None:
        """Where its messages are listed, on a site that lists messages."""
        if not self.admin_site.is_registered(ScheduledMessage) or recurrence.backend not in message_backends:
            return None
        query = {"recurrence": str(recurrence.pk)}
        return address(self.admin_site, "scheduledmessage_changelist", backend=recurrence.store, **query)

    # Columns

    @admin.display(description=gettext_lazy("when"))
    def when(self, recurrence: Recurrence) -> str:
        try:
            return _in_words(recurrence)
        except SkedError as error:
            return str(error)

    @admin.display(description=gettext_lazy("status"))
    def state(self, recurrence: Recurrence) -> str:
        label = Recurrence.Status(recurrence.status).label
        return f"{label} ({recurrence.reason})" if recurrence.reason else str(label)

    @admin.display(description=gettext_lazy("next"))
    def next_tick(self, recurrence: Recurrence) -> str:
        is_active = recurrence.status == Recurrence.Status.ACTIVE
        return times.shown(recurrence.next_tick_at if is_active else None, _now(recurrence))

    @admin.display(description=gettext_lazy("last tick"))
    def last_tick(self, recurrence: Recurrence) -> str:
        return times.shown(recurrence.last_tick_at, _now(recurrence))

    @admin.display(description=gettext_lazy("next five"))
    def next_five(self, recurrence: Recurrence) -> str:
        """In the time zone of the recurrence, not of who looks."""
        try:
            ticks = recurrence.next_ticks(5) if recurrence.status == Recurrence.Status.ACTIVE else []
        except SkedError as error:
            return str(error)
        shape = pgettext("format of a tick", "D j M Y H:i:s T")
        lines = ((tick.isoformat(), date_format(tick, shape)) for tick in ticks)
        return format_html_join(", ", '<time datetime="{}">{}</time>', lines) or "-"

    # Actions

    @admin.action(permissions=["pause"], description=gettext_lazy("Pause selected recurrences"))
    def pause(self, request: HttpRequest, queryset: QuerySet[Recurrence]) -> None:
        done = gettext_lazy("paused"), gettext_lazy("%(count)d of %(all)d recurrences were paused.")
        self._do(request, queryset, *done, lambda each: each.pause(reason=_why(request)))

    @admin.action(permissions=["pause"], description=gettext_lazy("Resume selected recurrences"))
    def resume(self, request: HttpRequest, queryset: QuerySet[Recurrence]) -> None:
        done = gettext_lazy("resumed"), gettext_lazy("%(count)d of %(all)d recurrences were resumed.")
        reason = _why(request) if _reason(request) else ""
        self._do(request, queryset, *done, lambda each: each.resume(reason=reason))

    @admin.action(permissions=["run"], description=gettext_lazy("Run selected recurrences now"))
    def run_now(self, request: HttpRequest, queryset: QuerySet[Recurrence]) -> None:
        done = gettext_lazy("run now"), gettext_lazy("%(count)d of %(all)d recurrences were run.")
        self._do(request, queryset, *done, lambda each: each.run_now() is not None)

    def _do(
        self,
        request: HttpRequest,
        queryset: QuerySet[Recurrence],
        noted: Promise | str,
        said: Promise | str,
        act: Callable[[Recurrence], bool],
    ) -> None:
        """Each one, with an entry in the log of who did it, and why."""
        changed = 0
        text = f"{noted}: {_reason(request)}" if _reason(request) else str(noted)
        for recurrence in queryset:
            try:
                is_done = act(recurrence)
            except SkedError as error:
                self.message_user(request, f"{recurrence}: {error}", messages.ERROR)
                continue
            if is_done:
                # Before the next one, which may end in another error.
                LogEntry.objects.log_actions(request.user.pk, [recurrence], CHANGE, change_message=text)  # type: ignore[arg-type]
                changed += 1
        level = messages.SUCCESS if changed else messages.WARNING
        self.message_user(request, said % {"count": changed, "all": len(queryset)}, level)


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()


def _why(request: HttpRequest) -> str:
    """By whom, and the reason that was entered."""
    user = _("by %(user)s") % {"user": request.user}
    return f"{user}: {_reason(request)}" if _reason(request) else user


def _in_words(recurrence: Recurrence) -> str:
    """When it comes. Cron expressions have English words only: in another language they speak for themselves."""
    if (get_language() or "en").partition("-")[0] == "en":
        return recurrence.explain()
    trigger = triggers.from_json(recurrence.trigger)
    if isinstance(trigger, triggers.Every):
        return _("Every %(length)s") % {"length": times.length(trigger.interval)}
    text = trigger.expression if isinstance(trigger, triggers.Cron) else triggers.explain(trigger)
    return f"{text}, {recurrence.timezone}"


def _now(recurrence: Recurrence) -> datetime:
    """By the clock of its messages, or, if there is no such backend any more, of those beside it."""
    if recurrence.backend in message_backends:
        return recurrence.store.now()
    return message_backends.of_database(recurrence._state.db).now()


if TYPE_CHECKING:

    class RecurrenceAdmin(RecurrenceAdminMixin): ...
else:

    class RecurrenceAdmin(RecurrenceAdminMixin, admin.ModelAdmin):
        """The admin of recurrences as it is registered."""
