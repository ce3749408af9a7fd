"""Writes inside `atomic()`: applied after the commit, in the order in which they were asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction

from django_sked import signals
from django_sked.exceptions import KeyInUse
from django_sked.models import ScheduledMessage
from django_sked.states import Answer

logger = logging.getLogger("django_sked.backends.redis")


def is_open(using: str | None) -> bool:
    """Is this thread inside `atomic()` of this database?"""
    try:
        return using is not None and using in connections and bool(connections[using].in_atomic_block)
    except ImproperlyConfigured:
        return False  # there is no database


def after_commit(
    using: str | None, alias: str, step: str, action: Callable[[], object], adds: Iterable[UUID] = frozenset()
) -> None:
    """What goes wrong by then is told by `store_error` and the log: the caller's transaction has committed.

    So is a verb that `action` answers with KEY_IN_USE; what else it was refused for is only logged: somebody else was
    quicker. `adds` are the ids of messages that this action stores.
    """

    def apply() -> None:
        try:
            answer = action()
            if answer == Answer.KEY_IN_USE:
                raise KeyInUse("A live message holds the key of one that was to be scheduled again.")
            if isinstance(answer, Answer) and not answer:
                logger.info("refused_at_commit backend=%s step=%s answer=%s", alias, step, answer.value)
        except Exception as error:
            logger.error("store_error backend=%s step=%s error=%s text=%s", alias, step, type(error).__name__, error)
            signals.send_safely(signals.store_error, sender=ScheduledMessage, backend=alias, step=step, error=error)

    apply.sked_adds = (alias, frozenset(adds))  # type: ignore[attr-defined]
    transaction.on_commit(apply, using=using, robust=True)


def added(using: str | None, alias: str) -> Iterator[UUID]:
    """The messages that are to be stored after the commit of the transaction that is open here, in that backend."""
    if using is None:
        return
    for _, action, *_ in connections[using].run_on_commit:
        named, ids = getattr(action, "sked_adds", ("", ()))
        if named == alias:
            yield from ids
