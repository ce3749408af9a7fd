"""The verbs as the admin offers them: what each is called, who may use it, and what it asks first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from django_sked import verbs
from django_sked.admin.forms import ReasonForm, RedriveForm, RescheduleForm, VerbForm
from django_sked.models import ScheduledMessage
from django_sked.states import Answer


def may_edit(request: HttpRequest) -> bool:
    """May this user write payloads? Who writes one sees the one there is."""
    return request.user.has_perms(("django_sked.edit_scheduledmessage", "django_sked.view_payload"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A verb with its words. Its name is the method of the QuerySet, and the permission to use it is `permission`."""

    verb: type[verbs.Verb]
    permission: str
    label: Promise | str
    #: "5 messages were cancelled", with `count`.
    done: Any
    #: Why the others were not: the end of a sentence.
    otherwise: Promise | str
    form: type[VerbForm] = VerbForm
    #: Does it also change the payload, which whoever may edit may do with no other permission?
    edits: bool = False
    #: Does it show a page before it does anything? For a whole filter each one does.
    asks: bool = False

    @property
    def name(self) -> str:
        return self.verb.step

    def is_allowed(self, request: HttpRequest) -> bool:
        return request.user.has_perm(f"django_sked.{self.permission}") or (self.edits and may_edit(request))

    def fits(self, message: ScheduledMessage) -> bool:
        """Would it change this message now?"""
        held = message.held_at is not None
        refusal = self.verb().refusal(message.status, held=held)
        return refusal is None or (self.verb is verbs.Cancel and refusal is Answer.TOO_LATE)


ACTIONS = {
    action.name: action
    for action in (
        Action(
            verb=verbs.Cancel,
            permission="cancel_scheduledmessage",
            label=_("Cancel"),
            done=ngettext_lazy("%(count)d message was cancelled", "%(count)d messages were cancelled", "count"),
            otherwise=_("only pending messages can be; the workers that hold claimed ones were asked to stop"),
            form=ReasonForm,
            asks=True,
        ),
        Action(
            verb=verbs.Reschedule,
            permission="reschedule_scheduledmessage",
            label=_("Reschedule"),
            done=ngettext_lazy("%(count)d message was rescheduled", "%(count)d messages were rescheduled", "count"),
            otherwise=_("only pending messages can be"),
            form=RescheduleForm,
            edits=True,
            asks=True,
        ),
        Action(
            verb=verbs.MakeDue,
            permission="make_due_scheduledmessage",
            label=_("Make due"),
            done=ngettext_lazy("%(count)d message was made due", "%(count)d messages were made due", "count"),
            otherwise=_("only scheduled messages can be"),
        ),
        Action(
            verb=verbs.Hold,
            permission="hold_scheduledmessage",
            label=_("Hold"),
            done=ngettext_lazy("%(count)d message was held", "%(count)d messages were held", "count"),
            otherwise=_("only pending messages can be"),
            form=ReasonForm,
        ),
        Action(
            verb=verbs.Resume,
            permission="resume_scheduledmessage",
            label=_("Resume"),
            done=ngettext_lazy("%(count)d message was resumed", "%(count)d messages were resumed", "count"),
            otherwise=_("only messages on hold can be"),
        ),
        Action(
            verb=verbs.Redrive,
            permission="redrive_scheduledmessage",
            label=_("Redrive"),
            done=ngettext_lazy("%(count)d message was redriven", "%(count)d messages were redriven", "count"),
            otherwise=_("only dead messages can be, and only while no live one holds their key"),
            form=RedriveForm,
            asks=True,
        ),
    )
}


def offered(request: HttpRequest, message: ScheduledMessage) -> Iterator[Action]:
    """What this user may do to this message, as it is now."""
    return (action for action in ACTIONS.values() if action.is_allowed(request) and action.fits(message))
