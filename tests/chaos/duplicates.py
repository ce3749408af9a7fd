"""How often messages came twice, which fault explains each, and how many the faults of the run could explain at most.

A *duplicate* is one more call of a receiver for the same attempt. It is explained when a fault met the process of the
call before it while that one was in flight: begun (at the latest in the fault) and not settled (at its beginning).

The bound is the sum, over all faults, of the calls that were in flight in the processes that felt it; for a process
that stands still, also one for each of its threads, which may stand between its last look at the lease and the call.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.history import ATOMIC, BREAKS, HALTS, TROUBLES, Fault, History, Start, Story

#: Settles that a worker may have collected, and as many that it is writing.
BUFFER = 2 * 256
#: Seconds after trouble with the database in which settles may have piled up.
RECOVERY = 2.0


@dataclass
class Duplicates:
    duplicates: int = 0
    #: How many of them by the kind of the last fault that explains each.
    by_fault: Counter[str] = field(default_factory=Counter)
    bound: int = 0
    #: Calls of one claim beyond the first: transactions that were tried again.
    tries: int = 0
    unexplained: list[str] = field(default_factory=list)
    #: Faults in which more was in flight than the settle buffer and the threads can hold.
    crowded: list[str] = field(default_factory=list)
    #: Standstills after which more was started of what others had taken over than each thread's one.
    overtaken: list[str] = field(default_factory=list)


def count(history: History) -> Duplicates:
    """All duplicates of a run."""
    found = Duplicates()
    for story in history.stories.values():
        for one, other in _repeated(story):
            if one.token == other.token and history.atomic and one.receiver in ATOMIC:
                found.tries += 1
                continue
            found.duplicates += 1
            faults = [fault for fault in history.faults_of(one.pid) if _explains(fault, one, other, history)]
            if faults:
                found.by_fault[max(faults, key=lambda fault: fault.begin).kind] += 1
            else:
                found.unexplained.append(f"{story.id} token {one.token} on {one.pid}, then {other.token}")
    found.overtaken = _overtaken(history)
    for fault, calls, messages in _in_flight(history):
        found.bound += calls
        if fault.kind in HALTS:
            found.bound += history.threads
        if fault.kind == "kill" and messages > history.threads + BUFFER and not _in_trouble(fault, history):
            found.crowded.append(f"{messages} messages were in flight in process {fault.pid} when it was killed")
    return found


def _repeated(story: Story) -> Iterator[tuple[Start, Start]]:
    for starts in story.by_receiver().values():
        for one, other in pairwise(starts):
            if one.attempt == other.attempt and one.how != "postponed":
                yield one, other


def _explains(fault: Fault, one: Start, other: Start, history: History) -> bool:
    return fault.begin <= other.at and fault.end >= one.claimed and _was_open(fault, one, history)


def _was_open(fault: Fault, start: Start, history: History) -> bool:
    """Was it not settled when the fault came, or only so that the crash of the database lost it again?

    What a worker has in flight in a crash of the database it keeps, and settles after it.
    """
    if fault.kind == "db_crash":
        return fault.begin - history.forgets < start.settled <= fault.end
    return fault.kind in BREAKS and start.settled > fault.begin


def open_at_faults(story: Story, history: History) -> Iterator[tuple[Fault, Start]]:
    """The calls of a message that were in flight in a process when a fault met it."""
    for start in story.starts:
        for fault in history.faults_of(start.pid):
            if start.at <= fault.end and _was_open(fault, start, history):
                yield fault, start


def _in_flight(history: History) -> Iterator[tuple[Fault, int, int]]:
    """Of each fault: how many calls were in flight where it was felt, and of how many messages."""
    calls: dict[int, int] = defaultdict(int)
    messages: dict[int, int] = defaultdict(int)
    for story in history.stories.values():
        met = Counter(id(fault) for fault, _ in open_at_faults(story, history))
        for number, count in met.items():
            calls[number] += count
            messages[number] += 1
    for fault in history.faults:
        if fault.kind in BREAKS:
            yield fault, calls[id(fault)], messages[id(fault)]


def _overtaken(history: History) -> list[str]:
    """A thread may stand still between its look at the lease and the call; what comes after that call looks again."""
    late: dict[int, int] = defaultdict(int)
    for story in history.stories.values():
        for starts in story.by_receiver().values():
            for one, other in pairwise(starts):
                fault = halt_before(one, history)
                if one.at > other.at and fault is not None:
                    late[id(fault)] += 1
    return [
        f"{late[id(fault)]} messages of others were started after a standstill of process {fault.pid}"
        for fault in history.faults
        if late[id(fault)] > history.threads
    ]


def halt_before(start: Start, history: History) -> Fault | None:
    """The standstill of its process between the claim and the call."""
    for fault in history.faults_of(start.pid):
        if fault.kind in HALTS and fault.begin <= start.at and fault.end >= start.claimed:
            return fault
    return None


def _in_trouble(fault: Fault, history: History) -> bool:
    """Did something shortly before this keep settles from being written?"""
    return any(
        other.kind in TROUBLES and other.begin <= fault.begin <= other.end + RECOVERY for other in history.faults
    )
