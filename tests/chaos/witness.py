"""What a worker process tells the ledger besides its receivers: facts, refused settles, and its own standstills."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from django_sked.models import ScheduledMessage
from django_sked.signals import message_dead, message_delivered, message_expired, message_failed, worker_started
from tests.chaos.ledger import Event, Ledger
from tests.chaos.plan import Plan

TICK = 0.1


def testify(ledger: Ledger, plan: Plan) -> None:
    """Have it written down from now on."""
    witness = _Facts(ledger)
    for fact in (message_delivered, message_dead, message_expired, message_failed):
        fact.connect(witness, weak=False)
    logger = logging.getLogger("django_sked.worker")
    logger.setLevel(logging.WARNING)
    logger.addHandler(_Refusals(ledger))
    worker_started.connect(lambda **kwargs: _begin(ledger, plan.lease / 3), weak=False)


class _Facts:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __call__(self, messages: list[ScheduledMessage], **kwargs: Any) -> None:
        at = time.time()
        self._ledger.write_all([_settled(message, at) for message in messages])


def _settled(message: ScheduledMessage, at: float) -> Event:
    return {"ev": "settled", "at": at, "id": str(message.pk), "token": message.token, "status": str(message.status)}


class _Refusals(logging.Handler):
    """The log line `lease_lost` as an event."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("lease_lost") and record.args:
            id, token, *_ = record.args
            self._ledger.write("refused", id=str(id), token=token)


def _begin(ledger: Ledger, longest: float) -> None:
    """Say that this process is up, and write down each time that it stands still for long: paused, or starved."""
    ledger.write("up")

    def watch() -> None:
        last = time.time()
        while True:
            time.sleep(TICK)
            now = time.time()
            if now - last > TICK + longest:
                ledger.write("stall", begin=last, end=now)
            last = now

    threading.Thread(target=watch, name="chaos-witness", daemon=True).start()
