"""Cancel messages at the very moment at which they are claimed, very often.

    python -m tests.chaos.races --races 100000

After *cancelled* no receiver may start; after *too late* one has started, or the message ended cancelled. Exits 1 when
that does not hold, and when one of the two answers was so rare that there was no race.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import django

from tests.chaos.checker import check
from tests.chaos.history import History
from tests.chaos.ledger import Ledger
from tests.chaos.plan import BACKENDS, Plan, whole
from tests.chaos.run import Run

LOT = 200
#: Races per second on the slowest machine that is waited for.
SLOWEST = 10
#: The part of its time for which a canceller cancels; it must not come to be late.
BUSY = 0.6
#: Seconds from the scheduling of a lot to its first due time.
AHEAD = 0.4
#: By queue: milliseconds from the due time to the cancel, at least and at most. They are claimed about then.
WINDOWS = {"punctual": (-3.0, 4.0), "default": (-230.0, -60.0)}
#: Both answers must have at least this share.
LEAST = 0.05
#: The part of the messages that expire, and by when after their due time, in seconds: about when they would start.
EXPIRING, EXPIRY = 0.3, (0.0005, 0.005)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.races", description=__doc__.split("\n")[0])
    parser.add_argument("--backend", default="postgresql", choices=BACKENDS)
    parser.add_argument("--races", type=whole(1), default=100_000)
    parser.add_argument("--workers", type=whole(1), default=2)
    parser.add_argument("--cancellers", type=whole(1), default=2)
    parser.add_argument("--seed", type=whole(), default=7)
    parser.add_argument("--canceller", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.canceller is not None:
        cancel(options.races // options.cancellers, random.Random(options.seed + options.canceller))
        return 0
    plan = Plan(backend=options.backend, workers=options.workers, seconds=options.races / SLOWEST, lease=5.0)
    with Run(plan) as run:
        commands = [
            [sys.executable, "-m", "tests.chaos.races", f"--canceller={number}", *(arguments or sys.argv[1:])]
            for number in range(options.cancellers)
        ]
        history = run.history(commands)
        return report(history, run)


def report(history: History, run: Run) -> int:
    answers = Counter(story.cancel.answer for story in history.stories.values() if story.cancel is not None)
    ends = Counter(
        f"{story.cancel.answer}, {'started' if story.starts else 'not started'}, {story.row.status}"
        for story in history.stories.values()
        if story.cancel is not None and story.row is not None
    )
    verdict = check(history)
    total = sum(answers.values())
    print(f"{total} races on {run.plan.backend} in {run.seconds:.1f} s: {dict(answers)}")
    for end, count in sorted(ends.items()):
        print(f"  {end}: {count}")
    problems = [f"{name}: {found}" for name, examples in verdict.violations.items() for found in examples[:10]]
    problems += run.problems
    problems += [f"only {answers[a]} were {a}" for a in ("cancelled", "too_late") if answers[a] < LEAST * total]
    print(*problems, "BROKEN" if problems else "kept", sep="\n")
    return 1 if problems else 0


def cancel(count: int, chance: random.Random) -> None:
    """What one canceller does: schedule a lot, cancel each message of it about when it is due, and so on."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.chaos.settings")
    django.setup()
    ledger = Ledger()
    each = 0.01
    for first in range(0, count, LOT):
        spent = 0.0
        lot = _schedule(min(LOT, count - first), each / BUSY, chance, ledger)
        for id, due, queue in lot:
            time.sleep(max(0.0, due + chance.uniform(*WINDOWS[queue]) / 1000 - time.time()))
            begun = time.monotonic()
            _cancel(id, ledger)
            spent += time.monotonic() - begun
        each = spent / len(lot)


def _schedule(count: int, apart: float, chance: random.Random, ledger: Ledger) -> list[tuple[str, float, str]]:
    from django_sked.models import ScheduledMessage

    begin = time.time() + AHEAD
    queue = chance.choice(list(WINDOWS))
    messages = [
        (str(uuid.UUID(int=chance.getrandbits(128), version=4)), round(begin + number * apart, 6), queue)
        for number in range(count)
    ]
    expiries = {id: due + chance.uniform(*EXPIRY) for id, due, _ in messages if chance.random() < EXPIRING}
    facts = {"kind": "plain", "fail": 0, "max_attempts": 3}
    now = time.time()
    ledger.write_all(
        [
            {"ev": "schedule", "at": now, "id": id, "due": due, "expires": expiries.get(id), **facts}
            for id, due, _ in messages
        ]
    )
    payload = {"kind": "plain", "fail": 0, "ms": 0, "postpone": 0}
    objects: Any = ScheduledMessage.objects
    objects.schedule_many(
        {"event": "chaos.plain", "payload": payload, "queue": queue, "id": id, "at": _at(due)}
        | ({"expires_at": _at(expiries[id])} if id in expiries else {})
        for id, due, queue in messages
    )
    ledger.write_all([{"ev": "scheduled", "at": time.time(), "id": id, "answer": "ok"} for id, *_ in messages])
    return messages


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _cancel(id: str, ledger: Ledger) -> None:
    from django_sked.models import ScheduledMessage

    ledger.write("cancel", id=id)
    answer = ScheduledMessage.objects.cancel(id=id)
    ledger.write("answered", id=id, verb="cancel", answer=answer.value)


if __name__ == "__main__":
    sys.exit(main())
