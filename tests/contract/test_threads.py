"""What a worker asks of a backend about its threads."""

from __future__ import annotations

import threading

import pytest

from tests.contract.store import T0, WORKER, Store, elsewhere


@pytest.mark.parametrize("apart", [False, True])
def test_a_prepared_thread_uses_the_store_however_often_it_is_prepared(store: Store, apart: bool) -> None:
    worker = store.worker()
    message = store.schedule()

    def work() -> list[object]:
        store.backend.prepare_thread(apart=apart)
        store.backend.beat(worker, now=T0)
        store.backend.prepare_thread(apart=apart)
        return list(store.backend.claim(WORKER, "default", 10, now=T0))

    assert elsewhere(work) == [message]


def test_a_thread_that_is_none_of_the_workers_is_not_interrupted(store: Store) -> None:
    assert store.backend.interrupt_thread(0) is False
    assert elsewhere(lambda: store.backend.interrupt_thread(threading.get_ident())) is False
