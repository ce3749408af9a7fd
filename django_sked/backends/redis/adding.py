"""STEP schedule, in Redis: one script stores all of a call's messages, or says why it stores none."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from copy import copy, deepcopy
from typing import Any
from uuid import UUID

from redis import exceptions

from django_sked import dependencies
from django_sked.backends.redis import encoding
from django_sked.backends.redis.encoding import LATEST, encoded, micros, new_body, uuid
from django_sked.backends.redis.records import Records
from django_sked.backends.redis.scripts import LETTERS, Scripts
from django_sked.dependencies import Condition, refuse_unknown
from django_sked.exceptions import BackendFull, IdInUse, InvalidMessage, KeyInUse
from django_sked.models import ScheduledMessage
from django_sked.scheduling import OnConflict
from django_sked.sealing import Seal
from django_sked.states import PENDING

_KIND = ("status", "queue", "event", "priority")

#: Messages of one call: 10,000 keep the server from others for 0.2 seconds; and what they wait for, all together.
MOST = 10_000
MOST_EDGES = 20_000
#: Bytes of one call: servers close the connection of who sends them a gigabyte at once.
MOST_BYTES = 256 << 20


def refuse_many(messages: Sequence[ScheduledMessage]) -> None:
    """All or none is one script, and while it runs the server does nothing else."""
    if len(messages) > MOST:
        raise InvalidMessage(
            f"One call of schedule_many() may have at most {MOST} messages on a Redis backend, not {len(messages)}: "
            "call it for one lot after the other."
        )


def prepare(messages: Sequence[ScheduledMessage]) -> None:
    """See `dependencies.prepare`; most calls have no message that waits."""
    waiting = [message for message in messages if message.waits_for]
    if (edges := sum(len(message.waits_for) for message in waiting)) > MOST_EDGES:
        raise InvalidMessage(
            f"The messages of one call may wait for at most {MOST_EDGES} others on a Redis backend, all together, not "
            f"for {edges}: schedule them one lot after the other."
        )
    if waiting:
        dependencies.prepare(messages)


def _refuse_large(arguments: Sequence[Any]) -> None:
    size = sum(len(each) for each in arguments if type(each) is str)
    if size > MOST_BYTES:
        raise InvalidMessage(
            f"The messages of one call may have at most {MOST_BYTES:,} characters on a Redis backend, all together, "
            f"not {size:,}: schedule them one lot after the other."
        )


def refuse_late(messages: Sequence[ScheduledMessage]) -> None:
    """What is pending is found by its times; see `encoding.refuse_late`."""
    for message in messages:
        values = message.__dict__
        is_late = values["due_at"] > LATEST or values["next_at"] > LATEST
        if (is_late or (values["expires_at"] or LATEST) > LATEST) and values["status"] in PENDING:
            encoding.refuse_late(values)


def refuse_twins(messages: Sequence[ScheduledMessage], on_conflict: OnConflict) -> None:
    """Two of one call that share an id or a key; where conflicts are ignored, so is the second of them."""
    if on_conflict == "ignore":
        return
    seen: set[object] = set()
    for message in messages:
        names: set[object] = {message.live_key} if message.live_key is not None else set()
        if message.has_own_id:
            names.add(message.pk)
        if names & seen:
            raise InvalidMessage(f"Two messages of one call share the id {message.pk} or the key {message.key!r}.")
        seen |= names


def add(
    scripts: Scripts,
    records: Records,
    messages: Sequence[ScheduledMessage],
    on_conflict: OnConflict,
    *,
    now: int,
    news: str,
    ticks: int = 0,
    is_known: bool = False,
) -> tuple[list[ScheduledMessage], list[UUID], Sequence[Any]]:
    """Store all or none. Returns the answer to each message, the ids of pending ones that were replaced, and what has
    followed from that for those who wait.

    With `ticks` they are those of ticks: each is noted, of all of them the newest so many, and what has been noted
    before is passed over and has no answer. A call that `is_known` is so for a while, where its messages may be gone
    before it is made again because its answer was lost.
    """
    call = secrets.token_hex(8)
    arguments: list[Any] = [on_conflict, 0, news, call, ticks, int(is_known), *_arguments(messages, call, records.seal)]
    _refuse_large(arguments)
    try:
        again = lambda: [on_conflict, 1, *arguments[2:]]  # noqa: E731
        answer = scripts.call("add", *arguments, now=now, again=again, is_asked_for=True)
    except exceptions.OutOfMemoryError as error:
        raise BackendFull("The Redis server has no memory for another message.") from error
    if answer[0] == "refused":
        _refuse(records, messages[answer[1]], *answer[2:])
    if answer[0] == "unknown":
        refuse_unknown(map(uuid, answer[1:]))
    return _read(records, messages, answer[1:])


def _read(
    records: Records, messages: Sequence[ScheduledMessage], entries: Sequence[Any]
) -> tuple[list[ScheduledMessage], list[UUID], Sequence[Any]]:
    """What the script says became of each message, as `add` returns it."""
    answers: dict[int, ScheduledMessage] = dict(enumerate(messages))
    replaced: list[UUID] = []
    followed: Sequence[Any] = ()
    for entry in entries:
        if len(entry) == 1:
            replaced.append(uuid(entry[0]))
        elif entry[0] == "followed":
            followed = entry[1:]
        elif entry[1] == "noted":
            del answers[entry[0]]
        else:
            answers[entry[0]] = _holder(records, entry[1], entry[2], messages[entry[0]])
    return list(answers.values()), replaced, followed


def _arguments(messages: Sequence[ScheduledMessage], call: str, seal: Seal | None) -> list[Any]:
    """The messages as `lua/add.lua` takes them, those that only schedule() has touched by the short way."""
    kinds: dict[tuple[Any, ...], int] = {}
    found: list[Any] = []
    created_at = due_at = None
    created = due = 0
    for message in messages:
        values = message.__dict__
        more_of_it = values["recurrence_id"] or values["workflow_id"] or values["parents_left"]
        if message.has_own_id or more_of_it:
            found += _in_full(message, kinds, call, seal)
            continue
        # Mostly all of a call have been made at one instant, and are due at another.
        if values["created_at"] is not created_at:
            created_at = values["created_at"]
            created = micros(created_at)
        if values["due_at"] is not due_at:
            due_at = values["due_at"]
            due = micros(due_at)
        kind = kinds.setdefault(("scheduled", values["queue"], values["event"], values["priority"]), len(kinds) + 1)
        found += (f"{values['id'].int:032x}", kind, due, new_body(values, created, seal))
        key, expires_at = values["key"], values["expires_at"]
        if key is None and expires_at is None:
            found.append(0)
        else:
            more: list[Any] = [] if key is None else ["key", key, "live", 1, "created_at", created]
            more += [] if expires_at is None else ["expires_at", micros(expires_at)]
            found += (len(more) // 2, *more)
    return [len(kinds), *(name for kind in kinds for name in kind), *found]


def _in_full(message: ScheduledMessage, kinds: dict[tuple[Any, ...], int], call: str, seal: Seal | None) -> list[Any]:
    fields = encoded(message.__dict__, seal)
    kind = tuple(fields.pop(name) for name in _KIND)
    found = [message.pk.hex, kinds.setdefault(kind, len(kinds) + 1), fields.pop("due_at"), fields.pop("body")]
    if fields["next_at"] == found[2]:
        fields.pop("next_at")
    if not fields["token"]:
        fields.pop("token")  # as the script writes it
    if "key" in fields:
        fields["created_at"] = micros(message.created_at)  # by which the newest of a key is found
    if message.has_own_id:
        fields["added"] = call
    if message.waits_for:
        fields["waits"] = "".join(f"{parent.hex}{LETTERS[Condition(how)]}" for parent, how in message.waits_for.items())
    found.append(len(fields))
    for item in fields.items():
        found += item
    return found


def _holder(records: Records, id: str, row: Sequence[str], message: ScheduledMessage) -> ScheduledMessage:
    record = records.record(uuid(id), row)
    if record is None or record.message is None:
        raise KeyInUse(f"The id {message.pk} or the key {message.key!r} is held by message {uuid(id)}.")
    return record.message


def _refuse(records: Records, message: ScheduledMessage, what: str, holder_id: str, row: Sequence[str]) -> None:
    holder = _holder(records, holder_id, row, message)
    if what == "id":
        raise IdInUse(f"A message with the id {message.pk} is stored already: {holder.event}, {holder.status}.")
    raise KeyInUse(f"The key {message.key!r} is held by message {holder.pk} ({holder.status}).", holder=holder)


def stored(message: ScheduledMessage, alias: str) -> None:
    """Mark an instance as one that is stored."""
    message.was_created = True
    message.backend_alias = alias
    message._state.adding = False


def taken(message: ScheduledMessage) -> ScheduledMessage:
    """The message as it is now, whatever becomes of the instance."""
    same = copy(message)
    for name in ("payload", "metadata", "retry_policy"):
        setattr(same, name, deepcopy(getattr(message, name)))
    return same
