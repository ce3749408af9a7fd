"""The messages of a recurrence: what has become of them, those that are ahead of their time, and those besides ticks.

`open` of a recurrence has the ids of messages of which it is not known yet that they have finished; and, with
`PROMISED` before it, the id of one that may not have been stored yet, and is to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import transaction

from django_sked import arguments, ids, ticking, triggers
from django_sked.backends import message_backends
from django_sked.exceptions import InvalidMessage, NotOpened
from django_sked.models.message import ScheduledMessage
from django_sked.recurrences import new_message
from django_sked.sealing import Sealed
from django_sked.states import Status
from django_sked.verbs import Cancel

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend
    from django_sked.models.recurrence import Recurrence

#: Before the id of an occurrence besides the ticks, from before it is stored until it has been seen.
PROMISED = "promised "
#: Ticks ahead that are looked for; the newest ones.
MOST_AHEAD = 1000
MOST_BACKFILLED = 10_000
#: Who says "until now" may do so by another clock than the store's.
_CLOCKS_DIFFER = timedelta(minutes=1)


# What has become of them


@dataclass(slots=True)
class Account:
    """What has become of the messages of a recurrence that had not finished when it was last looked at."""

    live: list[ScheduledMessage] = field(default_factory=list)
    successes: int = 0
    failures: int = 0
    verdict: dict[str, Any] = field(default_factory=dict)

    def fields(self, recurrence: Recurrence) -> dict[str, Any]:
        """What is written of it."""
        fields: dict[str, Any] = {
            "open": [str(message.pk) for message in self.live],
            "successes": recurrence.successes + self.successes,
            "failures": recurrence.failures + self.failures,
        }
        if "next_payload" in self.verdict:
            fields |= {"payload": self.verdict["next_payload"], "stateful": True, "has_next_payload": True}
        return fields


def account(recurrence: Recurrence, store: BaseBackend, now: datetime) -> Account:
    """Read what is open; what was promised, and is not there, is stored. Raises NotOpened."""
    found = Account()
    there = store.find_many({open_id(text) for text in recurrence.open}) if recurrence.open else {}
    for text in recurrence.open:
        id = open_id(text)
        try:
            message = there.get(id) or store.find(id=id)
        except ScheduledMessage.DoesNotExist:
            made = _keep_promise(recurrence, store, id, now) if text.startswith(PROMISED) else []
            if not made:
                found.successes += 1  # deleted as it was delivered, with a retention of 0: others are kept
                continue
            (message,) = made
        if message.is_live:
            found.live.append(message)
        elif message.status == Status.DELIVERED:
            found.successes += 1
            found.verdict |= _said(message)
        elif message.status in (Status.DEAD, Status.EXPIRED):
            found.failures += 1
    return found


def _said(message: ScheduledMessage) -> dict[str, Any]:
    """Raises NotOpened before anything is written: closed, it would be counted and lost."""
    if isinstance(message.verdict, Sealed):
        raise NotOpened(f"none of the keys here opens what the receiver of {message.pk} said of its recurrence.")
    return message.verdict or {}


def last_account(recurrence: Recurrence) -> dict[str, Any]:
    """What is written of it before others, with another store, go on with it; those of a store that is not known here
    any more are forgotten."""
    if recurrence.backend not in message_backends:
        return {"open": []}
    store = message_backends[recurrence.backend]
    found = account(recurrence, store, store.now())
    return found.fields(recurrence) | {"open": []}


def open_id(text: str) -> UUID:
    return UUID(text.removeprefix(PROMISED))


# Ahead of their time


def ahead(recurrence: Recurrence, now: datetime) -> list[datetime]:
    """The ticks whose messages may have been made by now, and are not due yet: a little ahead, or late by jitter."""
    try:
        ticks = ticks_between(recurrence, now - recurrence.jitter, now + ticking.AHEAD)
        newest = list(ticks)[-MOST_AHEAD:]
    except Exception:
        return []  # its trigger is not known here, or raises
    return [tick for tick in newest if recurrence.due_at(tick) > now]


def made_ahead(recurrence: Recurrence, now: datetime) -> list[ScheduledMessage]:
    """Its messages that are known to be live, and those that may be ahead of their time.

    Where these do not join transactions, one may be stored of which its row does not know: it is found by its tick.
    """
    store = recurrence.store
    messages = store.find_many(set(map(open_id, recurrence.open)))
    if not store.joins_transactions:
        messages |= {message.pk: message for message in standing(recurrence, ahead(recurrence, now)).values()}
    return list(messages.values())


def cancel_ahead(recurrence: Recurrence, reason: str, now: datetime) -> None:
    """Cancel its messages that are not due yet."""
    take_back(recurrence.store, made_ahead(recurrence, now), reason, now)


def leave_rhythm(recurrence: Recurrence, messages: Iterable[ScheduledMessage], now: datetime) -> None:
    """Of messages that another rhythm has made, cancel those whose ticks are later than now, and none of this one."""
    lost = [each for each in messages if each.tick_at and each.tick_at > now and not is_tick(recurrence, each.tick_at)]
    take_back(recurrence.store, lost, ticking.OF_NO_TICK, now)


def is_tick(recurrence: Recurrence, tick: datetime) -> bool:
    """Does it come at this instant, as it is defined, and goes on, now?"""
    start, end = recurrence.start_at, recurrence.end_at
    is_within = (start is None or tick >= start) and (end is None or tick <= end)
    is_active = recurrence.status == recurrence.Status.ACTIVE
    return is_active and is_within and tick in ticks_between(recurrence, tick, tick)


def take_back(store: BaseBackend, messages: Iterable[ScheduledMessage], reason: str, now: datetime) -> None:
    """Cancel those of them that are not due yet."""
    for message in messages:
        if message.tick_at is not None and message.due_at > now and message.is_live:
            store.change_one(message.pk, Cancel(reason=reason[:255]))


def taken_back(recurrence: Recurrence, now: datetime) -> datetime | None:
    """The first tick that a rest has taken back, and whose time has not come yet."""
    messages = standing(recurrence, ahead(recurrence, now))
    return min((tick for tick, message in messages.items() if was_taken_back(message)), default=None)


def brought_again(
    recurrence: Recurrence, known: Account, now: datetime
) -> tuple[datetime | None, tuple[datetime, ...]]:
    """The first tick that has never been made, and those before it that a resume brings again: from `next_tick_at` on,
    where that is not later than the last tick made. However old these are, they have not been missed, for they are due
    later by jitter, or have been promoted late; of those that are due no more where missed ticks are skipped, none."""
    first, last = recurrence.next_tick_at, recurrence.last_tick_at
    if first is None or last is None or first > last:
        return first, ()
    past = list(ticks_between(recurrence, first, last))[-MOST_AHEAD:]
    messages, live = standing(recurrence, past), {message.pk for message in known.live}
    again = []
    for tick in past:
        message = messages.get(tick)
        # One that is live and not known was stored by a promoter that was killed, or not heard.
        is_wanted = tick == first if message is None else was_taken_back(message) or message.is_live
        is_missed = recurrence.misfire == "skip" and recurrence.due_at(tick) < now - recurrence.grace
        if is_wanted and not is_missed and (message is None or message.pk not in live):
            again.append(tick)
    return recurrence.first_tick(last), tuple(again)


def standing(recurrence: Recurrence, ticks: Iterable[datetime]) -> dict[datetime, ScheduledMessage]:
    """The message that stands for each tick, if there is one: of those that were made again, the newest."""
    found: dict[datetime, ScheduledMessage] = {}
    wanted = {ids.of_tick(recurrence.pk, tick): tick for tick in ticks}
    while wanted:
        stored = recurrence.store.find_many(list(wanted))
        found |= {wanted[id]: message for id, message in stored.items()}
        wanted = {_following(message): wanted[id] for id, message in stored.items() if was_taken_back(message)}
    return found


def was_taken_back(message: ScheduledMessage) -> bool:
    return message.status == Status.CANCELLED and ticking.is_rest(message.reason)


def add_ticks(
    store: BaseBackend, recurrence: Recurrence, messages: Sequence[ScheduledMessage]
) -> list[ScheduledMessage]:
    """The message that stands for each tick; `was_created` says if it was stored just now. None for one that has been
    delivered and deleted.

    One that a rest has taken back comes again, under the id that follows from its own: no more than one of them is
    left. It is due when it was, or, if that has passed, when it is asked for.
    """
    found: list[ScheduledMessage] = []
    asked = {message.tick_at: message.due_at for message in messages}
    while messages:
        answers = store.add_ticks(messages)
        again = {each.pk: each for each in answers if not each.was_created and was_taken_back(each)}
        found += [each for each in answers if each.pk not in again]
        if not again:
            break
        now = store.now()
        messages = [
            new_message(
                recurrence,
                ScheduledMessage,
                each.tick_at,
                due_at=each.due_at if each.due_at > now else asked[each.tick_at],
                id=_following(each),
            )
            for each in again.values()
        ]
    places = {tick: place for place, tick in enumerate(asked)}
    return sorted(found, key=lambda message: places[message.tick_at])


def _following(message: ScheduledMessage) -> UUID:
    assert message.tick_at is not None
    return ids.of_tick(message.pk, message.tick_at)


# Besides the ticks


def run_now(recurrence: Recurrence) -> ScheduledMessage:
    """See `Recurrence.run_now`."""
    store = recurrence.store
    message = new_message(recurrence, ScheduledMessage, None, due_at=store.now())
    if store.joins_transactions:
        with transaction.atomic(using=store.database):
            store.add([message])
            recurrence.remember(str(message.pk), at=message.due_at)
        return message
    # First what makes it good if this process is killed: whoever looks at the row stores what is not there.
    recurrence.remember(PROMISED + str(message.pk), at=message.due_at)
    try:
        stored = store.add_ticks([message])
    except Exception:
        recurrence.forget(PROMISED + str(message.pk))
        raise
    return stored[0] if stored else message


def _keep_promise(recurrence: Recurrence, store: BaseBackend, id: UUID, now: datetime) -> list[ScheduledMessage]:
    """Nothing when it had been stored, delivered and deleted meanwhile: that is noted as of a tick."""
    return store.add_ticks([new_message(recurrence, ScheduledMessage, None, due_at=now, id=id)])


# Of the past


def backfill(recurrence: Recurrence, start: datetime, end: datetime, rate: float) -> list[ScheduledMessage]:
    """See `Recurrence.backfill`."""
    ticks = _past_ticks(recurrence, arguments.instant(start, "start"), arguments.instant(end, "end"))
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.001 <= rate <= 10_000:
        raise InvalidMessage(f"rate must be a number of messages a second from 0.001 to 10000, not {rate!r}.")
    first = recurrence.store.now()
    messages = [
        new_message(recurrence, ScheduledMessage, tick, due_at=first + timedelta(seconds=position / rate))
        for position, tick in enumerate(ticks)
    ]
    return [message for message in add_ticks(recurrence.store, recurrence, messages) if message.was_created]


def _past_ticks(recurrence: Recurrence, start: datetime, end: datetime) -> list[datetime]:
    if end < start:
        raise InvalidMessage(f"end must not lie before start ({start}), not {end}.")
    now = recurrence.store.now()
    if end > now + _CLOCKS_DIFFER:
        raise InvalidMessage(f"end must not lie in the future, where ticks come by themselves, not {end}.")
    found = list(islice(ticks_between(recurrence, start, min(end, now)), MOST_BACKFILLED + 1))
    if len(found) > MOST_BACKFILLED:
        raise InvalidMessage(f"From {start} to {end} there are more than {MOST_BACKFILLED} ticks.")
    return found


def ticks_between(recurrence: Recurrence, start: datetime, end: datetime) -> Iterator[datetime]:
    """The ticks from start to end, both included; of an interval, in the rhythm that it has now."""
    rules = recurrence.rules
    if isinstance(rules.trigger, triggers.Every):
        known = recurrence.next_tick_at or recurrence.last_tick_at or recurrence.start_at or recurrence.created_at
        tick: datetime | None = rules.trigger.next_in_rhythm(known, start - timedelta.resolution)
    else:
        tick = triggers.next_tick(rules.trigger, start - timedelta.resolution, rules.zone)
    while tick is not None and tick <= end:
        yield tick
        tick = triggers.next_tick(rules.trigger, tick, rules.zone)
