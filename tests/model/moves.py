"""What hypothesis draws: times that meet each other's boundaries, messages, changes, and the ends of claims."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import strategies as st

from django_sked import verbs
from django_sked.outcomes import Outcome, Step
from tests.model.book import Entry

#: Far from now, with microseconds that show lost precision.
T0 = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
QUEUES = ["default", "mail", "brought"]
KEYS = ["a", "b"]
WORKERS = [UUID(int=number) for number in (1, 2, 3)]
LEASE = 30.0

TICK = timedelta(microseconds=1)
_SECONDS = [0, 1e-6, 1e-3, 1, 30, 3600, -1e-6, -1, -3600]
offsets = st.sampled_from([timedelta(seconds=seconds) for seconds in _SECONDS])
waits = st.sampled_from([timedelta(seconds=seconds) for seconds in _SECONDS if seconds >= 0])
#: How far the clock is moved: what leases, retries and retentions are made of.
moves = st.sampled_from(
    [timedelta(seconds=seconds) for seconds in (1e-6, 1e-3, 1, 29, 31, 3600, 8 * 86400, 91 * 86400)]
)
ticks = st.sampled_from([timedelta(0), TICK, -TICK])
picks = st.integers(0, 30)
aheads = st.sampled_from([0.0, 0.0, 1e-6, 1.0, 3600.0])
limits = st.sampled_from([1000, 1, 2, 3, 0])
#: How often a call is made: the second time as by a caller to whom the first seemed to fail.
times = st.sampled_from([1, 1, 1, 2])


def id_of(number: int) -> UUID:
    """Ids of version 7, in another order than that of their creation."""
    return UUID(int=(number * 40503 % 65521) << 80 | 0x7 << 76 | 0b10 << 62)


NOBODY = id_of(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A message to be scheduled. `again` is the number of a known message whose id it takes."""

    due_in: timedelta = timedelta(0)
    expires_in: timedelta | None = None
    queue: str = "default"
    priority: int = 0
    key: str | None = None
    own_id: bool = False
    again: int | None = None

    def entry(self, id: UUID, now: datetime) -> Entry:
        due_at = now + self.due_in
        return Entry(
            id=id,
            queue=self.queue,
            priority=self.priority,
            payload={"due": str(due_at)},
            key=self.key,
            live_key=self.key,
            created_at=now,
            due_at=due_at,
            next_at=due_at,
            expires_at=None if self.expires_in is None else due_at + self.expires_in,
        )


orders = st.builds(
    Order,
    due_in=offsets,
    expires_in=st.none() | waits.filter(bool),
    queue=st.sampled_from(["default", "default", "default", "mail"]),
    priority=st.sampled_from([0, 0, 5, -5]),
    key=st.none() | st.sampled_from(KEYS),
    own_id=st.booleans(),
    again=st.sampled_from([None, None, None, 0, 1, 2]),
)
conflicts = st.sampled_from(["error", "ignore", "replace"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What a worker says became of a message."""

    step: Step
    wait: timedelta | None = None
    by_delay: bool = False
    counted: bool = True
    failed: bool = False
    unroutable: bool = False

    def outcome(self, id: UUID, token: int, now: datetime) -> Outcome:
        return Outcome(
            id=id,
            token=token,
            step=self.step,
            at=now + self.wait if self.wait is not None and not self.by_delay else None,
            delay=self.wait.total_seconds() if self.wait is not None and self.by_delay else None,
            counted=self.counted,
            delivered_to={"one": "delivered", "two": "delivered"} if self.failed or self.step == "keep" else {},
            errors=[{"text": f"no luck at {now}"}] if self.failed else [],
            reason="no luck" if self.step in ("bury", "expire") else "",
            unroutable=self.unroutable,
        )


RELEASE = Ending(step="release", counted=False)
endings = st.one_of(
    st.builds(Ending, step=st.just("deliver"), failed=st.sampled_from([False, False, True])),
    st.builds(Ending, step=st.just("retry"), wait=waits, by_delay=st.booleans(), failed=st.booleans()),
    st.builds(Ending, step=st.just("retry"), wait=waits, counted=st.just(False)),
    st.builds(Ending, step=st.just("bury"), failed=st.booleans()),
    st.builds(Ending, step=st.just("expire"), counted=st.booleans()),
    st.builds(Ending, step=st.just("keep"), failed=st.booleans()),
    st.builds(Ending, step=st.just("release"), counted=st.just(False)),
    st.builds(
        Ending,
        step=st.just("release"),
        counted=st.just(False),
        unroutable=st.just(True),
        wait=waits,
        by_delay=st.just(True),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person wants done to messages."""

    kind: str
    offset: timedelta

    def verb(self, now: datetime) -> verbs.Verb:
        reason = f"asked at {now}"
        found: dict[str, verbs.Verb] = {
            "cancel": verbs.Cancel(reason=reason),
            "reschedule": verbs.Reschedule(due_at=now + self.offset),
            "shift": verbs.Reschedule(shift=self.offset),
            "edit": verbs.Reschedule(fields={"queue": QUEUES[1], "priority": 5, "payload": {"new": str(now)}}),
            "expire": verbs.Reschedule(fields={"expires_at": now + self.offset}),
            "hold": verbs.Hold(reason=reason),
            "resume": verbs.Resume(),
            "make_due": verbs.MakeDue(),
            "redrive": verbs.Redrive(),
            "redrive_later": verbs.Redrive(due_at=now + self.offset),
        }
        return found[self.kind]


WISHES = ["cancel", "reschedule", "shift", "edit", "expire", "hold", "resume", "make_due", "redrive", "redrive_later"]
wishes = st.builds(Wish, kind=st.sampled_from(WISHES), offset=offsets)
