"""What a history proves: every promise that it breaks, with the messages that show it. One pass, no database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from tests.chaos import duplicates
from tests.chaos.history import ATOMIC, FIRST, HALTS, MAIN, History, Settle, Start, Story

LIVE = frozenset({"blocked", "scheduled", "claimed"})
#: A poisonous message ends so many workers at most, and is dead after so many lost in its sole company (P12).
MOST_DEATHS = 4
CRASHES = 3
#: Seconds that a worker may take to tell that it has settled.
TELLING = 0.5


@dataclass
class Verdict:
    """The counts of a run, and under the name of each broken promise what shows that it is."""

    messages: int = 0
    starts: int = 0
    delivered: int = 0
    refused: int = 0
    tries: int = 0
    duplicates: int = 0
    by_fault: Counter[str] = field(default_factory=Counter)
    bound: int = 0
    lateness: list[float] = field(default_factory=list)
    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    #: The same, of messages whose last write a server that is not told to keep it has lost in a crash.
    lost_by_server: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def is_kept(self) -> bool:
        return not any(self.violations.values())


def check(history: History) -> Verdict:
    """Judge a history."""
    verdict = Verdict(refused=history.refused)
    lost_ids = {id for id, story in history.stories.items() if history.may_be_lost(story)}
    for story in history.stories.values():
        _count(story, verdict)
        broken = verdict.lost_by_server if story.id in lost_ids else verdict.violations
        for name, invariant in INVARIANTS.items():
            broken[name] += [f"{story.id} {what}" for what in invariant(story, history)]
    found = duplicates.count(history)
    verdict.duplicates, verdict.by_fault, verdict.tries = found.duplicates, found.by_fault, found.tries
    verdict.bound = found.bound
    for what in found.unexplained:
        broken = verdict.lost_by_server if what.split()[0] in lost_ids else verdict.violations
        broken["unexplained duplicates"].append(what)
    verdict.violations["crowded"] = found.crowded
    verdict.violations["started after a lost lease"] = found.overtaken
    if found.duplicates > found.bound:
        verdict.violations["duplicates"].append(f"{found.duplicates} are more than {found.bound}")
    return verdict


def _count(story: Story, verdict: Verdict) -> None:
    verdict.messages += story.scheduled in ("ok", "unknown")
    verdict.starts += len(story.starts)
    verdict.delivered += story.row is not None and story.row.status == "delivered"
    if story.starts and story.due is not None and story.move is None:
        verdict.lateness.append(min(start.at for start in story.starts) - story.due)


def lost(story: Story, history: History) -> Iterator[str]:
    """What was scheduled ends, as it was meant to end (P1)."""
    row = story.row
    if row is None:
        if story.scheduled == "ok" or (story.scheduled == "unknown" and story.starts):
            yield "is gone"
        return
    if row.status in LIVE:
        yield f"is still {row.status}"
    elif story.is_known and row.status not in (ends := _ends(story, history)):
        yield f"is {row.status}, not {' or '.join(sorted(ends))}"
    elif row.status == "delivered" and not any(start.receiver == MAIN for start in story.starts):
        yield "is delivered, and was not started"


def _ends(story: Story, history: History) -> set[str]:
    answer = story.cancel.answer if story.cancel is not None else "none"
    if answer == "cancelled":
        return {"cancelled"}
    ends = {"dead" if story.kind == "poison" or story.fail >= story.max_attempts else "delivered"}
    if _struck(story, history):
        ends.add("dead")
    if story.fail + _timeouts(story, history) >= story.max_attempts:
        ends.add("dead")
    if story.expires is not None:
        ends.add("expired")
    return ends | {"cancelled"} if answer in ("too_late", "unknown") else ends


def _struck(story: Story, history: History) -> bool:
    """Was it in hand, by bad luck, in as many processes that were killed as end a poisonous message?

    Nobody who is killed can tell why: P12 holds such a message for poisonous, and keeps it as dead for a person.
    """
    kills = {fault.pid for fault, start in duplicates.open_at_faults(story, history) if fault.kind == "kill"}
    return story.row is not None and story.row.crashes >= CRASHES and len(kills) >= CRASHES


def _timeouts(story: Story, history: History) -> int:
    """How many attempts of an atomic receiver, which always has a timeout, may have failed by a standstill."""
    if not history.atomic:
        return 0
    return sum(settle.status == "scheduled" and _halted(settle, history) for settle in story.settles)


def _kept(start: Start, story: Story, history: History) -> bool:
    """Was this success not undone because its timeout ran out in a standstill?"""
    if not history.atomic or start.receiver not in ATOMIC:
        return True
    return not any(
        settle.token == start.token and settle.status == "scheduled" and _halted(settle, history)
        for settle in story.settles
    )


def unexpected(story: Story, history: History) -> Iterator[str]:
    """Nothing comes that nobody has scheduled, or that was rolled back (P20)."""
    if not story.is_known:
        yield "was not scheduled by this run"
    elif story.scheduled == "rolled back" and (story.starts or story.row is not None):
        yield "was rolled back, and is there"


def early(story: Story, history: History) -> Iterator[str]:
    """No start before the message was due, or before the time of its retry (P2)."""
    for start in story.starts:
        due = max(_due(story, start), start.next)
        if start.at < due:
            yield f"{start.receiver} was started {due - start.at:.6f} s early"


def _due(story: Story, start: Start) -> float:
    due = story.due if story.due is not None else -inf
    move = story.move
    if move is None or move.due is None:
        return due
    if move.answer == "unknown" or (move.answer == "rescheduled" and move.asked < start.at <= move.answered):
        return min(due, move.due)
    return move.due if move.answer == "rescheduled" and start.at > move.answered else due


def cancelled(story: Story, history: History) -> Iterator[str]:
    """After *cancelled* nothing starts; after *too late* it was started, or ended cancelled (P17)."""
    cancel = story.cancel
    if cancel is None:
        return
    if cancel.answer == "cancelled" and any(start.at > cancel.answered for start in story.starts):
        yield "was started after it was cancelled"
    if cancel.answer == "too_late" and not story.starts and (story.row is None or story.row.status != "cancelled"):
        yield "was too late to cancel, and neither started nor cancelled"
    if cancel.answer == "not_found" and story.scheduled == "ok":
        yield "was not found when it was to be cancelled"


def stale(story: Story, history: History) -> Iterator[str]:
    """No settle takes effect once somebody else holds the message (P4)."""
    newest = max([start.token for start in story.starts], default=0)
    newest = max(newest, story.row.token if story.row is not None else 0)
    for settle in story.settles:
        if settle.status == "scheduled":
            overtaken = any(s.token > settle.token and s.at < settle.at - TELLING for s in story.starts)
        else:
            overtaken = settle.token < newest
        if overtaken and not _may_lag(settle, history):
            yield f"was settled ({settle.status}) with token {settle.token} after a newer one"


def _may_lag(settle: Settle, history: History) -> bool:
    """A crash of the database lost it again; or, of a retry, the worker stood still between writing it and telling."""
    return (settle.status == "scheduled" and _halted(settle, history)) or any(
        fault.kind == "db_crash" and fault.begin - history.forgets <= settle.at <= fault.end
        for fault in history.faults_of(settle.pid)
    )


def _halted(settle: Settle, history: History) -> bool:
    """Did the worker stand still just before it told this?"""
    return any(
        fault.kind in HALTS and fault.begin <= settle.at <= fault.end + TELLING
        for fault in history.faults_of(settle.pid)
    )


def tokens(story: Story, history: History) -> Iterator[str]:
    """A claim starts a receiver once, and tokens rise from start to start (P4)."""
    for receiver, starts in story.by_receiver().items():
        for one, other in pairwise(starts):
            is_try = history.atomic and receiver in ATOMIC and one.pid == other.pid
            if one.token == other.token and not is_try:
                yield f"{receiver} was started twice with token {one.token}"
            if one.at > other.at and duplicates.halt_before(one, history) is None:
                yield f"{receiver} was started with token {one.token} after {other.token}"
    if story.row is not None and any(start.token > story.row.token for start in story.starts):
        yield f"has token {story.row.token}, less than one that was started"


def attempts(story: Story, history: History) -> Iterator[str]:
    """Only finished and failed attempts count: not kills, releases or lost leases (P10)."""
    row = story.row
    if row is None or not story.is_known:
        return
    if row.attempt > story.max_attempts or len({start.attempt for start in story.starts}) > story.max_attempts:
        yield f"had more than {story.max_attempts} attempts"
    wanted = {"delivered": story.fail + 1, "dead": story.max_attempts}.get(row.status, row.attempt)
    is_buried = story.kind == "poison" or (row.status == "dead" and _struck(story, history))
    if not is_buried and not wanted <= row.attempt <= wanted + _timeouts(story, history):
        yield f"is {row.status} after {row.attempt} attempts, not {wanted}"
    for starts in story.by_receiver().values():
        if any(one.attempt > other.attempt for one, other in pairwise(starts)):
            yield "lost an attempt again"


def satisfied(story: Story, history: History) -> Iterator[str]:
    """A receiver that succeeded is not called again because another one failed (P5)."""
    for starts in story.by_receiver().values():
        done = min(
            [start.attempt for start in starts if start.how == "ok" and _kept(start, story, history)], default=None
        )
        if done is not None and any(start.attempt > done for start in starts):
            yield f"{starts[0].receiver} was called again after it had succeeded"


def poison(story: Story, history: History) -> Iterator[str]:
    """A message that ends its worker is dead after a few of them (P12)."""
    if story.kind != "poison" or story.row is None or story.row.status != "dead":
        return
    if len(story.starts) > MOST_DEATHS:
        yield f"ended {len(story.starts)} workers"
    if story.row.crashes != CRASHES:
        yield f"is dead after {story.row.crashes} crashes"


def effects(story: Story, history: History) -> Iterator[str]:
    """What an atomic receiver wrote is there once if the message was delivered, and otherwise not at all (P6); that of
    one before it, which may have succeeded alone, never twice."""
    if not history.atomic:
        return
    wanted = 1 if story.row is not None and story.row.status == "delivered" else 0
    least = wanted if story.kind == "pair" else 0
    bounds = {MAIN: (wanted, wanted), FIRST: (least, 1)}
    for receiver, (least, most) in bounds.items():
        count = story.effects.get(receiver, 0)
        if not least <= count <= most:
            yield f"has {count} effects of {receiver}, not {' to '.join(map(str, sorted({least, most})))}"


INVARIANTS: dict[str, Callable[[Story, History], Iterator[str]]] = {
    "lost": lost,
    "unexpected": unexpected,
    "early": early,
    "started though cancelled": cancelled,
    "stale settles": stale,
    "tokens": tokens,
    "attempts": attempts,
    "called again": satisfied,
    "poison": poison,
    "effects": effects,
}
