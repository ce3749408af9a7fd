"""`workflow()`: messages that wait for each other, stored together or not at all.

with workflow("order-42") as flow:
    pay = flow.schedule("order.pay", {"order": 42})
    flow.schedule("order.ship", {"order": 42}, on_success=pay)
    flow.schedule("order.refund", {"order": 42}, on_failure=pay)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any
from uuid import UUID

from django.db import router, transaction

from django_sked import arguments, dependencies, ids, payloads, scheduling
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import InvalidMessage, NotSupported, SkedError
from django_sked.models import ScheduledMessage, Workflow
from django_sked.twins import twin
from django_sked.typed import Typed

__all__ = ["Flow", "workflow"]

_CONDITIONS = ("on_success", "on_failure", "on_finish")
#: A message of the flow, or several that are at the same place in it.
Part = ScheduledMessage | Sequence[ScheduledMessage]
#: A message, or its id, or several.
Parents = ScheduledMessage | UUID | str | Iterable[ScheduledMessage | UUID | str]


class Flow:
    """What is collected within `with workflow(...) as flow:`. Its messages are stored when that block ends."""

    def __init__(self, name: str, metadata: dict[str, str], store: BaseBackend) -> None:
        self.id = ids.uuid7()
        self.name = name
        self.metadata = metadata
        #: The stored row, once the block has ended.
        self.workflow: Workflow | None = None
        self._store = store
        self._now = store.now()
        self._is_over = False
        self._messages: dict[UUID, ScheduledMessage] = {}
        self._given: dict[UUID, dict[str, Any]] = {}

    @property
    def messages(self) -> list[ScheduledMessage]:
        """Its messages, in the order in which they were added."""
        return list(self._messages.values())

    def schedule(self, /, event: str | Typed, payload: Any = None, **given: Any) -> ScheduledMessage:
        """Add a message; takes the arguments of `ScheduledMessage.objects.schedule()`, save `backend` and
        `on_conflict`. `on_success` and its like take messages of this flow, and stored ones. Raises InvalidMessage."""
        self._refuse_over()
        if unknown := given.keys() - set(scheduling.ARGUMENTS):
            raise arguments.unknown(unknown, scheduling.ARGUMENTS, what="flow.schedule()", values=given)
        # Lists, as more may be added to them.
        given |= {name: list(_listed(given[name])) for name in _CONDITIONS if name in given}
        message = scheduling.build(ScheduledMessage, self._store.settings, self._now, event, payload, **given)
        if message.pk in self._messages:
            raise InvalidMessage(f"Two messages of the workflow {self.name!r} have the id {message.pk}.")
        message.workflow_id = self.id
        self._messages[message.pk] = message
        self._given[message.pk] = given
        return message

    def chain(self, *parts: Part) -> None:
        """Each part waits for the success of the whole part before it: a part is a message of this flow, or several.

        `flow.chain(split, [left, middle, right], join)` fans out and in again.
        """
        for before, behind in itertools.pairwise([_of_part(part) for part in parts]):
            for message in behind:
                self.wait_for(message, on_success=before)

    def wait_for(
        self,
        message: ScheduledMessage,
        *,
        on_success: Parents | None = None,
        on_failure: Parents | None = None,
        on_finish: Parents | None = None,
        **unknown: Any,
    ) -> None:
        """Have a message of this flow wait for others besides. Raises InvalidMessage, and then it waits as before."""
        self._refuse_over()
        if unknown:
            raise arguments.unknown(unknown, _CONDITIONS, what="flow.wait_for()", values=unknown)
        if not isinstance(message, ScheduledMessage) or self._messages.get(message.pk) is not message:
            raise InvalidMessage(f"{arguments.shown(message)} is no message of the workflow {self.name!r}.")
        given = self._given[message.pk]
        more = {"on_success": on_success, "on_failure": on_failure, "on_finish": on_finish}
        parents = {name: [*_listed(given.get(name)), *_listed(value)] for name, value in more.items()}
        waits_for = dependencies.conditions(self._store.alias, ScheduledMessage, **parents)
        is_timed = given.get("at") is not None or given.get("at_local") is not None
        delay = None if is_timed else arguments.duration(given.get("delay") or 0)
        scheduling.wait_for(message, waits_for, delay=delay, expires_in=given.get("expires_in"))
        given |= parents

    aschedule = twin(schedule)

    def _refuse_over(self) -> None:
        if self._is_over:
            raise SkedError(f"The workflow {self.name!r} has been stored already: nothing can be added to it here.")

    def _end(self) -> None:
        self._is_over = True
        if not self._messages:
            raise InvalidMessage(f"The workflow {self.name!r} has no message.")
        store = self._store
        using = store.database or router.db_for_write(Workflow)
        row = Workflow(id=self.id, name=self.name, backend=store.alias, metadata=self.metadata, created_at=self._now)
        if store.joins_transactions:
            with transaction.atomic(using=using):
                row.save(using=using, force_insert=True)
                store.add(self.messages)
        else:
            self._end_apart(row, using)
        self.workflow = row

    def _end_apart(self, row: Workflow, using: str) -> None:
        """The row first, so that no message is without one. Whether a call that was cut off has stored them, nobody
        knows: then the row stays."""
        row.save(using=using, force_insert=True)
        try:
            self._store.add(self.messages)
        except SkedError:
            row.delete()
            raise


class Block:
    """The block of `with workflow(...) as flow:`, or of `async with`; used once."""

    def __init__(self, name: str, metadata: dict[str, str], store: BaseBackend) -> None:
        self._name = name
        self._metadata = metadata
        self._store = store
        self._flow: Flow | None = None

    def __enter__(self) -> Flow:
        if self._flow is not None:
            raise SkedError(f"The block of the workflow {self._name!r} was entered before: call workflow() again.")
        self._flow = Flow(self._name, self._metadata, self._store)
        return self._flow

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._flow is not None:
            self._flow._end()

    __aenter__ = twin(__enter__)
    __aexit__ = twin(__exit__)


def workflow(name: str, *, metadata: Mapping[str, str] | None = None, backend: str | None = None) -> Block:
    """Collect messages that wait for each other; at the end of the block they are stored, all of them or none.

    For `with` and for `async with`. On the database backend they join the caller's transaction. An error in the block
    stores nothing. Raises InvalidMessage where one waits for itself, by whatever way, and NotSupported where the
    backend has no workflows.
    """
    store = message_backends[DEFAULT_ALIAS if backend is None else backend]
    if not store.supports_workflows:
        raise NotSupported(f"The backend {store.alias!r} has no workflows.")
    if not isinstance(name, str) or not 1 <= len(name) <= 255 or name != name.strip() or not name.isprintable():
        raise InvalidMessage(
            f"The name of a workflow must be 1 to 255 printable characters without spaces around them, "
            f"not {arguments.shown(name)}."
        )
    return Block(name, {} if metadata is None else payloads.normalise_metadata(metadata), store)


def _of_part(part: object) -> list[ScheduledMessage]:
    """The messages of a part of a chain. An empty one would cut it in two: what is behind would wait for nothing."""
    found = [part] if isinstance(part, ScheduledMessage) else list(part) if isinstance(part, Iterable) else []
    if not found or not all(isinstance(one, ScheduledMessage) for one in found):
        raise InvalidMessage(f"A part of a chain must be a message, or a list of some, not {arguments.shown(part)}.")
    return found


def _listed(given: Any) -> Iterable[Any]:
    if given is None:
        return ()
    is_one = isinstance(given, ScheduledMessage | UUID | str) or not isinstance(given, Iterable)
    return (given,) if is_one else given
