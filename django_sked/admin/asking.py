"""The verbs as admin actions on the list and as buttons on a message's page, and the page that some show first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_sked import ids
from django_sked.admin import runs, strides, times
from django_sked.admin.actions import ACTIONS, Action, may_edit
from django_sked.admin.applying import MOST_ENTRIES, Messages, Overtaken
from django_sked.admin.forms import EditForm, ReasonActionForm, VerbForm
from django_sked.admin.lists import Turned, glimpse
from django_sked.admin.places import Places
from django_sked.admin.runs import is_across
from django_sked.admin.stored import backend_of, is_stored
from django_sked.exceptions import InvalidMessage, SkedError
from django_sked.models import ScheduledMessage

#: Marks the POST of the page that asks, in contrast to the one that leads to it.
ANSWERED = "_answered"
#: What the page has shown before it was answered: the name of what is to be written, and over what.
PREVIEWED = "_previewed"
#: Messages that the page names ...
NAMED = 10
#: ... each with its address.
Named = tuple[ScheduledMessage, str]


class Verbs(Places):
    """Mixed into the admin of messages."""

    verb_template = "admin/django_sked/verb.html"
    actions = list(ACTIONS)
    action_form = ReasonActionForm

    def has_payload_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_sked.view_payload")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return ACTIONS["cancel"].is_allowed(request)

    def has_reschedule_permission(self, request: HttpRequest) -> bool:
        return ACTIONS["reschedule"].is_allowed(request)

    def has_make_due_permission(self, request: HttpRequest) -> bool:
        return ACTIONS["make_due"].is_allowed(request)

    def has_hold_permission(self, request: HttpRequest) -> bool:
        return ACTIONS["hold"].is_allowed(request)

    def has_resume_permission(self, request: HttpRequest) -> bool:
        return ACTIONS["resume"].is_allowed(request)

    def has_redrive_permission(self, request: HttpRequest) -> bool:
        return ACTIONS["redrive"].is_allowed(request)

    @admin.action(permissions=["cancel"], description=gettext_lazy("Cancel selected %(verbose_name_plural)s"))
    def cancel(self, request: HttpRequest, queryset: Messages) -> HttpResponse | None:
        return self._use(request, queryset, ACTIONS["cancel"])

    @admin.action(permissions=["reschedule"], description=gettext_lazy("Reschedule selected %(verbose_name_plural)s"))
    def reschedule(self, request: HttpRequest, queryset: Messages) -> HttpResponse | None:
        return self._use(request, queryset, ACTIONS["reschedule"])

    @admin.action(permissions=["make_due"], description=gettext_lazy("Make selected %(verbose_name_plural)s due"))
    def make_due(self, request: HttpRequest, queryset: Messages) -> HttpResponse | None:
        return self._use(request, queryset, ACTIONS["make_due"])

    @admin.action(permissions=["hold"], description=gettext_lazy("Hold selected %(verbose_name_plural)s"))
    def hold(self, request: HttpRequest, queryset: Messages) -> HttpResponse | None:
        return self._use(request, queryset, ACTIONS["hold"])

    @admin.action(permissions=["resume"], description=gettext_lazy("Resume selected %(verbose_name_plural)s"))
    def resume(self, request: HttpRequest, queryset: Messages) -> HttpResponse | None:
        return self._use(request, queryset, ACTIONS["resume"])

    @admin.action(permissions=["redrive"], description=gettext_lazy("Redrive selected %(verbose_name_plural)s"))
    def redrive(self, request: HttpRequest, queryset: Messages) -> HttpResponse | None:
        return self._use(request, queryset, ACTIONS["redrive"])

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """As Django's, but an id that is none selects nothing instead of ending in an error."""
        try:
            for id in request.POST.getlist(ACTION_CHECKBOX_NAME):
                ids.parse(id)
        except InvalidMessage as error:
            self.message_user(request, str(error), messages.ERROR)
            return None
        return super().response_action(request, queryset, *args, **kwargs)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.verb_view)
        return [path("<uuid:id>/verb/<slug:name>/", view, name=self.url_name("verb")), *super().get_urls()]

    def verb_view(self, request: HttpRequest, id: UUID, name: str) -> HttpResponse:
        """A verb on the one message of this page."""
        action = ACTIONS.get(name)
        if action is None:
            raise Http404
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not action.is_allowed(request) or not self.has_view_permission(request):
            raise PermissionDenied
        queryset: Any = self.get_queryset(request).filter(pk=id)
        response = self._use(request, queryset, action) if queryset.exists() else None
        return response or HttpResponseRedirect(self.url("change", id, backend=backend_of(queryset)))

    def _use(self, request: HttpRequest, queryset: Messages, action: Action) -> HttpResponse | None:
        backend = backend_of(queryset)
        asks = action.asks or is_across(request)
        options: dict[str, Any] = {"backend": backend, "with_payload": may_edit(request)}
        options["with_time"] = request.user.has_perm(f"django_sked.{action.permission}")
        if issubclass(action.form, EditForm):
            options["message"] = _only(queryset)
        if asks and ANSWERED not in request.POST:
            known = {"reason": request.POST.get("reason", "")}
            return self._ask(request, queryset, action, action.form(initial=known, **options))
        form = action.form(request.POST, **options)
        if not form.is_valid():
            return self._ask(request, queryset, action, form)
        return self._do(runs.Sent(request=request, rows=queryset, action=action, form=form))

    def _do(self, sent: runs.Sent) -> HttpResponse | None:
        request, queryset, run = sent.request, sent.rows, runs.of(sent)
        if run is not None and run.is_done:
            text = _("Sent before, and not done again: %(done)s") % {"done": run.applied(sent.action)}
            self.message_user(request, text, messages.WARNING)
            return None
        if run is None and _wants_preview(request, sent.form):
            return self._ask(request, queryset, sent.action, sent.form)
        try:
            if is_across(request) and (backend_of(queryset).database is not None or strides.fits(sent)):
                return self._run(sent, has_begun=run is not None)
            applied = runs.at_once(sent)
        except Overtaken:
            # What there is now is shown first.
            return self._use(request, queryset, sent.action)
        except SkedError as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.message_user(request, str(applied), messages.SUCCESS if applied.changed else messages.WARNING)
        return None

    def _run(self, sent: runs.Sent, *, has_begun: bool) -> HttpResponse | None:
        """On all that the filter leaves: a few with an entry each, more of them in steps with one for all."""
        request, queryset, action = sent.request, sent.rows, sent.action
        few = None if has_begun else glimpse(queryset, MOST_ENTRIES + 1)
        if few is not None and not few.is_capped and len(few.found) <= MOST_ENTRIES:
            applied = runs.at_once(replace(sent, rows=queryset.filter(pk__in=[message.pk for message in few.found])))
        else:
            run = strides.go_on(sent) if is_stored(queryset) else runs.go_on(sent)
            if not run.is_done:
                return self._ask(request, queryset, action, sent.form, run=run, page=sent.page)
            applied = run.applied(action)
        self.message_user(request, str(applied), messages.SUCCESS if applied.changed else messages.WARNING)
        return None

    def _ask(
        self,
        request: HttpRequest,
        queryset: Messages,
        action: Action,
        form: VerbForm,
        *,
        run: runs.Run | None = None,
        page: str = "",
    ) -> TemplateResponse:
        backend, glimpsed = backend_of(queryset), glimpse(queryset, NAMED)
        named = [(message, self.url("change", message.pk, backend=backend)) for message in glimpsed.found]
        preview = form if isinstance(form, EditForm) and form.is_bound and form.is_valid() else None
        context = {
            "action": action,
            "form": form,
            "named": named,
            "moves": [] if preview is None else list(_moves(action, preview, named)),
            "list_url": self.url("changelist", backend=backend),
            "unnamed": (glimpsed.total or 0) - len(glimpsed.found),
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "is_across": is_across(request),
            "is_capped": glimpsed.is_capped,
            "run": run,
            "page": page or runs.page(request),
            "answered": ANSWERED,
            "preview": preview,
            "previewed": PREVIEWED,
        }
        return self.page_that_asks(request, self.verb_template, _title(action, glimpsed, run), context)


