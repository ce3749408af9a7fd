"""What comes after a move from another library works as it stands on the page."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.utils import timezone

from django_sked import recurring
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.signals import message_due
from django_sked.states import Status
from django_sked.testing import deliver_due
from tests.docs.pages import DOCS, Block, blocks

PYTHON = [block for block in blocks(DOCS / "howto/coming-from.md") if block.language == "python"]
IMPORTS, *_others = PYTHON
AFTER = [block for block in PYTHON if block.code.startswith("# after\n")]
BEFORE = [block for block in PYTHON if block.code.startswith("# before\n")]


@pytest.fixture
def nothing_declared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recurring, "_declared", {})
    receivers = set(message_due._receivers)
    yield
    for uid in set(message_due._receivers) - receivers:
        message_due.disconnect(dispatch_uid=uid)


def test_each_library_has_both() -> None:
    assert len(BEFORE) == len(AFTER) == 6
    assert "import" in IMPORTS.code


@pytest.mark.usefixtures("db", "nothing_declared")
@pytest.mark.parametrize("block", AFTER, ids=lambda block: block.place)
def test_what_comes_after_works(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("docs.coming_from")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    soon = timezone.now() + timedelta(days=1)
    vars(module).update(invoice=SimpleNamespace(pk=7), pk=7, monday_nine=soon, tuesday=soon + timedelta(days=1))

    exec(compile(IMPORTS.code, IMPORTS.place, "exec"), vars(module))
    exec(compile(block.code, block.place, "exec"), vars(module))

    reminders = list(ScheduledMessage.objects.search(event="invoice.reminder"))
    assert {str(message.payload) for message in reminders} == {"{'invoice': 7}"}
    # Where the page takes it back, it is not delivered.
    if "cancel(" in block.code:
        assert Status.CANCELLED in {message.status for message in reminders}
    if "digest" in block.code:
        declared = {declaration.name for declaration in recurring.declarations()}
        assert declared | set(Recurrence.objects.values_list("name", flat=True)) == {"digest"}
    if "def remind" in block.code:
        again = ScheduledMessage.objects.schedule("invoice.reminder", {"invoice": 8})
        assert [message.pk for message in deliver_due() if message.status == Status.DELIVERED] == [again.pk]
