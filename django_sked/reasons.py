"""Why a message has not run yet, or not again: in words, from what is known of it and around it. Asks no store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_sked.sealing import is_unopened
from django_sked.states import FINISHED, Status, label_of
from django_sked.times import absolute, both, span

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage, WorkerProcess

#: Parents and workers that are named; the others are counted.
NAMED = 5
_NOT_OPENED = gettext_lazy("Its payload is encrypted, and none of the keys that are known here opens it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that keeps a message from running, or has ended it; the first one of a list weighs most."""

    #: A stable name of the kind, such as "future" or "no_worker".
    code: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A queue whose messages nobody claims: until when, if that is known, and why."""

    until: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is to be known besides the message itself."""

    #: The store's time.
    now: datetime
    #: The messages it waits for, or has waited for, as far as they are still there.
    parents: Sequence[ScheduledMessage] = ()
    #: The workers of its backend, also those whose lease has lapsed; None where that is not known.
    workers: Sequence[WorkerProcess] | None = None
    #: Of its queue; None when it is not paused.
    pause: Pause | None = None
    #: May the texts of errors be shown?
    with_errors: bool = True

    @property
    def alive(self) -> list[WorkerProcess] | None:
        """The workers whose lease is good."""
        if self.workers is None:
            return None
        return [worker for worker in self.workers if worker.lease_until >= self.now]


def reasons(message: ScheduledMessage, around: Surroundings) -> list[Reason]:
    """At least one reason, whatever the status; a message that has run says so."""
    if message.status in FINISHED:
        return [_finished(message, around)]
    find = _WHY.get(message.status)
    if find is None:
        text = _("It has the status %(status)s, which this release does not know.") % {"status": message.status}
        return [Reason(code="unknown_status", text=text)]
    return list(find(message, around))


# Finished


def _finished(message: ScheduledMessage, around: Surroundings) -> Reason:
    finished_at = message.finished_at or around.now
    words = {
        "when": both(finished_at, around.now),
        "late": span(min(message.due_at, finished_at), finished_at),
        "why": _because(message.reason),
    }
    if message.status == Status.DELIVERED:
        text = _("It has run: it was delivered at %(when)s, %(late)s after it was due.") % words
    elif message.status == Status.CANCELLED:
        text = _("It was cancelled at %(when)s%(why)s.") % words
    elif message.status == Status.EXPIRED:
        text = _("It expired at %(when)s, before it was delivered%(why)s.") % words
    else:
        return _dead(message, around, words["when"])
    return Reason(code=message.status, text=text)


def _dead(message: ScheduledMessage, around: Surroundings, when: str) -> Reason:
    why = _because(message.reason or _last_error(message)) if around.with_errors else ""
    words = {"when": when, "attempt": message.attempt, "most": message.max_attempts, "why": why}
    text = _("It is dead since %(when)s, after %(attempt)d of %(most)d attempts%(why)s. Only a redrive tries it again.")
    return Reason(code="dead", text=text % words)


def _because(text: str) -> str:
    """The end of a sentence, without its full stop."""
    return f": {text.strip().rstrip('.')}" if text.strip() else ""


def _last_error(message: ScheduledMessage) -> str:
    last = message.errors[-1] if isinstance(message.errors, list) and message.errors else None
    if not isinstance(last, dict):
        return ""
    text = " ".join(str(last.get("text", "")).split())[:200]
    return ": ".join(part for part in (str(last.get("type", "")), text) if part)


# Claimed