def _title(action: Action, glimpsed: Turned, run: runs.Run | None) -> str:
    """How many messages it is about, or which one."""
    count = glimpsed.total or 0
    if run is not None:
        done = number_format(run.changed, force_grouping=True)
        return _("%(action)s: %(count)s messages so far") % {"action": action.label, "count": done}
    if glimpsed.is_capped:
        return _("%(action)s: more than %(count)s messages") % {"action": action.label, "count": count}
    if count == 1:
        return f"{action.label}: {glimpsed.found[0]}"
    return _("%(action)s: %(count)s messages") % {"action": action.label, "count": count}


def _only(queryset: Messages) -> ScheduledMessage | None:
    """The message, if it is one, as far as the list looks."""
    glimpsed = glimpse(queryset.defer(None), 2)
    return glimpsed.found[0] if len(glimpsed.found) == 1 and not glimpsed.is_capped else None


def _wants_preview(request: HttpRequest, form: VerbForm) -> bool:
    """Is there another payload or time, of which nobody has seen yet what it changes?"""
    return isinstance(form, EditForm) and form.changes and request.POST.get(PREVIEWED) != form.preview


def _moves(action: Action, form: EditForm, named: Sequence[Named]) -> Iterator[tuple[ScheduledMessage, str, str, str]]:
    """Each of these with its due time before and after, if one was entered; "" for what stays as it is."""
    for message, url in named if form.changes_time else ():
        at = form.moved(message) if action.fits(message) else None
        yield message, url, times.absolute(message.due_at), "" if at is None else times.absolute(at)
