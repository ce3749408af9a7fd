"""STEP promote: the ticks of recurrences become messages, a little ahead of their time, each exactly once.

Any number of workers do this at the same time. Where messages are rows, those of the ticks and the next tick are
written in one transaction, and the recurrence only while nobody else has changed it. Elsewhere the messages come first,
under ids that are made of recurrence and tick, and then the recurrence is moved on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError, transaction

from django_sked import clock, failpoints, ticking
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import RecurrenceChanged
from django_sked.models import Recurrence, ScheduledMessage, leaving, occurrences, runs
from django_sked.models.occurrences import Account
from django_sked.recurrences import new_message

logger = logging.getLogger("django_sked.worker")

INTERVAL = 1.0
#: Recurrences in one step, and rounds of one that has more missed ticks than are counted in one go.
BATCH = 500
ROUNDS = 100
#: Messages of which a recurrence remembers that they have not finished, all read at every look; the newest ones.
MOST_OPEN = 1000
#: Until an occurrence is looked at that has not finished: a part of the time that it has taken, between these two.
LOOKS = (timedelta(seconds=1), timedelta(minutes=5))
#: Seconds for which a recurrence is left to other workers that could not be promoted here.
SET_ASIDE = 60.0
#: ... between two looks for ticks that were passed over, and are ahead again; one more when a clock goes back.
LOOK_BACK = 60.0


class Promoter:
    """Its `step` is called each second. `on_made` is called when there are new messages.

    What may keep a thread waiting is done within `watch`, of a name and the database that recurrences are in. `between`
    is called before each round of a recurrence: many missed ticks may take a while.
    """

    def __init__(
        self,
        backend: BaseBackend,
        on_made: Callable[[], None] = lambda: None,
        watch: Callable[[str, str], AbstractContextManager[None]] = lambda name, using: nullcontext(),
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend = backend
        self._on_made = on_made
        self._using = Recurrence.objects.database_of(backend)
        self._watch = watch
        self._between = between
        self._set_aside: dict[UUID, float] = {}
        #: The latest time of the store, and when to look back at the latest.
        self._seen: datetime | None = None
        self._is_told = False
        self._look_back_at = 0.0

    def step(self, now: datetime | None = None) -> list[ScheduledMessage]:
        """Promote what is to be looked at; returns the messages that were made."""
        at = now or self._backend.now()
        self._is_told = now is not None or clock.pretended() is not None
        present = clock.monotonic()
        self._set_aside = {id: until for id, until in self._set_aside.items() if until > present}
        rows = Recurrence.objects.of(self._backend).filter(look_at__lte=at)
        made: list[ScheduledMessage] = []
        self._look_back(at, present)
        with self._watch("promote", self._using):
            # Mostly there are none, and then little is to be asked for.
            if not rows.values_list("pk")[:1]:
                return []
            found = list(rows.exclude(pk__in=list(self._set_aside)).order_by("look_at")[:BATCH])
        for recurrence in found:
            with self._setting_aside(recurrence):
                self._promote_all(recurrence, at, made)
        if made:
            self._on_made()
        return made

    def _look_back(self, at: datetime, present: float) -> None:
        """The store's clock may have been ahead, and have gone back: what was passed over then comes in its time."""
        has_gone_back, self._seen = self._seen is not None and at < self._seen, at
        if not has_gone_back and present < self._look_back_at:
            return
        with self._watch("promote", self._using):
            found = list(runs.passed_over(Recurrence.objects.of(self._backend), at))
        for recurrence in found:
            with self._setting_aside(recurrence), self._watch("promote", self._using):
                if runs.first_passed_over(recurrence, at) is not None and recurrence.go_back(at):
                    logger.warning(
                        "clock_went_back recurrence=%s next_tick_at=%s", recurrence.name, recurrence.next_tick_at
                    )
        self._look_back_at = present + LOOK_BACK

    @contextmanager
    def _setting_aside(self, recurrence: Recurrence) -> Iterator[None]:
        """One that fails, as when this worker does not know its trigger, neither ends nor keeps others waiting."""
        try:
            yield
        except Exception as error:
            # Recurrences may be in another database than messages.
            if self._backend.is_expected(error) or isinstance(error, InterfaceError | OperationalError):
                raise
            logger.exception("not_promoted recurrence=%s", recurrence.name)
            self._set_aside[recurrence.pk] = clock.monotonic() + SET_ASIDE

    def _promote_all(self, recurrence: Recurrence, at: datetime, made: list[ScheduledMessage]) -> None:
        for _round in range(ROUNDS):
            self._between()
            with self._watch("promote", self._using):
                made += self._promote(recurrence, at)
            if recurrence.look_at is None or recurrence.look_at > at:
                break

    def _promote(self, recurrence: Recurrence, at: datetime) -> list[ScheduledMessage]:
        account = occurrences.account(recurrence, self._backend, at)
        fields = account.fields(recurrence)
        if recurrence.status != Recurrence.Status.ACTIVE:
            if not self._backend.joins_transactions:
                # Another promoter may have stored one just now, and have been killed before it could take it back.
                recurrence.cancel_ahead(reason=ticking.PAUSED, now=at)
            self._write(recurrence, fields | _of_resting(recurrence, account, at), [])
            return []
        reason = _why_it_ends(recurrence, account, fields["successes"])
        if reason is not None:
            if self._write(recurrence, fields | _of_resting(recurrence, account, at, reason), []) is not None:
                recurrence.cancel_ahead(reason=ticking.ENDED, now=at)
            return []
        if there := leaving.late_and_there(recurrence, account, at):
            recurrence.look_at = at if recurrence.write(there) else None  # at once, for they are open now
            return []
        next_tick_at, again = occurrences.brought_again(recurrence, account, at)
        standing = ticking.Standing(
            next_tick_at=next_tick_at,
            again=again,
            waiting_tick_at=recurrence.waiting_tick_at,
            runs=runs.spans(recurrence),
            undone=runs.undone(recurrence, at),
            live=len(account.live),
            ahead=sum((message.tick_at or message.due_at) > at + ticking.AHEAD for message in account.live),
            successes=fields["successes"],
        )
        ticks = ticking.decide(recurrence.rules, standing, at)
        if ticks.missed and self._is_ahead(at):
            recurrence.look_at = None
            return []
        recurrence.payload = fields.get("payload", recurrence.payload)
        messages = [new_message(recurrence, ScheduledMessage, t, due_at=recurrence.due_at(t)) for t in ticks.made]
        fields |= _moved_on(recurrence, ticks, account.live + messages, at)
        return self._write(recurrence, fields, messages) or []

    def _is_ahead(self, at: datetime) -> bool:
        """Has the store's clock gone back since it was read? That is not known at once, and nothing was missed then."""
        return not self._is_told and self._backend.read_now() < at - ticking.AHEAD

    def _write(
        self, recurrence: Recurrence, fields: dict[str, Any], messages: list[ScheduledMessage]
    ) -> list[ScheduledMessage] | None:
        """Both or nothing; None when somebody else has changed the recurrence meanwhile."""
        store, last_tick_at = self._backend, recurrence.last_tick_at
        if not store.joins_transactions:
            standing = occurrences.add_ticks(store, recurrence, messages)
            added = [message for message in standing if message.was_created]
            failpoints.hit("promote")
            if recurrence.write(fields | _opened(fields, messages, standing, last_tick_at)):
                return added
            self._take_back(recurrence, added)
            recurrence.look_at = None
            return added or None
        with transaction.atomic(using=store.database):
            # First: this takes the lock of the row, and whoever comes second finds another version.
            supposed = _opened(fields, messages, messages, last_tick_at)
            if not recurrence.write(fields | supposed):
                recurrence.look_at = None
                return None
            failpoints.hit("promote")
            standing = occurrences.add_ticks(store, recurrence, messages)
            opened = _opened(fields, messages, standing, last_tick_at)
            if opened != supposed and not recurrence.write(opened):
                raise RecurrenceChanged(f"The recurrence {recurrence.name!r} was changed though its row was locked.")
            return [message for message in standing if message.was_created]

    def _take_back(self, recurrence: Recurrence, added: list[ScheduledMessage]) -> None:
        """What was stored for a row that somebody has changed meanwhile: it stays if the row has it too, or will come
        to it, as after a change of its payload; not after a pause, an end, or another rhythm."""
        if not added:
            return
        stored = Recurrence.objects.using(self._using).filter(pk=recurrence.pk).first()
        if stored is not None and stored.backend != self._backend.alias:
            stored.next_tick_at = None  # what is ahead of it is made elsewhere
        lost = [each for each in added if stored is None or not _comes_to(stored, each.tick_at)]
        occurrences.take_back(self._backend, lost, ticking.OF_NO_TICK, self._backend.now())