def _claimed(message: ScheduledMessage, around: Surroundings) -> Iterator[Reason]:
    worker = _holder(message, around)
    words = {
        "worker": _named(worker) if worker is not None else _("the worker %(id)s") % {"id": message.claimed_by},
        "since": both(message.claimed_at or around.now, around.now),
        "attempt": message.attempt + 1,
        "most": message.max_attempts,
    }
    text = _("It is claimed by %(worker)s since %(since)s, for attempt %(attempt)d of %(most)d.") % words
    if message.next_at > around.now:
        text += " " + _("Its time comes at %(at)s; until then that worker keeps it.") % {
            "at": both(message.next_at, around.now)
        }
    elif worker is not None and worker.busy_with == message.pk and worker.busy_since is not None:
        text += " " + _("Its receiver has been running since %(at)s.") % {"at": both(worker.busy_since, around.now)}
    yield Reason(code="claimed", text=text)
    if message.cancel_requested:
        text = _("That worker was asked to stop it%(why)s: it is not tried again.") % {"why": _because(message.reason)}
        yield Reason(code="cancel_requested", text=text)
    yield from _lapsed(worker, around)


def _holder(message: ScheduledMessage, around: Surroundings) -> WorkerProcess | None:
    return next((worker for worker in around.workers or () if worker.pk == message.claimed_by), None)


def _lapsed(worker: WorkerProcess | None, around: Surroundings) -> Iterator[Reason]:
    if around.workers is None or (worker is not None and worker.lease_until >= around.now):
        return
    if worker is None:
        text = _("That worker is not there any more.")
    else:
        text = _("The lease of that worker has lapsed at %(at)s.") % {"at": both(worker.lease_until, around.now)}
    text += " "
    if around.alive:
        text += _("Another worker takes it back soon, once it has had the store for a whole lease itself.")
    else:
        text += _("No other worker is alive that could take it back.")
    yield Reason(code="lease_lapsed", text=text)


def _named(worker: WorkerProcess) -> str:
    return _("the worker %(host)s, process %(pid)d") % {"host": worker.host, "pid": worker.pid}


# Blocked


def _blocked(message: ScheduledMessage, around: Surroundings) -> Iterator[Reason]:
    if message.held_at is not None:
        words = {"since": both(message.held_at, around.now), "why": _because(message.reason)}
        text = _("It is on hold since %(since)s%(why)s. Resume lets it go on.") % words
        yield Reason(code="held", text=text)
    if message.parents_left or message.held_at is None:
        yield _waiting(message, around)


def _waiting(message: ScheduledMessage, around: Surroundings) -> Reason:
    count = message.parents_left
    text = ngettext("It waits for %(count)d other message", "It waits for %(count)d other messages", count)
    text %= {"count": count}
    # What has ended may be what has been decided already; what is live is waited for in any case.
    live = [parent for parent in around.parents if parent.status not in FINISHED]
    named = [f"{parent.event} {parent.pk} ({label_of(parent.status)})" for parent in live[:NAMED]]
    if len(live) > NAMED:
        named.append(_("and %(count)d more") % {"count": len(live) - NAMED})
    return Reason(code="blocked", text=f"{text}: {', '.join(named)}." if named else f"{text}.")


# Scheduled


def _scheduled(message: ScheduledMessage, around: Surroundings) -> Iterator[Reason]:
    # Of one that is due, a pause weighs more than who could claim it: nobody may.
    if message.next_at > around.now:
        yield _later(message, around)
        yield from _paused(message, around)
    else:
        yield from _paused(message, around)
        yield from _due(message, around)
    if message.suspect:
        text = _("A worker was lost while it held it: only a worker that holds nothing else tries it again.")
        if message.crashes:
            text += " " + ngettext(
                "That has cost %(count)d worker more.", "That has cost %(count)d workers more.", message.crashes
            ) % {"count": message.crashes}
        yield Reason(code="suspect", text=text)
    if message.expires_at is not None:
        at = both(message.expires_at, around.now)
        yield Reason(code="expires", text=_("It expires at %(at)s if it has not run by then.") % {"at": at})


def _paused(message: ScheduledMessage, around: Surroundings) -> Iterator[Reason]:
    if around.pause is None:
        return
    until = _(" until %(at)s") % {"at": both(around.pause.until, around.now)} if around.pause.until else ""
    words = {"queue": message.queue, "until": until, "why": _because(around.pause.reason)}
    text = _("Its queue %(queue)s is paused%(until)s%(why)s.") % words
    yield Reason(code="paused", text=text)


