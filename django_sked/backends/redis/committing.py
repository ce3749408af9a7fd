"""Writes inside `atomic()`: applied after the commit, in the order in which they were asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction

from django_sked import signals
from django_sked.models import ScheduledMessage

logger = logging.getLogger("django_sked.backends.redis")


def is_open(using: str) -> bool:
    """Is this thread inside `atomic()` of this database?"""
    try:
        return using in connections and bool(connections[using].in_atomic_block)
    except ImproperlyConfigured:
        return False  # there is no database


def after_commit(using: str, alias: str, step: str, action: Callable[[], object]) -> None:
    """What goes wrong by then is told by `store_error` and the log: the caller's transaction has committed."""

    def apply() -> None:
        try:
            action()
        except Exception as error:
            logger.error("store_error backend=%s step=%s error=%s text=%s", alias, step, type(error).__name__, error)
            signals.send_safely(signals.store_error, sender=ScheduledMessage, backend=alias, step=step, error=error)

    transaction.on_commit(apply, using=using, robust=True)