def _comes_to(recurrence: Recurrence, tick: datetime | None) -> bool:
    """Has this recurrence made this tick, or will it?"""
    if recurrence.status != Recurrence.Status.ACTIVE or tick is None:
        return False
    if recurrence.last_tick_at is not None and tick <= recurrence.last_tick_at:
        return True
    is_ahead = recurrence.next_tick_at is not None and tick >= recurrence.next_tick_at
    return is_ahead and tick in occurrences.ticks_between(recurrence, tick, tick)


def _why_it_ends(recurrence: Recurrence, account: Account, successes: int) -> str | None:
    if "end" in account.verdict:
        return str(account.verdict["end"]) or "Its receiver has ended it."
    most = recurrence.max_occurrences
    return None if most is None or successes < most else ticking.enough(most)


def _of_resting(recurrence: Recurrence, account: Account, at: datetime, reason: str = "") -> dict[str, Any]:
    """The fields of one without further ticks, that ends if it has a reason to; it is looked at while messages live."""
    if "end" in account.verdict and recurrence.status != Recurrence.Status.ENDED:
        reason = str(account.verdict["end"]) or "Its receiver has ended it."
    looks = [_look_at(message, at) for message in account.live]
    return (recurrence.ending(at, reason) if reason else {}) | {"look_at": min(looks, default=None)}


