"""Deliver messages in tests: in the calling thread, on the test's own connection, at any time you name.

def test_an_unpaid_invoice_is_reminded(self):
    invoice.send()
    deliver_due(now=timezone.now() + timedelta(days=3))
    assert len(mail.outbox) == 1
"""

from __future__ import annotations

from django_sked import failpoints
from django_sked.testing.asserting import assert_not_scheduled, assert_scheduled
from django_sked.testing.contract import BackendContract
from django_sked.testing.delivering import TickedWorker, connected, deliver_due
from django_sked.testing.memory import in_memory
from django_sked.testing.travelling import FrozenTime, freeze

__all__ = [
    "BackendContract",
    "FrozenTime",
    "TickedWorker",
    "assert_not_scheduled",
    "assert_scheduled",
    "connected",
    "deliver_due",
    "failpoints",
    "freeze",
    "in_memory",
]
