"""The verbs on a whole workflow: all of its messages at once, with one more entry in its own history."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _

from django_sked.admin.actions import ACTIONS, Action
from django_sked.admin.applying import MOST_ENTRIES, Applied, Messages, finish_batch, first, log_each, reason_text
from django_sked.admin.asking import ANSWERED, NAMED
from django_sked.admin.forms import VerbForm
from django_sked.admin.lists import CAP, capped_count
from django_sked.admin.places import Addresses, address
from django_sked.admin.stored import StoredMessages
from django_sked.admin.tallies import Tally
from django_sked.criteria import Criteria
from django_sked.exceptions import SkedError
from django_sked.models import ScheduledMessage, Workflow
from django_sked.states import PENDING, Status

VIEW_MESSAGES = "django_sked.view_scheduledmessage"
NAMES = ("cancel", "hold", "resume", "redrive")


def offered(request: HttpRequest, tally: Tally) -> list[Action]:
    """What this user may do to a workflow whose messages are in these statuses."""
    fits = {
        "cancel": tally.live,
        "hold": sum(tally.counts[status] for status in PENDING) - tally.held,
        "resume": tally.held,
        "redrive": tally.counts[Status.DEAD],
    }
    return [ACTIONS[name] for name in NAMES if fits[name] > 0 and ACTIONS[name].is_allowed(request)]


def messages_of(workflow: Workflow) -> Messages:
    """As the admin takes them."""
    found: Any = workflow.messages
    is_rows = workflow.store.database is not None
    return found if is_rows else StoredMessages(workflow.store, Criteria(workflow=workflow.pk))


def apply(request: HttpRequest, workflow: Workflow, action: Action, form: VerbForm) -> Applied:
    """Use the verb on all of its messages, in one transaction where there is one, with an entry for the workflow, and
    one for each message unless there are more than `MOST_ENTRIES`."""
    if not workflow.store.joins_transactions:
        return _apply(request, workflow, action, form)
    # Together or not at all: no change is without its entries.
    return workflow.store.at_once(lambda: _apply(request, workflow, action, form))


def _apply(request: HttpRequest, workflow: Workflow, action: Action, form: VerbForm) -> Applied:
    found, backend = messages_of(workflow), workflow.store
    selected = capped_count(found)
    before = first(found, MOST_ENTRIES + 1)
    entry = _start(request, workflow, action, form)
    changed: int = getattr(workflow, action.name)(**form.arguments())

    def log(follows: bool) -> None:
        if len(before) <= MOST_ENTRIES:
            log_each(request, backend, before, action, form)
        finish_batch(entry, action, form, changed, follows)

    # After the changes: where these follow the commit, nothing differs until then.
    follows = backend.postpone(action.name, lambda: log(True))
    if not follows:
        log(False)
    unchanged = None if selected > CAP else max(0, selected - changed)
    return Applied(action=action, changed=changed, unchanged=unchanged, follows=follows)


def _start(request: HttpRequest, workflow: Workflow, action: Action, form: VerbForm) -> LogEntry:
    """Written before anything is changed, so that what is cut short is in the history, too."""
    return LogEntry.objects.create(
        user=request.user,  # type: ignore[misc]
        content_type=ContentType.objects.get_for_model(Workflow),
        object_id=str(workflow.pk),
        object_repr=str(workflow)[:200],
        action_flag=CHANGE,
        change_message=_("%(action)s of the whole workflow began.") % {"action": action.label} + reason_text(form),
    )


class Wholes(Addresses[Workflow]):
    """Mixed into the admin of workflows."""

    verb_template = "admin/django_sked/verb.html"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.verb_view)
        return [path("<uuid:id>/verb/<slug:name>/", view, name=self.url_name("verb")), *super().get_urls()]

    def verb_view(self, request: HttpRequest, id: UUID, name: str) -> HttpResponse:
        """Asks first, always: it is about many messages."""
        if name not in NAMES:
            raise Http404
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        action = ACTIONS[name]
        if not action.is_allowed(request) or not self.has_view_permission(request):
            raise PermissionDenied
        workflow = self.get_object(request, str(id))
        if workflow is None:
            raise Http404
        form = action.form(request.POST if ANSWERED in request.POST else None, backend=workflow.store)
        if not form.is_bound or not form.is_valid():
            return self._ask(request, workflow, action, form)
        try:
            applied = apply(request, workflow, action, form)
        except SkedError as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.message_user(request, str(applied), messages.SUCCESS if applied.changed else messages.WARNING)
        return HttpResponseRedirect(self.url("change", id, backend=workflow.store))

    def message_url(self, request: HttpRequest, message: ScheduledMessage) -> str:
        """Where its page is, for those who may see it; else nothing."""
        if not (self.admin_site.is_registered(ScheduledMessage) and request.user.has_perm(VIEW_MESSAGES)):
            return ""
        return address(self.admin_site, "scheduledmessage_change", message.pk, backend=message.backend)

    def _ask(self, request: HttpRequest, workflow: Workflow, action: Action, form: VerbForm) -> TemplateResponse:
        found, backend = messages_of(workflow), workflow.store
        count = capped_count(found)
        title = _("%(action)s: %(count)s messages of %(name)s")
        if count > CAP:
            title = _("%(action)s: more than %(count)s messages of %(name)s")
        title %= {"action": action.label, "count": min(count, CAP), "name": workflow}
        context = {
            "action": action,
            "form": form,
            "named": [(message, self.message_url(request, message)) for message in found[:NAMED]],
            "list_url": self.url("change", workflow.pk, backend=backend),
            "unnamed": count - NAMED,
            "answered": ANSWERED,
            "back_label": _("Back to the workflow"),
        }
        return self.page_that_asks(request, self.verb_template, title, context)