def _later(message: ScheduledMessage, around: Surroundings) -> Reason:
    """Its next time lies ahead: as was asked, or as something has put it off."""
    words = {"at": both(message.next_at, around.now), "event": message.event, "attempt": message.attempt}
    if message.unroutable and is_unopened(message):
        return Reason(code="not_opened", text=f"{_NOT_OPENED} " + _("The next worker looks at %(at)s.") % words)
    if message.unroutable:
        count = {"count": message.unroutable}
        text = _("No worker that claimed it knew a receiver for the event %(event)s") % words
        text += ngettext(" (%(count)d time).", " (%(count)d times).", message.unroutable) % count
        return Reason(code="unroutable", text=text + " " + _("The next one looks at %(at)s.") % words)
    if message.attempt:
        error = _because(_last_error(message)) if around.with_errors else ""
        words |= {"most": message.max_attempts, "why": error}
        text = _("Attempt %(attempt)d of %(most)d failed%(why)s. It is tried again at %(at)s.") % words
        return Reason(code="retry", text=text)
    if message.next_at != message.due_at:
        words["due"] = absolute(message.due_at)
        text = _("It was due at %(due)s and has been put off: it comes at %(at)s.") % words
        return Reason(code="put_off", text=text)
    return Reason(code="future", text=_("Its time has not come: it is due at %(at)s.") % words)


def _due(message: ScheduledMessage, around: Surroundings) -> Iterator[Reason]:
    yield _to_be_claimed(message, around)
    if message.unroutable and is_unopened(message):
        yield Reason(code="not_opened", text=str(_NOT_OPENED))
    elif message.unroutable:
        text = _("The last worker that claimed it knew no receiver for the event %(event)s.")
        yield Reason(code="unroutable", text=text % {"event": message.event})
    elif message.attempt:
        why = _because(_last_error(message)) if around.with_errors else ""
        words = {"attempt": message.attempt, "most": message.max_attempts, "why": why}
        yield Reason(code="retry", text=_("Attempt %(attempt)d of %(most)d failed%(why)s.") % words)


def _to_be_claimed(message: ScheduledMessage, around: Surroundings) -> Reason:
    """Nothing keeps it back: so who is there to claim it?"""
    alive = around.alive
    words = {"since": both(message.next_at, around.now), "queue": message.queue}
    due = _("It is due since %(since)s.") % words + " "
    if alive is None:
        return Reason(code="due", text=due + _("Which workers there are is not known here."))
    if not alive:
        return Reason(code="no_worker", text=due + _("No worker of this backend is alive."))
    serving = [worker for worker in alive if message.queue in (worker.queues or {})]
    if not serving:
        text = _("None of the workers that are alive serves the queue %(queue)s: %(workers)s.")
        return Reason(code="no_worker", text=due + text % {**words, "workers": _each(alive, _served)})
    text = _("It waits for its turn with the workers of the queue %(queue)s: %(workers)s.")
    return Reason(code="due", text=due + text % {**words, "workers": _each(serving, _load)})


def _each(workers: list[WorkerProcess], shown: Callable[[WorkerProcess], str]) -> str:
    named = [shown(worker) for worker in workers[:NAMED]]
    if len(workers) > NAMED:
        named.append(_("and %(count)d more") % {"count": len(workers) - NAMED})
    return "; ".join(named)


def _served(worker: WorkerProcess) -> str:
    return _("%(worker)s serves %(queues)s") % {
        "worker": worker,
        "queues": ", ".join(sorted(map(str, worker.queues or ()))) or _("none yet"),
    }


def _load(worker: WorkerProcess) -> str:
    return _("%(worker)s has %(count)d in flight") % {"worker": worker, "count": worker.in_flight}


_WHY: dict[str, Callable[[ScheduledMessage, Surroundings], Iterator[Reason]]] = {
    Status.CLAIMED: _claimed,
    Status.BLOCKED: _blocked,
    Status.SCHEDULED: _scheduled,
}
