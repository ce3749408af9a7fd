"""What is known of a task, read from its message."""

from __future__ import annotations

import builtins
import sys
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django_sked.contrib.tasks import registry
from django_sked.contrib.tasks.compat import (
    AnyTask,
    AnyTaskContext,
    AnyTaskResult,
    InvalidTaskBackend,
    TaskError,
    TaskResultStatus,
    task_backends,
)
from django_sked.contrib.tasks.exceptions import TaskCancelled, TaskExpired, WorkerLost
from django_sked.contrib.tasks.returned import unwrapped
from django_sked.exceptions import SkedError
from django_sked.models import ScheduledMessage
from django_sked.retry import from_json
from django_sked.signals import current_message
from django_sked.states import Answer, Status
from django_sked.twins import twin

if TYPE_CHECKING:
    from django_sked.contrib.tasks.backend import SkedTaskBackend
    from django_sked.queries import Delay

_STATUSES = {
    Status.BLOCKED: TaskResultStatus.READY,
    Status.SCHEDULED: TaskResultStatus.READY,
    Status.CLAIMED: TaskResultStatus.RUNNING,
    Status.DELIVERED: TaskResultStatus.SUCCESSFUL,
    Status.DEAD: TaskResultStatus.FAILED,
    Status.CANCELLED: TaskResultStatus.FAILED,
    Status.EXPIRED: TaskResultStatus.FAILED,
}
_ENDED_BY = {Status.CANCELLED: TaskCancelled, Status.EXPIRED: TaskExpired}
#: Entries of `errors` that come from no exception: their type -> what a TaskError names.
_OURS = {"WorkerLost": WorkerLost}


