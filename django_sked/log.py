"""Log lines: receivers of our own facts. `event key=value`, stable names, lazy arguments."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.dispatch import Signal

from django_sked import signals

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage

logger = logging.getLogger("django_sked")
worker_logger = logging.getLogger("django_sked.worker")

_LEVELS: dict[Signal, tuple[str, int]] = {
    signals.message_scheduled: ("scheduled", logging.DEBUG),
    signals.message_rescheduled: ("rescheduled", logging.INFO),
    signals.message_cancelled: ("cancelled", logging.INFO),
    signals.message_delivered: ("delivered", logging.DEBUG),
    signals.message_failed: ("failed", logging.WARNING),
    signals.message_dead: ("dead", logging.ERROR),
    signals.message_expired: ("expired", logging.WARNING),
}


def connect() -> None:
    """Listen to the facts whose log level is enabled; the others cost nothing. May be called again."""
    for fact, (_name, level) in _LEVELS.items():
        uid = "django_sked.log"
        if logger.isEnabledFor(level):
            fact.connect(_log_messages, dispatch_uid=uid)
        else:
            fact.disconnect(dispatch_uid=uid)
    signals.worker_started.connect(_log_worker_started, dispatch_uid="django_sked.log")
    signals.worker_stopped.connect(_log_worker_stopped, dispatch_uid="django_sked.log")
    signals.worker_error.connect(_log_worker_error, dispatch_uid="django_sked.log")


def _log_messages(signal: Signal, messages: list[ScheduledMessage], backend: str, **kwargs: Any) -> None:
    name, level = _LEVELS[signal]
    for message in messages:
        logger.log(
            level,
            "message_%s event=%s id=%s queue=%s attempt=%s backend=%s%s",
            name,
            message.event,
            message.pk,
            message.queue,
            message.attempt,
            backend,
            _why(message),
        )


def _why(message: ScheduledMessage) -> str:
    if not message.errors:
        return ""
    last = message.errors[-1]
    return f" error={last.get('type')} text={str(last.get('text'))[:200]!r}"


def _log_worker_started(worker: Any, **kwargs: Any) -> None:
    worker_logger.info("worker_started worker=%s backend=%s", worker.id, worker.backend.alias)


def _log_worker_stopped(worker: Any, **kwargs: Any) -> None:
    worker_logger.info("worker_stopped worker=%s backend=%s", worker.id, worker.backend.alias)


def _log_worker_error(worker: Any, error: BaseException, step: str, expected: bool, **kwargs: Any) -> None:
    worker_logger.log(
        logging.WARNING if expected else logging.ERROR,
        "worker_error worker=%s step=%s error=%s text=%s",
        worker.id,
        step,
        type(error).__name__,
        " ".join(str(error).split())[:500],
        exc_info=None if expected else error,
    )
