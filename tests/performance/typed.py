"""What a typed payload costs, per message: `python -m tests.performance.typed`.

No store: building the message as `schedule()` does, and making the receiver's payload of what is stored. The fastest of
several rounds, as everything else that a machine does only adds to it.
"""

from __future__ import annotations

import json
import os
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pydantic

from django_sked.typed import message_type

ROUNDS, CALLS = 40, 1_000


@message_type("performance.small")
@dataclass
class Small:
    user: str
    action: str
    count: int


@message_type("performance.model")
class Model(pydantic.BaseModel):
    user: str
    action: str
    count: int


@message_type("performance.struct")
class Struct(msgspec.Struct):
    user: str
    action: str
    count: int


@dataclass
class Line:
    name: str
    price: Decimal


@message_type("performance.order")
@dataclass
class Order:
    id: UUID
    at: datetime
    lines: list[Line]


def microseconds(*functions: Callable[[], object]) -> list[float]:
    """Processor time of each, taken in turns, so that they share what the machine does besides."""
    rounds = [
        [timeit.timeit(function, number=CALLS, timer=time.thread_time) for function in functions] for _ in range(ROUNDS)
    ]
    return [min(times) / CALLS * 1e6 for times in zip(*rounds, strict=True)]


def _measured(name: str, instance: Any, plain: dict[str, Any]) -> None:
    from django_sked import clock, payloads, scheduling, typed
    from django_sked.conf import BackendSettings
    from django_sked.models import ScheduledMessage

    settings, now = BackendSettings(alias="default"), clock.now()
    kind = typed.of(instance)
    assert kind is not None
    stored = json.loads(payloads.encode(payloads.normalise(kind.codec.encode(instance))))
    assert kind.codec.decode(stored) == instance
    by_hand, schedule, deliver = microseconds(
        lambda: scheduling.build(ScheduledMessage, settings, now, "performance.plain", plain),
        lambda: scheduling.build(ScheduledMessage, settings, now, instance),
        lambda: typed.decoded(kind.event, stored, kind.version),
    )
    print(f"{name:32} {by_hand:8.2f} {schedule:8.2f} {schedule - by_hand:8.2f} {deliver:8.2f}")


def main() -> None:
    at, id = datetime(2030, 1, 1, tzinfo=UTC), UUID(int=7)
    small: dict[str, Any] = {"user": "alice", "action": "call", "count": 3}
    order = {"id": id, "at": at, "lines": [{"name": f"line {n}", "price": Decimal(n)} for n in range(5)]}
    print(f"load {os.getloadavg()[0]:.1f}; microseconds per message, fastest of {ROUNDS} rounds")
    print(f"{'':32} {'as dict':>8} {'typed':>8} {'more':>8} {'decode':>8}")
    _measured("dataclass of 3 fields", Small(**small), small)
    _measured("pydantic model of 3 fields", Model(**small), small)
    _measured("msgspec Struct of 3 fields", Struct(**small), small)
    _measured("dataclass with 5 others in it", Order(id, at, [Line(f"line {n}", Decimal(n)) for n in range(5)]), order)


if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings_sqlite")
    django.setup()
    main()
