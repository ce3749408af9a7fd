"""What a type checker says of tasks: nothing."""

from __future__ import annotations

from datetime import timedelta

from django_sked.contrib.tasks import SkedTask, SkedTaskResult, task
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Answer


@task
def plain(number: int) -> str:
    return str(number)


@task(priority=5, max_attempts=3, retry=Fixed(5), timeout=timedelta(seconds=30), key="a")
def declared(number: int) -> str:
    return str(number)


def use() -> tuple[SkedTaskResult, Answer, ScheduledMessage]:
    both: list[SkedTask] = [plain, declared.using(key="b", on_conflict="ignore", expires_in=60)]
    result = both[1].enqueue(1)
    declared.cancel(key="b", reason="no need")
    return plain.get_result(result.id), result.reschedule(delay=60), result.message()


async def ause() -> Answer:
    result = await plain.aenqueue(1)
    return await result.acancel()