def _moved_on(
    recurrence: Recurrence, ticks: ticking.Ticks, live: list[ScheduledMessage], at: datetime
) -> dict[str, Any]:
    """The fields with which it waits for what is next, or ends."""
    last = _last(recurrence.last_tick_at)
    fields: dict[str, Any] = {
        # One that is made again, since a rest had taken it back, has been counted.
        "occurrences": recurrence.occurrences + sum(tick.timestamp() > last for tick in ticks.made),
        "missed": recurrence.missed + ticks.missed,
        "skipped": recurrence.skipped + ticks.skipped,
        "waiting_tick_at": ticks.waiting_tick_at,
        "next_tick_at": ticks.next_tick_at,
        "last_tick_at": max([*ticks.made, recurrence.last_tick_at], key=_last, default=None),
    }
    if ticks.since is not None:
        fields |= runs.broken(recurrence, ticks.since)
    looks = [_look_at(message, at) for message in live]
    if ticks.held_back:
        looks.append(at + LOOKS[0])
    elif ticks.next_tick_at is not None:
        looks.append(ticks.next_tick_at - ticking.AHEAD)
    if not looks:
        return fields | recurrence.ending(at, ticking.NO_MORE_TICKS) | {"look_at": None}
    return fields | {"look_at": min(looks)}


def _opened(
    fields: dict[str, Any],
    messages: list[ScheduledMessage],
    standing: list[ScheduledMessage],
    last_tick_at: datetime | None,
) -> dict[str, Any]:
    """What is to be read later of these ticks: the messages that stand for them, which are others than those that were
    offered where a tick has been made again. Of ticks that the recurrence had made before, only what is live: the rest
    has been read."""
    if not messages:
        return {}
    by_tick = {message.tick_at: message for message in standing}
    known = list(fields["open"])
    for offered in messages:
        is_first = _last(offered.tick_at) > _last(last_tick_at)
        message = by_tick.get(offered.tick_at, offered if is_first else None)
        if message is not None and (is_first or message.is_live):
            known.append(str(message.pk))
    return {"open": list(dict.fromkeys(known))[-MOST_OPEN:]}


def _last(tick: datetime | None) -> float:
    return float("-inf") if tick is None else tick.timestamp()


def _look_at(message: ScheduledMessage, at: datetime) -> datetime:
    """When to see whether this occurrence has finished."""
    shortest, longest = LOOKS
    return max(at, message.due_at) + min(max(shortest, (at - message.due_at) / 4), longest)