# Equal as those of Django are.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SkedTaskResult(AnyTaskResult):  # type: ignore[misc]
    """A result whose task can still be changed. Its `id` is that of the message."""

    _not_kept: str = ""

    @property
    def return_value(self) -> Any:
        """What the task has returned. Raises ValueError when it has failed or not finished, or when the value was
        too large to be kept."""
        if self.status == TaskResultStatus.SUCCESSFUL and self._not_kept:
            raise ValueError(f"The return value was not kept: {self._not_kept}")
        return AnyTaskResult.return_value.fget(self)  # type: ignore[attr-defined]

    def refresh(self) -> None:
        """Read it again; raises TaskResultDoesNotExist when its message has been pruned."""
        self._take(_backend_of(self.task).get_result(self.id))

    async def arefresh(self) -> None:
        """Asynchronous twin of `refresh()`."""
        backend: Any = _backend_of(self.task)
        self._take(await backend.aget_result(self.id))

    def _take(self, fresh: SkedTaskResult) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, getattr(fresh, field.name))

    def cancel(self, *, reason: str = "") -> Answer:
        """Cancel the task; after the answer *cancelled* it is not run. The result is then read again."""
        return self._answered(
            ScheduledMessage.objects.cancel(id=self.id, reason=reason, backend=_backend_of(self.task).store)
        )

    def reschedule(
        self, *, run_after: datetime | None = None, delay: Delay | None = None, shift: Delay | None = None
    ) -> Answer:
        """Run it at another time, unless it has been taken already. The result is then read again."""
        return self._answered(
            ScheduledMessage.objects.reschedule(
                id=self.id, at=run_after, delay=delay, shift=shift, backend=_backend_of(self.task).store
            )
        )

    def message(self) -> ScheduledMessage:
        """The message that is to run, or has run, the task."""
        return ScheduledMessage.objects.find(id=self.id, backend=_backend_of(self.task).store)

    def _answered(self, answer: Answer) -> Answer:
        if answer not in (Answer.NOT_FOUND, Answer.ON_COMMIT):
            self.refresh()
        return answer

    acancel = twin(cancel)
    areschedule = twin(reschedule)
    amessage = twin(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkedTaskError(TaskError):  # type: ignore[misc]
    """An error whose class is looked up among what has been imported: nothing is, because a message names it."""

    @property
    def exception_class(self) -> type[BaseException]:
        """The class. Raises ImportError where its module has not been imported, ValueError when it is no exception."""
        names = self.exception_class_path.split(".")
        module = next((n for n in range(len(names) - 1, 0, -1) if ".".join(names[:n]) in sys.modules), 0)
        found: Any = sys.modules.get(".".join(names[:module]))
        for name in names[module:]:
            found = getattr(found, name, None)
        if found is None:
            raise ImportError(f"{self.exception_class_path!r} has not been imported here.")
        if not isinstance(found, type) or not issubclass(found, BaseException):
            raise ValueError(f"{self.exception_class_path!r} does not reference a valid exception.")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SkedTaskContext(AnyTaskContext):  # type: ignore[misc]
    """What a task with `takes_context=True` is given."""

    @property
    def message(self) -> ScheduledMessage:
        """The message whose task is running: its `idempotency_key`, its `metadata`, whether a cancel was requested."""
        message = current_message()
        if message is None:
            raise SkedError("The message of a task is there only while the task is running.")
        return message


def _backend_of(task: AnyTask) -> SkedTaskBackend:
    backend: Any = task.get_backend()
    return backend  # type: ignore[no-any-return]


def arguments_of(message: ScheduledMessage) -> tuple[list[Any], dict[str, Any]]:
    """With what its task is called."""
    payload = message.payload if isinstance(message.payload, dict) else {}
    args, kwargs = payload.get("args"), payload.get("kwargs")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise SkedError(f"The payload of the task message {message.pk} must have a list 'args' and an object 'kwargs'.")
    return list(args), dict(kwargs)


def alias_of(message: ScheduledMessage) -> str:
    """The alias in TASKS by which it was enqueued."""
    return str(message.payload.get("backend", "")) if isinstance(message.payload, dict) else ""


def result_of(message: ScheduledMessage) -> SkedTaskResult:
    """The result as it stands; raises UnknownTask when no task of this path has been imported here."""
    args, kwargs = arguments_of(message)
    attempts = _attempts(message)
    result = SkedTaskResult(
        task=_task(message),
        id=str(message.pk),
        status=_STATUSES[Status(message.status)],
        enqueued_at=message.created_at,
        started_at=attempts[0][1] if attempts else None,
        last_attempted_at=attempts[-1][1] if attempts else None,
        finished_at=message.finished_at,
        args=args,
        kwargs=kwargs,
        backend=alias_of(message),
        errors=_errors(message),
        worker_ids=[worker for worker, _started_at in attempts],
    )
    value, not_kept = unwrapped(message.result)
    if not message.backend.options.max_result_bytes:
        not_kept = "max_result_bytes is 0."
    object.__setattr__(result, "_return_value", value)
    object.__setattr__(result, "_not_kept", not_kept)
    return result


def _task(message: ScheduledMessage) -> AnyTask:
    """The declared task as it was enqueued. Not checked again: the settings may have changed since."""
    declared = registry.task_of(message.event)
    values: dict[str, Any] = {field.name: getattr(declared, field.name) for field in fields(declared)}
    values |= {"priority": message.priority, "queue_name": message.queue, "backend": alias_of(message)}
    values["run_after"] = None if message.due_at == message.created_at else message.due_at
    if "key" in values:
        values |= _extras(message, values)
    task = object.__new__(type(declared))
    for name, value in values.items():
        object.__setattr__(task, name, value)
    return task


def _extras(message: ScheduledMessage, declared: dict[str, Any]) -> dict[str, Any]:
    """What it said besides, as far as that differs from what the declared task or its backend say anyway."""
    said = {name: declared[name] for name in ("max_attempts", "timeout", "retry", "metadata")}
    anyway = _defaults(message) | {name: value for name, value in said.items() if value is not None}
    kept = {"max_attempts": message.max_attempts, "timeout": message.timeout, "metadata": message.metadata}
    with suppress(Exception):  # a policy that this release does not know
        kept["retry"] = None if message.retry_policy is None else from_json(message.retry_policy)
    found: dict[str, Any] = {name: value or None for name, value in kept.items() if value != anyway[name]}
    due_at, expires_at = message.due_at, message.expires_at
    if declared["expires_in"] is None or expires_at is None or expires_at - due_at != declared["expires_in"]:
        found |= {"expires_at": expires_at, "expires_in": None}
    return found | {"key": message.key}


def _defaults(message: ScheduledMessage) -> dict[str, Any]:
    """What the message of a task has that says nothing of it."""
    timeout = message.backend.options.timeout
    nothing_said: dict[str, Any] = {"max_attempts": 1, "timeout": timeout, "retry": None, "metadata": {}}
    try:
        backend: Any = task_backends[alias_of(message)]
    except InvalidTaskBackend:  # its alias is not there any more
        return nothing_said
    return nothing_said | getattr(backend, "defaults", {})


def _attempts(message: ScheduledMessage) -> list[tuple[str, datetime]]:
    """Worker and start of each attempt: of those that failed from their errors, of the last one from the message.

    Of a long history only the first and the newest errors are kept: an attempt between has the worker "".
    """
    found: list[tuple[str, datetime]] = []
    last = 0
    for entry in message.errors:
        number, started_at = int(entry["attempt"]), datetime.fromisoformat(entry.get("started_at") or entry["at"])
        if found and (number, started_at) == (last, found[-1][1]):
            continue  # another receiver of the same attempt
        found += [("", started_at)] * max(0, number - last - 1)
        found.append((str(entry.get("worker") or ""), started_at))
        last = number
    if message.status in (Status.CLAIMED, Status.DELIVERED) and message.claimed_at is not None:
        found.append((str(message.claimed_by), max(message.claimed_at, message.next_at)))
    return found


def _errors(message: ScheduledMessage) -> list[TaskError]:
    found: list[TaskError] = [
        SkedTaskError(exception_class_path=_path(entry), traceback=entry.get("traceback") or entry.get("text") or "")
        for entry in message.errors
    ]
    if (ended_by := _ENDED_BY.get(Status(message.status))) is not None:
        text = f"{ended_by.__doc__} {message.reason}".strip()
        found.append(SkedTaskError(exception_class_path=_path_of(ended_by), traceback=text))
    return found


def _path(entry: dict[str, Any]) -> str:
    if entry.get("class"):
        return str(entry["class"])
    name = str(entry.get("type"))
    if name in _OURS:
        return _path_of(_OURS[name])
    return f"builtins.{name}" if isinstance(getattr(builtins, name, None), type) else _path_of(SkedError)


def _path_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
