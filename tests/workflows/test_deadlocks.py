"""Two changes of whole workflows whose messages wait for each other both take effect, one after the other."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connections, models

from django_sked.backends.database.families import Families
from django_sked.models import ScheduledMessage, Workflow
from django_sked.states import Status
from django_sked.workflows import workflow
from tests.workflows.family import Family


def test_two_workflows_that_wait_for_each_other_are_cancelled_at_once(
    store: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.backend.database is None or store.backend.has_one_writer:
        pytest.skip("nothing is locked there, or all of it at once")
    with workflow("first", backend=store.alias) as first:
        a = first.schedule("a")
    with workflow("second", backend=store.alias) as second:
        y = second.schedule("y")
        second.schedule("x", on_success=a)
    with workflow("first again", backend=store.alias) as again:
        b = again.schedule("b", on_success=y)
    assert first.workflow is not None
    models.QuerySet(ScheduledMessage, using=store.database).filter(pk=b.pk).update(workflow_id=first.workflow.pk)
    met = threading.Barrier(2)
    ended = Families.ended

    def ended_together(self: Families, *args: Any, **options: Any) -> None:
        try:
            met.wait(5)
        except threading.BrokenBarrierError:
            pass  # the second time
        ended(self, *args, **options)

    monkeypatch.setattr(Families, "ended", ended_together)
    results: list[object] = []

    def cancel(whole: Workflow) -> None:
        try:
            results.append(whole.cancel())
        except Exception as error:  # told below
            results.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=cancel, args=(flow.workflow,)) for flow in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [result for result in results if not isinstance(result, int)] == []
    assert {message.status for message in store.search()} == {Status.CANCELLED}
