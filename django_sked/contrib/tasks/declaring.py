"""`@task`, and a task with what a message can do besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, overload

from django_sked import arguments, payloads, scheduling
from django_sked.contrib.tasks import compat
from django_sked.contrib.tasks.compat import DEFAULT_TASK_BACKEND_ALIAS, AnyTask, InvalidTask
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.retry import RetryPolicy
from django_sked.scheduling import OnConflict
from django_sked.states import Answer
from django_sked.twins import twin

if TYPE_CHECKING:
    from django_sked.contrib.tasks.result import SkedTaskResult
    from django_sked.queries import Delay


def _expires_in(value: object) -> timedelta:
    result = arguments.duration(value, "expires_in")
    if not result:
        raise InvalidMessage("expires_in must be more than 0.")
    return result


#: What a task may say besides what every task of Django says, and how it is checked: each returns what a message keeps.
CHECKS: dict[str, Callable[[Any], object]] = {
    "key": arguments.key,
    "on_conflict": scheduling.on_conflict,
    "expires_at": lambda value: arguments.instant(value, "expires_at"),
    "expires_in": _expires_in,
    "max_attempts": arguments.max_attempts,
    "retry": scheduling.retry_policy,
    "timeout": arguments.timeout,
    "metadata": payloads.normalise_metadata,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SkedTask(AnyTask):
    """What `@task` makes when its backend is a SkedTaskBackend.

    These mean what they mean for `ScheduledMessage.objects.schedule()`; None is the default of the backend.
    """

    key: str | None = None
    on_conflict: OnConflict | None = None
    expires_at: datetime | None = None
    expires_in: Delay | None = None
    max_attempts: int | None = None
    retry: RetryPolicy | None = None
    timeout: Delay | None = None
    metadata: dict[str, str] | None = None

    def __post_init__(self) -> None:
        # As a message keeps them: a task that is read from its message is then equal to the one that was enqueued.
        for name, value in _checked(extras_of(self)).items():
            object.__setattr__(self, name, value)
        AnyTask.__post_init__(self)

    if TYPE_CHECKING:

        def enqueue(self, *args: Any, **kwargs: Any) -> SkedTaskResult: ...

        async def aenqueue(self, *args: Any, **kwargs: Any) -> SkedTaskResult: ...

        def get_result(self, result_id: str) -> SkedTaskResult: ...

        async def aget_result(self, result_id: str) -> SkedTaskResult: ...

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | None = None,
        backend: str | None = None,
        **extras: Any,
    ) -> SkedTask:
        """A copy with other values; None keeps what there is. Takes `key`, `on_conflict`, `expires_at`, `expires_in`,
        `max_attempts`, `retry`, `timeout` and `metadata` besides what every task takes."""
        changes = {"priority": priority, "queue_name": queue_name, "run_after": run_after, "backend": backend}
        if unknown := extras.keys() - CHECKS.keys():
            raise arguments.unknown(unknown, (*changes, *CHECKS), what="using()", values=extras)
        return replace(self, **{name: value for name, value in (changes | extras).items() if value is not None})

    def cancel(self, *, id: str | None = None, key: str | None = None, reason: str = "") -> Answer:
        """Cancel what was enqueued under this result id or key; after the answer *cancelled* it is not run."""
        return ScheduledMessage.objects.cancel(id=id, key=key, reason=reason, backend=self._store)

    def reschedule(
        self,
        *,
        id: str | None = None,
        key: str | None = None,
        run_after: datetime | None = None,
        delay: Delay | None = None,
        shift: Delay | None = None,
    ) -> Answer:
        """Run what was enqueued under this result id or key at another time, unless it has been taken already."""
        return ScheduledMessage.objects.reschedule(
            id=id, key=key, at=run_after, delay=delay, shift=shift, backend=self._store
        )

    @property
    def _store(self) -> str:
        backend: Any = self.get_backend()
        return str(backend.store)

    acancel = twin(cancel)
    areschedule = twin(reschedule)


@overload
def task(function: Callable[..., Any], /) -> SkedTask: ...


@overload
def task(
    *,
    priority: int = 0,
    queue_name: str = "default",
    backend: str = DEFAULT_TASK_BACKEND_ALIAS,
    takes_context: bool = False,
    key: str | None = None,
    on_conflict: OnConflict | None = None,
    expires_in: Delay | None = None,
    max_attempts: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: Delay | None = None,
    metadata: dict[str, str] | None = None,
) -> Callable[[Callable[..., Any]], SkedTask]: ...


def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Django's `@task`, typed for tasks whose backend is a SkedTaskBackend; that of Django 6.0 takes no more than every
    task does, those of 6.1 and of django-tasks take the same as this."""
    backend = options.pop("backend", DEFAULT_TASK_BACKEND_ALIAS)
    make: Any = compat.task_backends[backend].task_class
    known = [field.name for field in fields(make) if field.name not in ("func", "run_after")]
    if unknown := options.keys() - set(known):
        raise arguments.unknown(unknown, known, what="@task", values=options)
    values = {"priority": 0, "queue_name": "default", "takes_context": False} | options

    def declare(function: Callable[..., Any]) -> Any:
        return make(func=function, backend=backend, run_after=None, **values)

    return declare if function is None else declare(function)


def extras_of(task: AnyTask) -> dict[str, Any]:
    """What it says besides; nothing of a plain task, which was declared for another backend."""
    found = {name: getattr(task, name, None) for name in CHECKS}
    return {name: value for name, value in found.items() if value is not None}


def _checked(extras: dict[str, Any]) -> dict[str, Any]:
    """Raises InvalidTask for the first wrong one."""
    try:
        if "expires_at" in extras and "expires_in" in extras:
            raise InvalidMessage("Give either expires_at= or expires_in=, not both.")
        return {name: CHECKS[name](value) for name, value in extras.items()}
    except InvalidMessage as error:
        raise InvalidTask(str(error)) from error
