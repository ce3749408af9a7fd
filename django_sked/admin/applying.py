"""Using a verb on what was selected, and writing down who did what to which message, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.forms import Form
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_sked import revising, verbs
from django_sked.admin import times
from django_sked.admin.actions import Action
from django_sked.admin.forms import VerbForm, canonical
from django_sked.admin.lists import CAP, capped_count
from django_sked.admin.stored import StoredMessages, backend_of
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.queries import ScheduledMessageQuerySet
from django_sked.states import PENDING, Status

#: Up to so many messages get an entry each in the history; more of them share one.
MOST_ENTRIES = 100
#: What people's verbs write and workers, with one exception, do not.
_CHANGED = ("due_at", "held_at", "finished_at", "cancel_requested")
_READ = ("id", "event", "status", *_CHANGED)

Messages = ScheduledMessageQuerySet | StoredMessages
#: Of how many messages were changed and of how many there were: what is put behind the text of each entry.
Mark = Callable[[int, int], str]


class Overtaken(Exception):
    """The one message that a page is about is not the one any more that it has shown."""


def no_mark(changed: int, seen: int) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    action: Action
    changed: int
    #: None where there were too many to count.
    unchanged: int | None
    #: Is it done after the commit of this request, which knows no more than how many messages it is tried on?
    follows: bool = False

    def __str__(self) -> str:
        """One sentence."""
        if self.follows:
            sentence = ngettext(
                "%(action)s: tried on %(count)d message as soon as this request is committed; see its history.",
                "%(action)s: tried on %(count)d messages as soon as this request is committed; see their history.",
                self.changed,
            )
            return sentence % {"action": self.action.label, "count": self.changed}
        sentence = str(self.action.done % {"count": self.changed})
        if self.unchanged is None:
            sentence += _("; any others were not: %(reason)s") % {"reason": self.action.otherwise}
        elif self.unchanged:
            rest = ngettext("; %(count)d was not: %(reason)s", "; %(count)d were not: %(reason)s", self.unchanged)
            sentence += rest % {"count": self.unchanged, "reason": self.action.otherwise}
        return f"{sentence}."


def apply(request: HttpRequest, queryset: Messages, action: Action, form: VerbForm, mark: Mark = no_mark) -> Applied:
    """Use the verb on all of these; up to `MOST_ENTRIES` of them change in one transaction, more in chunks.

    Where there is none, or no one transaction, an entry is written before anything is changed. Raises Overtaken.
    """
    selected = capped_count(queryset)
    before = first(queryset, MOST_ENTRIES + 1)
    is_batch = len(before) > MOST_ENTRIES
    backend = backend_of(queryset)
    together = backend.joins_transactions and not is_batch
    # Together or not at all: no change is without its entries.
    with transaction.atomic(using=backend.database) if together else nullcontext():
        entry = None if together else start_batch(request, action, form)
        try:
            changed = _change(queryset, action, form, before)
        except Overtaken:
            if entry is not None:
                entry.delete()
            raise

        def log(follows: bool) -> None:
            if entry is not None and is_batch:
                finish_batch(entry, action, form, changed, follows, mark(changed, selected))
                return
            log_each(request, backend, before, action, form, mark(changed, selected))
            if entry is not None:
                entry.delete()

        # After the changes: where these follow the commit, nothing differs until then.
        follows = backend.postpone(action.name, lambda: log(True))
        if not follows:
            log(False)
    unchanged = None if selected > CAP else max(0, selected - changed)
    return Applied(action=action, changed=changed, unchanged=unchanged, follows=follows)


def _change(queryset: Messages, action: Action, form: VerbForm, before: list[ScheduledMessage]) -> int:
    """How many were changed: the one that the page is about only while it is as it was shown."""
    message, backend = form.message, backend_of(queryset)
    if message is not None:
        shown = verbs.Reschedule(seen=form.seen)
        if any(found.pk != message.pk for found in before):
            raise Overtaken
        if isinstance(queryset, StoredMessages) and action.verb is verbs.Reschedule:
            verb = revising.reschedule(backend.settings, backend.now(), **form.arguments())
            changed = queryset._change(replace(verb, seen=form.seen))
            if not changed and any(map(shown.is_overtaken, backend.find_many([message.pk]).values())):
                raise Overtaken
            return changed
        if backend.database is not None:
            # Locked, and compared here: not every database can tell whether two payloads are the same.
            backend.begin_change()
            rows = ScheduledMessage.objects.using(backend.database).filter(pk=message.pk)
            if any(map(shown.is_overtaken, rows.select_for_update())):
                raise Overtaken
    done: int = getattr(queryset, action.name)(**form.arguments())
    return done


def first(queryset: Messages, count: int) -> list[ScheduledMessage]:
    """The first messages, with what `log_each` compares."""
    if isinstance(queryset, StoredMessages):
        return list(queryset[:count])
    return list(queryset.order_by("pk").defer(None).only(*_READ)[:count])


def log_each(
    request: HttpRequest,
    backend: BaseBackend,
    before: list[ScheduledMessage],
    action: Action,
    form: VerbForm,
    mark: str = "",
) -> None:
    """An entry for each message that is another one now."""
    after = backend.find_many([message.pk for message in before])
    texts: dict[str, list[ScheduledMessage]] = {}
    for old in before:
        new = after.get(old.pk)
        if new is not None and _differs(old, new, form):
            texts.setdefault(_text(old, new, action, form) + mark, []).append(new)
    for text, messages in texts.items():
        LogEntry.objects.log_actions(request.user.pk, messages, CHANGE, change_message=text)  # type: ignore[arg-type]


def _differs(old: ScheduledMessage, new: ScheduledMessage, form: VerbForm) -> bool:
    # A worker may have delivered it in the same moment: that was not this user.
    if new.status == Status.DELIVERED:
        return False
    arguments = form.arguments()
    edited = "payload" in arguments and new.status in PENDING and _is_stored_as(arguments["payload"], new.payload)
    return edited or any(getattr(old, name) != getattr(new, name) for name in _CHANGED)


def _is_stored_as(given: Any, stored: Any) -> bool:
    """Are they the same JSON? A database may give 1e16 back as a whole number, but never 1 for true."""
    one, other = (canonical(json.loads(canonical(value), parse_int=float)) for value in (given, stored))
    return one == other


def _text(old: ScheduledMessage, new: ScheduledMessage, action: Action, form: VerbForm) -> str:
    done = str(capfirst(action.verb.done.label))
    if new.cancel_requested and not old.cancel_requested:
        done = _("Asked its worker to stop")
    text = f"{done}."
    if old.due_at != new.due_at:
        text += " " + _("Due: %(old)s → %(new)s.") % {
            "old": times.absolute(old.due_at),
            "new": times.absolute(new.due_at),
        }
    if "payload" in form.arguments():
        # Not what is in it: the history is for all who may view.
        text += " " + _("Another payload.")
    return text + reason_text(form)


def reason_text(form: Form) -> str:
    """What is put behind the text of an entry."""
    reason = form.cleaned_data.get("reason")
    return " " + _("Reason: %(reason)s") % {"reason": reason} if reason else ""


def start_batch(request: HttpRequest, action: Action, form: VerbForm) -> LogEntry:
    """Written before the first chunk, so that a batch that is cut short is in the history, too."""
    return LogEntry.objects.create(
        user=request.user,  # type: ignore[misc]
        content_type=ContentType.objects.get_for_model(ScheduledMessage),
        object_repr=_("Scheduled messages: %(filter)s") % {"filter": request.GET.urlencode()[:150] or _("all")},
        action_flag=CHANGE,
        change_message=_("%(action)s of selected messages began.") % {"action": action.label} + reason_text(form),
    )


def finish_batch(entry: LogEntry, action: Action, form: VerbForm, changed: int, follows: bool, mark: str = "") -> None:
    """Put what was done into an entry that was written before."""
    entry.change_message = batch_text(action, form, changed, follows=follows) + reason_text(form) + mark
    entry.save(update_fields=["change_message"])


def batch_text(action: Action, form: VerbForm, changed: int, *, follows: bool = False) -> str:
    """What was done to how many messages."""
    text = f"{action.done % {'count': changed}}."
    if follows:
        text = _("%(action)s: tried on %(count)d messages.") % {"action": action.label, "count": changed}
    arguments = {name: value for name, value in form.arguments().items() if name != "reason"}
    if "at" in arguments:
        text += " " + _("Now due: %(at)s.") % {"at": times.absolute(arguments["at"])}
    if "payload" in arguments:
        text += " " + _("Another payload.")
    if "shift" in arguments:
        text += " " + _("Moved by %(shift)s.") % {"shift": arguments["shift"]}
    return text
