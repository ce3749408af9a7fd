"""The tasks of these tests."""

from __future__ import annotations

import asyncio
from typing import Any

from django_sked.contrib.tasks import task
from django_sked.exceptions import Bury, Reschedule, Retry
from django_sked.retry import Fixed

#: What was called, in order.
calls: list[Any] = []


class OutOfPaperError(Exception):
    """The printer's."""


@task
def add(a: int, b: int = 0) -> int:
    calls.append((a, b))
    return a + b


@task
async def add_later(a: int, b: int) -> int:
    await asyncio.sleep(0)
    calls.append((a, b))
    return a + b


@task
def fail(text: str = "no paper") -> None:
    calls.append(text)
    raise OutOfPaperError(text)


@task
def exit_now() -> None:
    raise SystemExit(3)


@task(max_attempts=3, retry=Fixed(10))
def fail_twice(name: str) -> str:
    calls.append(name)
    if calls.count(name) < 3:
        raise OutOfPaperError(name)
    return f"{name} printed"


@task(takes_context=True)
def attempt(context: Any, name: str) -> list[Any]:
    result = context.task_result
    return [context.attempt, result.status, result.id, str(context.message.pk), name]


@task
def unserialisable() -> Any:
    return object()


@task
def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


@task
def large() -> str:
    return "x" * 70_000


class Printer:
    class JammedError(Exception):
        """Nested, and nameless to import_string."""


@task
def jam() -> None:
    raise Printer.JammedError


@task
def bury() -> None:
    raise Bury("never again")


@task(max_attempts=2)
def again() -> None:
    raise Retry(delay=60)


@task
def not_now() -> None:
    calls.append("not now")
    if len(calls) < 2:
        raise Reschedule(delay=60)


@task(priority=-5, queue_name="mail", key="the-only-one", expires_in=60, timeout=30, metadata={"tenant": "a"})
def declared() -> None: ...
