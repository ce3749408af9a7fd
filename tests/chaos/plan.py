"""What a run is to do: the arguments of `python -m tests.chaos`, handed on to the processes of the run as JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Self

VARIABLE = "SKED_CHAOS_PLAN"
BACKENDS = ("postgresql", "sqlite", "mariadb", "redis", "valkey", "sentinel", "cluster")
#: When what Redis was told is on its disk: at the answer, within a second, or never.
AOF = ("always", "everysec", "none")
#: With this code a worker ends that has received a poisonous message.
POISONED = 66
#: The queues of the messages, each with the weight of its number here.
QUEUES = ("default", "default", "mail")
#: The table of what atomic receivers have done.
EFFECTS = "chaos_effect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The size of a run, its faults, and the seed of everything that is left to chance."""

    backend: str = "postgresql"
    messages: int = 2000
    seconds: float = 20.0
    workers: int = 4
    concurrency: int = 4
    lease: float = 2.0
    atomic: bool = False
    aof: str = "always"
    no_wait: bool = False
    # Faults: how many of each.
    kill: int = 0
    term: int = 0
    pause: int = 0
    db_crash: int = 0
    down: float = 0.0
    cut: int = 0
    partition: int = 0
    # Messages: which part of them, or how many.
    cancel: float = 0.05
    fail: float = 0.03
    reschedule: float = 0.03
    poison: int = 0
    seed: int = 7
    json: str = ""
    keep: str = ""

    @classmethod
    def from_arguments(cls, arguments: Sequence[str] | None = None) -> Self:
        given = vars(_parser().parse_args(arguments))
        plan = cls(**given)
        if plan.atomic and plan.backend in BACKENDS[3:]:
            raise SystemExit("What a receiver writes to a database and a message in Redis are in no one transaction.")
        if plan.backend == "sqlite" and (plan.db_crash or plan.cut or plan.partition):
            raise SystemExit("SQLite has no server: it takes --kill, --pause and --term only.")
        if plan.backend in ("sentinel", "cluster") and (plan.cut or plan.partition):
            raise SystemExit(f"No proxy is on the way to a {plan.backend}: it takes no --cut and no --partition.")
        if plan.aof != "always" and plan.backend not in BACKENDS[3:]:
            raise SystemExit("Only Redis and Valkey have an append-only file: the others take no --aof.")
        if plan.no_wait and plan.backend != "sentinel":
            raise SystemExit("Only behind a Sentinel is there a replica to wait for: the others take no --no-wait.")
        if plan.down and plan.backend == "sentinel":
            raise SystemExit("Behind a Sentinel the replica takes over at once: it takes no --down.")
        return plan

    @classmethod
    def from_environment(cls) -> Self:
        return cls(**json.loads(os.environ.get(VARIABLE, "{}")))

    def to_environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}

    @property
    def pause_seconds(self) -> tuple[float, float]:
        """How long a paused worker sleeps, at least and at most: always longer than its lease."""
        return self.lease + 0.5, self.lease + 2.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Deliver messages while workers and the database are being broken, then prove what became of them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for field in fields(Plan):
        name, default = f"--{field.name.replace('_', '-')}", field.default
        if field.name == "backend":
            parser.add_argument(name, default=default, choices=BACKENDS)
        elif field.name == "aof":
            parser.add_argument(name, default=default, choices=AOF, help=_HELP[field.name])
        elif default is False:
            parser.add_argument(name, action="store_true", help=_HELP.get(field.name))
        else:
            parser.add_argument(name, type=_KINDS.get(field.name, str), default=default, help=_HELP[field.name])
    return parser


def whole(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """An argument that is a whole number within these bounds."""
    bounds = "" if least is None else f" from {least}" + (f" to {most}" if most is not None else "")

    def checked(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or (least is not None and number < least) or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"must be a whole number{bounds}, not {text!r}")
        return number

    return checked


def within(least: float, most: float) -> Callable[[str], float]:
    """An argument that is a number of seconds within these bounds."""

    def checked(text: str) -> float:
        seconds = _number(text)
        if not least <= seconds <= most:
            raise argparse.ArgumentTypeError(f"must be seconds from {least:g} to {most:g}, not {text!r}")
        return seconds

    return checked


def _share(text: str) -> float:
    share = _number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"must be a share such as 5% or 0.05, not {text!r}")
    return share


def _number(text: str) -> float:
    """Not a number, for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


_KINDS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("messages", "workers"), whole(1)),
    **dict.fromkeys(("kill", "term", "pause", "db_crash", "cut", "partition", "poison"), whole(0)),
    **dict.fromkeys(("cancel", "fail", "reschedule"), _share),
    "concurrency": whole(1, 1000),
    "seconds": within(1, 86_400),
    "lease": within(0.5, 3600),
    "down": within(0, 3600),
    "seed": whole(),
}

_HELP = {
    "aof": "when Redis writes its append-only file; what a crash takes with it is reported as lost by the server",
    "no_wait": "do not wait for the replica, so that a failover may lose what was answered",
    "messages": "messages to schedule while the faults happen",
    "seconds": "for how long messages are scheduled and faults happen",
    "workers": "worker processes, replaced when they end",
    "concurrency": "threads of each queue in a worker",
    "lease": "seconds",
    "kill": "SIGKILLs of workers",
    "term": "SIGTERMs of workers, which must end in order",
    "pause": "SIGSTOPs of workers for longer than their lease",
    "db_crash": "crashes of the database server, which is started again at once, or after --down",
    "down": "seconds for which the database server stays down after a crash",
    "cut": "connections cut: by the server, by the way, or just after a write whose answer is then lost",
    "partition": "workers cut off from the database for longer than their lease, with every socket left open",
    "cancel": "share of the messages that somebody tries to cancel",
    "fail": "share of the messages whose receiver fails first, some for ever",
    "reschedule": "share of the messages that are moved before they are due, or that their receiver postpones",
    "poison": "messages whose receiver ends its process",
    "seed": "of every choice that is left to chance",
    "json": "a file for the report",
    "keep": "a directory for the ledger and the logs, which otherwise are deleted",
}
