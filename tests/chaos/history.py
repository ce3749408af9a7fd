"""What happened in a run, sorted by message and by process: the ledger, the rows and the effects at its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf

from tests.chaos.ledger import Event

#: The receiver that every message has.
MAIN = "main"
#: The one that a pair has before it, where receivers are atomic.
FIRST = "first"
#: Those that may be tried again under one token, where receivers are atomic.
ATOMIC = frozenset({FIRST, MAIN})
#: Faults in which a process stands still, or is cut off, and goes on later.
HALTS = frozenset({"pause", "partition", "stall"})
#: Faults after which messages that were in flight may come twice. Neither a SIGTERM is among them nor a cut connection:
#: the worker lives on, and finds out by the token what became of a settle whose answer was lost.
BREAKS = HALTS | {"kill", "db_crash", "poison", "stuck"}
#: Faults that keep settles from being written, so that they pile up.
TROUBLES = HALTS | {"db_crash", "cut"}
#: Seconds within which a fault that is done in a moment has surely taken effect.
MOMENT = 0.25
EVERYBODY = 0


@dataclass(slots=True, kw_only=True)
class Fault:
    """Something that was done to a process, or to all (`pid` 0), from `begin` to `end`."""

    kind: str
    pid: int
    begin: float
    end: float
    how: str = ""


@dataclass(slots=True, kw_only=True)
class Start:
    """One call of one receiver."""

    at: float
    pid: int
    token: int
    receiver: str
    attempt: int
    #: When the message could be claimed at the earliest, and when it was claimed, as it says itself.
    next: float
    claimed: float
    #: ok, failed, postponed, or nothing when it was not seen to end.
    how: str = ""
    #: When it was settled, refused or taken over, as far as anybody has seen.
    settled: float = inf


@dataclass(slots=True, kw_only=True)
class Settle:
    """A settle that was written, as the worker that wrote it has told."""

    at: float
    pid: int
    token: int
    status: str


@dataclass(slots=True, kw_only=True)
class Change:
    """A verb and its answer; *unknown* when that was lost."""

    asked: float
    answered: float = inf
    answer: str = "unknown"
    due: float | None = None


@dataclass(slots=True, kw_only=True)
class Row:
    """A message as the database has it at the end."""

    status: str
    attempt: int
    token: int
    crashes: int = 0


@dataclass(slots=True)
class Story:
    """All that is known of one message."""

    id: str
    due: float | None = None
    kind: str = "plain"
    fail: int = 0
    max_attempts: int = 0
    expires: float | None = None
    #: What schedule() answered: ok, unknown, "rolled back", or nothing when nobody has scheduled it.
    scheduled: str = ""
    #: Between which instants.
    asked: float = inf
    answered: float = inf
    cancel: Change | None = None
    move: Change | None = None
    starts: list[Start] = field(default_factory=list)
    settles: list[Settle] = field(default_factory=list)
    #: Token -> when the settle of that claim was refused.
    refusals: dict[int, float] = field(default_factory=dict)
    row: Row | None = None
    #: Receiver -> how often what it wrote is there.
    effects: dict[str, int] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        return self.due is not None

    def instants(self) -> Iterator[float]:
        """When something was written about it, as far as anybody has told."""
        yield from (self.asked, self.answered)
        for change in (self.cancel, self.move):
            if change is not None:
                yield from (change.asked, change.answered)
        for start in self.starts:
            yield from (start.claimed, start.at)
        yield from (settle.at for settle in self.settles)

    def by_receiver(self) -> dict[str, list[Start]]:
        """Its starts in the order of their tokens."""
        found: dict[str, list[Start]] = defaultdict(list)
        for start in sorted(self.starts, key=lambda start: (start.token, start.at)):
            found[start.receiver].append(start)
        return found


@dataclass(slots=True)
class History:
    """A whole run. `forgets` are the seconds before a database crash whose settles may be lost with it, `loses` those
    of which anything may be, `threads` those that a worker may have in receivers."""

    atomic: bool = False
    forgets: float = 0.0
    loses: float = 0.0
    threads: int = 8
    stories: dict[str, Story] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    refused: int = 0
    workers: int = 0
    _by_pid: dict[int, list[Fault]] = field(default_factory=lambda: defaultdict(list))

    def faults_of(self, pid: int) -> Iterable[Fault]:
        """The faults that this process has felt."""
        yield from self._by_pid.get(pid, ())
        yield from self._by_pid.get(EVERYBODY, ())

    def may_be_lost(self, story: Story) -> bool:
        """Was anything written about it that a crash of the database may have taken with it?"""
        return self.loses > 0 and any(
            fault.begin - self.loses <= at <= fault.end
            for fault in self.faults
            if fault.kind == "db_crash"
            for at in story.instants()
        )

    def add_fault(self, fault: Fault) -> None:
        self.faults.append(fault)
        self._by_pid[fault.pid].append(fault)


def history_of(
    events: Iterable[Event],
    rows: Mapping[str, Row],
    effects: Mapping[tuple[str, str], int],
    *,
    atomic: bool = False,
    forgets: float = 0.0,
    loses: float = 0.0,
    threads: int = 8,
) -> History:
    """Sort the events of a ledger, in one pass; those of one process are in the order of time, and no others."""
    history = History(atomic, forgets, loses, threads)
    reader = _Reader(history)
    for event in events:
        getattr(reader, f"on_{event['ev']}")(event)
    reader.finish()
    for id, row in rows.items():
        reader.story(id).row = row
    for (id, receiver), count in effects.items():
        reader.story(id).effects[receiver] = count
    for story in history.stories.values():
        _close(story)
    return history


class _Reader:
    def __init__(self, history: History) -> None:
        self._history = history
        self._faults: dict[int, tuple[Event, Event | None]] = {}
        self._ends: dict[tuple[str, int, str], str] = {}

    def story(self, id: str) -> Story:
        story = self._history.stories.get(id)
        if story is None:
            story = self._history.stories[id] = Story(id)
        return story

    def on_schedule(self, event: Event) -> None:
        story = self.story(event["id"])
        story.due, story.kind = event["due"], event["kind"]
        story.fail, story.max_attempts = event["fail"], event["max_attempts"]
        story.expires = event.get("expires")
        story.scheduled, story.asked = "unknown", event["at"]

    def on_scheduled(self, event: Event) -> None:
        story = self.story(event["id"])
        story.scheduled, story.answered = event["answer"], event["at"]

    def on_cancel(self, event: Event) -> None:
        self.story(event["id"]).cancel = Change(asked=event["at"])

    def on_move(self, event: Event) -> None:
        self.story(event["id"]).move = Change(asked=event["at"], due=event["due"])

    def on_answered(self, event: Event) -> None:
        change: Change = getattr(self.story(event["id"]), event["verb"])
        change.answered, change.answer = event["at"], event["answer"]

    def on_start(self, event: Event) -> None:
        story = self.story(event["id"])
        names = ("at", "pid", "token", "receiver", "attempt", "next", "claimed")
        story.starts.append(Start(**{name: event[name] for name in names}))

    def on_end(self, event: Event) -> None:
        self._ends[event["id"], event["token"], event["receiver"]] = event["how"]

    def on_settled(self, event: Event) -> None:
        settle = Settle(at=event["at"], pid=event["pid"], token=event["token"], status=event["status"])
        self.story(event["id"]).settles.append(settle)

    def on_up(self, event: Event) -> None:
        self._history.workers += 1

    def on_refused(self, event: Event) -> None:
        self._history.refused += 1
        self.story(event["id"]).refusals.setdefault(event["token"], event["at"])

    def on_stall(self, event: Event) -> None:
        self._add("stall", event["pid"], event["begin"], event["end"])

    def on_fault(self, event: Event) -> None:
        self._faults[event["fault"]] = (event, None)

    def on_fault_over(self, event: Event) -> None:
        self._faults[event["fault"]] = (self._faults[event["fault"]][0], event)

    def _add(self, kind: str, pid: int, begin: float, end: float, how: str = "") -> None:
        self._history.add_fault(Fault(kind=kind, pid=pid, begin=begin, end=end + MOMENT, how=how))

    def finish(self) -> None:
        for begun, over in self._faults.values():
            how = over.get("how", begun["kind"]) if over else begun["kind"]
            if how:  # else there was nothing to cut
                end = over["at"] if over else begun["at"]
                self._add(begun["kind"], begun["target"], begun["at"], end, how)
        for story in self._history.stories.values():
            for start in story.starts:
                start.how = self._ends.get((story.id, start.token, start.receiver), "")
                if story.kind == "poison":
                    self._add("poison", start.pid, start.at, start.at)
        self._history.faults.sort(key=lambda fault: fault.begin)


def _close(story: Story) -> None:
    """Note with each start when it was over at the latest: when its settle was told or refused, or when somebody took
    it over."""
    told = {settle.token: settle.at for settle in story.settles}
    claims = sorted({(start.token, start.claimed) for start in story.starts})
    for start in story.starts:
        later = [claimed for token, claimed in claims if token > start.token]
        start.settled = min([told.get(start.token, inf), story.refusals.get(start.token, inf), *later])
