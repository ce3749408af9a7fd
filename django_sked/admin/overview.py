"""The overview: every queue of a backend, its workers, and what comes next; where queues are paused and scaled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, path, reverse
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from django_sked import histogram
from django_sked.admin import board as boards
from django_sked.admin import changes, times
from django_sked.admin.backfilling import moment_input
from django_sked.admin.readonly import ReadOnlyAdmin
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.backlog import KINDS
from django_sked.backends.base import BaseBackend
from django_sked.controls import MOST_CONCURRENCY
from django_sked.exceptions import SkedError
from django_sked.models import Overview, QueueControl, WorkerProcess

#: How far the slider goes; by number it may be more.
SLIDER = 50


class ReasonForm(forms.Form):
    reason = forms.CharField(required=False, max_length=255, label=gettext_lazy("Reason"))


class PauseForm(ReasonForm):
    field_order = ("until", "reason")
    until = forms.DateTimeField(required=False, widget=moment_input(), label=gettext_lazy("Until"))


class ScaleForm(ReasonForm):
    field_order = ("concurrency", "reason")
    concurrency = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=MOST_CONCURRENCY,
        label=gettext_lazy("Threads in each worker"),
        help_text=gettext_lazy("Empty: as each worker was started."),
    )


class OverviewAdminMixin(ReadOnlyAdmin[Overview]):
    """Everything but the ModelAdmin: put it before yours, on any AdminSite."""

    #: What a POST may ask for: the permission it needs.
    verbs = {"pause": "pause_queue", "resume": "pause_queue", "scale": "scale_queue"}

    def get_urls(self) -> list[Any]:
        change = require_POST(self.admin_site.admin_view(self.change_queue))
        return [
            path("", self.admin_site.admin_view(self.changelist_view), name="django_sked_overview_changelist"),
            path("<str:verb>/", change, name="django_sked_overview_change_queue"),
        ]

    def has_queue_permission(self, request: HttpRequest, verb: str) -> bool:
        return request.user.has_perm(f"django_sked.{self.verbs[verb]}")

    # Look

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        backend = _backend(request.GET.get("backend"))
        past = _choice(request, "past", boards.PAST, "hour")
        ahead = _choice(request, "ahead", boards.AHEAD, "day")
        wanted = _wanted(request)
        board = boards.board(backend, past=past, ahead=ahead, wanted=wanted)
        query = {"backend": backend.alias, "past": past, "ahead": ahead} | ({"q": wanted} if wanted else {})
        context = {
            **self.admin_site.each_context(request),
            "title": _("Overview"),
            "opts": self.opts,
            "media": self.media,
            "board": board,
            "backend": backend,
            "query": urlencode(query),
            "wanted": wanted,
            "kept": [(name, value) for name, value in query.items() if name != "q"],
            "cards": [self._card(request, number, each, board) for number, each in enumerate(board.queues)],
            "workers": [self._worker(request, worker, board) for worker in board.workers],
            "changes": [(times.absolute(entry.action_time), entry) for entry in changes.recent(board.controls)],
            "shows_workers": request.user.has_perm("django_sked.view_workerprocess"),
            "backends": _links(query, "backend", {alias: alias for alias in message_backends}),
            "pasts": _links(query, "past", {name: label for name, (label, *_) in boards.PAST.items()}),
            "aheads": _links(query, "ahead", {name: label for name, (label, *_) in boards.AHEAD.items()}),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/django_sked/overview.html", context)

    @property
    def media(self) -> forms.Media:
        return forms.Media(css={"all": ["django_sked/admin.css"]}, js=["django_sked/overview.js"])

    def _card(self, request: HttpRequest, number: int, of_queue: boards.QueueFigures, board: boards.Board) -> Any:
        """What the template needs for one queue."""
        control = of_queue.control
        auto_id = f"id_{number}_%s"
        widget_attributes = {"min": 1, "max": SLIDER, "value": control.concurrency or of_queue.wanted or 1}
        names = ("p50", "p95", "p99")
        return {
            "number": number,
            "figures": of_queue,
            "counts": {kind: boards.number(getattr(of_queue.backlog, kind)) for kind in KINDS},
            "lateness": [(name, length(late)) for name, late in zip(names, of_queue.lateness, strict=True)],
            "oldest": times.shown(of_queue.backlog.oldest, board.now),
            "until": times.shown(control.paused_until, board.now),
            "pause": PauseForm(auto_id=auto_id) if self.has_queue_permission(request, "pause") else None,
            "resume": ReasonForm(auto_id=f"id_{number}_resume_%s"),
            "scale": ScaleForm(auto_id=f"id_{number}_scale_%s", initial={"concurrency": control.concurrency})
            if self.has_queue_permission(request, "scale")
            else None,
            "slider": widget_attributes,
            "dead_url": self._messages_url(request, of_queue, status__exact="dead"),
            "due_url": self._messages_url(request, of_queue, status__exact="scheduled", due="overdue"),
        }

    def _worker(self, request: HttpRequest, worker: Any, board: boards.Board) -> dict[str, Any]:
        threads, wanted = boards.sizes(worker.threads), boards.sizes(worker.queues)
        return {
            "row": worker,
            "url": self._worker_url(worker),
            "beat": times.shown(worker.beat_at, board.now),
            "has_lease": worker.lease_until >= board.now,
            "pools": [(name, threads.get(name, 0), size) for name, size in sorted(wanted.items())],
        }

    def _messages_url(self, request: HttpRequest, of_queue: boards.QueueFigures, **query: str) -> str | None:
        """Where these are listed, for those who may see them, on a site that lists messages."""
        url = self._url("django_sked_scheduledmessage_changelist")
        if url is None or not request.user.has_perm("django_sked.view_scheduledmessage"):
            return None
        query = {"queue": of_queue.name, **query}
        if of_queue.control.backend != DEFAULT_ALIAS:
            query["backend"] = of_queue.control.backend
        return f"{url}?{urlencode(query)}"

    def _worker_url(self, worker: WorkerProcess) -> str | None:
        url = self._url("django_sked_workerprocess_change", worker.pk)
        if url is None or worker.backend == DEFAULT_ALIAS:
            return url
        return f"{url}?{urlencode({'backend': worker.backend})}"

    def _url(self, name: str, *args: Any) -> str | None:
        try:
            return reverse(f"admin:{name}", args=args, current_app=self.admin_site.name)
        except NoReverseMatch:
            return None

    # Change

    def change_queue(self, request: HttpRequest, verb: str) -> HttpResponse:
        """Pause, resume or scale one queue, with an entry in the log of who did it and why."""
        if verb not in self.verbs:
            raise Http404
        if not (self.has_view_permission(request) and self.has_queue_permission(request, verb)):
            raise PermissionDenied
        backend = _backend(request.POST.get("backend"))
        try:
            said = getattr(self, f"_{verb}")(request, backend, request.POST.get("queue", ""))
            self.message_user(request, said, messages.SUCCESS)
        except (SkedError, forms.ValidationError) as error:
            text = "; ".join(error.messages) if isinstance(error, forms.ValidationError) else str(error)
            self.message_user(request, text, messages.ERROR)
        url = reverse("admin:django_sked_overview_changelist", current_app=self.admin_site.name)
        return HttpResponseRedirect(f"{url}?{_query(request, backend)}")

    def _pause(self, request: HttpRequest, backend: BaseBackend, queue: str) -> str:
        asked = _cleaned(PauseForm(request.POST))
        until, reason = asked["until"], asked["reason"]
        by = request.user.get_username()

        def write() -> QueueControl:
            return QueueControl.objects.pause(queue, until=until, reason=reason, by=by, backend=backend.alias)

        shown = _(" until %(time)s") % {"time": times.absolute(until)} if until else ""
        noted = _("paused%(until)s") % {"until": shown}
        self._write(request, backend, write, noted, reason)
        return _("The queue %(queue)s is paused%(until)s.") % {"queue": queue, "until": shown}

    def _resume(self, request: HttpRequest, backend: BaseBackend, queue: str) -> str:
        def write() -> QueueControl | None:
            was_paused = QueueControl.objects.resume(queue, by=request.user.get_username(), backend=backend.alias)
            return QueueControl.objects.of(backend).get(queue=queue) if was_paused else None

        if self._write(request, backend, write, _("resumed"), _cleaned(ReasonForm(request.POST))["reason"]):
            return _("The queue %(queue)s goes on.") % {"queue": queue}
        return _("The queue %(queue)s was not paused.") % {"queue": queue}

    def _scale(self, request: HttpRequest, backend: BaseBackend, queue: str) -> str:
        asked = _cleaned(ScaleForm(request.POST))
        concurrency = asked["concurrency"]
        by = request.user.get_username()

        def write() -> QueueControl:
            return QueueControl.objects.scale(queue, concurrency=concurrency, by=by, backend=backend.alias)

        noted = _("concurrency %(count)d") % {"count": concurrency} if concurrency else _("concurrency as started")
        self._write(request, backend, write, noted, asked["reason"])
        if concurrency is None:
            return _("The queue %(queue)s has as many threads as each worker was started with.") % {"queue": queue}
        text = _("The queue %(queue)s has %(count)d threads in each worker.")
        return text % {"queue": queue, "count": concurrency}

    def _write(
        self,
        request: HttpRequest,
        backend: BaseBackend,
        write: Callable[[], QueueControl | None],
        said: str,
        reason: str,
    ) -> bool:
        """No change without its entry in the log, with the reason that was given."""
        said = f"{said}: {reason}" if reason else said
        with transaction.atomic(using=QueueControl.objects.database_of(backend)):
            row = write()
            if row is not None:
                changes.note(row, request.user, said)
        return row is not None


def length(seconds: float | None) -> str:
    """As people read it, in three digits at most; beyond the last class of lateness, that it is so."""
    if seconds is None:
        return "-"
    if seconds > histogram.BOUNDS[-1]:
        return f"> {length(histogram.BOUNDS[-1])}"
    if seconds < 1:
        return _("%(number)s ms") % {"number": number_format(f"{1000 * seconds:.3g}")}
    if seconds < 120:
        return _("%(number)s s") % {"number": number_format(f"{seconds:.3g}")}
    return _("%(number)s min") % {"number": number_format(f"{seconds / 60:.3g}")}


def _backend(alias: str | None) -> BaseBackend:
    alias = alias or DEFAULT_ALIAS
    if alias not in message_backends:
        raise Http404(f"There is no backend {alias!r}.")
    return message_backends[alias]


def _choice(request: HttpRequest, name: str, choices: dict[str, Any], default: str) -> str:
    chosen = request.GET.get(name, default)
    return chosen if chosen in choices else default


def _query(request: HttpRequest, backend: BaseBackend) -> str:
    past = _choice(request, "past", boards.PAST, "hour")
    query = {"backend": backend.alias, "past": past, "ahead": _choice(request, "ahead", boards.AHEAD, "day")}
    return urlencode(query | ({"q": _wanted(request)} if _wanted(request) else {}))


def _wanted(request: HttpRequest) -> str:
    """A part of the names of the queues that are asked for; empty for all."""
    return request.GET.get("q", "").strip()[:64]


def _links(query: dict[str, str], name: str, choices: dict[str, Any]) -> list[tuple[str, Any, bool]]:
    """For each choice its address, its label, and whether it is the one in view."""
    return [("?" + urlencode({**query, name: each}), label, each == query[name]) for each, label in choices.items()]


def _cleaned(form: forms.Form) -> dict[str, Any]:
    if not form.is_valid():
        raise forms.ValidationError(
            [f"{form.fields[name].label}: {text}" for name, found in form.errors.items() for text in found]
        )
    return form.cleaned_data


if TYPE_CHECKING:

    class OverviewAdmin(OverviewAdminMixin): ...
else:

    class OverviewAdmin(OverviewAdminMixin, admin.ModelAdmin):
        """The overview as it is registered."""
