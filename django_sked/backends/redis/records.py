"""Records as they are read, and the writes that hold only if nobody wrote them meanwhile.

What a verb, a settle or a rescue does to a message is decided in Python, by the same functions as for every other
backend. So it is read, decided and written, and the script that writes compares first: the `rev` that each such write
gives a record, its token and its status must be those that the decision was made from. If not, it is decided again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from django_sked.backends.redis.encoding import UNREADABLE, changed, decoded, instant, micros
from django_sked.backends.redis.families import Families
from django_sked.backends.redis.scripts import Scripts
from django_sked.models import ScheduledMessage
from django_sked.sealing import Seal

#: Records that one script reads or writes: more would keep the server from others for too long.
BATCH = 100
#: Rounds against others who write the same records at the same time.
ROUNDS = 50


@dataclass(slots=True)
class Record:
    """A stored message and the fields it was made of.

    Of one that `is_readable` no more there are only the columns, and no message if not even these.
    """

    id: UUID
    fields: dict[str, str]
    message: ScheduledMessage | None
    is_readable: bool = True


@dataclass(slots=True, kw_only=True)
class Write:
    """One decision about one record."""

    record: Record
    step: str
    changes: dict[str, Any]
    #: Only while this worker has no lease.
    lapsed: str = ""
    delete: bool = False

    def message_after(self) -> ScheduledMessage:
        """The message as this write leaves it."""
        message = self.record.message
        assert message is not None
        for name, value in self.changes.items():
            setattr(message, name, value)
        return message

    def arguments(self, seal: Seal | None = None) -> list[Any]:
        fields = self.record.fields
        sets, dels = changed(fields, self.changes, seal)
        found: list[Any] = [self.step, self.record.id.hex, fields.get("rev", ""), fields["token"], fields["status"]]
        found += [secrets.token_hex(8), self.lapsed, int(self.delete), len(sets), len(dels)]
        for name, value in sets.items():
            found += (name, value)
        return found + dels


class Records:
    """Reads and writes the records of one backend."""

    def __init__(self, alias: str, scripts: Scripts, families: Families, seal: Seal | None = None) -> None:
        self.seal = seal
        self._alias = alias
        self._scripts = scripts
        self._families = families

    def read(self, ids: Sequence[UUID], now: datetime | None = None) -> tuple[datetime, dict[UUID, Record]]:
        """The store's time, and what is stored of these ids."""
        found: dict[UUID, Record] = {}
        at = now
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            time, *rows = self._scripts.call("read", *(id.hex for id in batch))
            at = at or instant(time)
            for id, row in zip(batch, rows, strict=True):
                if (record := self.record(id, row)) is not None:
                    found[id] = record
        return at or self._time(), found

    def _time(self) -> datetime:
        return instant(self._scripts.call("read")[0])

    def record(self, id: UUID, row: Sequence[str]) -> Record | None:
        """The record that a script returned as names and values; None when there is none."""
        fields = dict(zip(row[::2], row[1::2], strict=True))
        if not {"status", "token"} <= fields.keys():
            return None
        try:
            return Record(id, fields, decoded(self._alias, id, fields))
        except UNREADABLE:
            columns = {name: text for name, text in fields.items() if name not in ("body", "history")}
        try:
            return Record(id, fields, decoded(self._alias, id, columns), is_readable=False)
        except UNREADABLE:
            return Record(id, fields, None, is_readable=False)

    def write(
        self, writes: Sequence[Write], news: str = "", now: datetime | None = None, *, is_asked_for: bool = False
    ) -> list[str]:
        """What became of each: "written", "changed", "gone", "leased", or "key" when another message holds its key.

        What people have asked for is known by a name of the call for a minute, and so made once also where its answer
        was lost and others have changed the message before it is made again. Workers have tokens for that. Where one of
        these ends, what waits for it follows in the same call, and what that leaves in calls of its own.
        """
        answers: list[str] = []
        for start in range(0, len(writes), BATCH):
            arguments: list[Any] = [news, secrets.token_hex(8) if is_asked_for else ""]
            for write in writes[start : start + BATCH]:
                arguments += write.arguments(self.seal)
            given = micros(now) if now else ""
            found = self._scripts.call("write", *arguments, now=given, is_asked_for=is_asked_for)
            followed = found.pop() if isinstance(found[-1], list) else None
            answers += found
            if followed is not None:
                self._families.followed(followed, now)
        return answers

    def decide(
        self,
        ids: Iterable[UUID],
        decision: Callable[[Record | None, UUID, datetime], Write | None],
        now: datetime | None = None,
        news: Callable[[Sequence[Write]], str] = lambda writes: "",
        *,
        is_asked_for: bool = False,
    ) -> dict[UUID, Write]:
        """Have `decision` say what to write to each, and say it again as long as somebody else was quicker.

        Returns what was written; where another message held the key, and where it said None, there is nothing.
        """
        done: dict[UUID, Write] = {}
        once = iter(dict.fromkeys(ids))
        while left := list(islice(once, BATCH)):
            for _ in range(ROUNDS):
                at, records = self.read(left, now)
                wanted = [decision(records.get(id), id, at) for id in left]
                writes = [write for write in wanted if write is not None]
                answers = self.write(writes, news(writes), now, is_asked_for=is_asked_for)
                done.update({w.record.id: w for w, answer in zip(writes, answers, strict=True) if answer == "written"})
                left = [w.record.id for w, answer in zip(writes, answers, strict=True) if answer in ("changed", "gone")]
                if not left:
                    break
        return done
