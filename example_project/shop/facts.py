"""Facts are told after the commit, to whoever listens. We print them; a real shop might count them."""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import receiver
from django.utils import timezone

from django_sked.models import ScheduledMessage
from django_sked.signals import message_cancelled, message_dead, message_delivered, message_expired, message_failed

logger = logging.getLogger("shop")


@receiver(message_delivered)
def print_delivered(messages: list[ScheduledMessage], **kwargs: Any) -> None:
    for message in messages:
        due_at = timezone.localtime(message.due_at)
        logger.info("delivered  %-22s due %s  %s", message.event, f"{due_at:%H:%M:%S.%f}"[:-3], message.payload)


@receiver(message_failed)
def print_failed(messages: list[ScheduledMessage], **kwargs: Any) -> None:
    for message in messages:
        logger.info("failed     %-22s %s", message.event, _last_error(message))


@receiver(message_dead)
def print_dead(messages: list[ScheduledMessage], **kwargs: Any) -> None:
    for message in messages:
        logger.info("dead       %-22s %s", message.event, message.reason or _last_error(message))


@receiver([message_cancelled, message_expired])
def print_ended(messages: list[ScheduledMessage], **kwargs: Any) -> None:
    for message in messages:
        logger.info("%-10s %-22s %s", message.status, message.event, message.reason)


def _last_error(message: ScheduledMessage) -> str:
    error = message.errors[-1]
    return f"{error['type']}: {error['text']}"
