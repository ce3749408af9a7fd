"""Idle workers of other processes are told, by what the script that stores a message publishes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest
from redis.exceptions import RedisError

from django_sked.backends.redis import RedisBackend
from django_sked.exceptions import KeyInUse
from django_sked.states import Answer, Status
from tests.contract.store import WORKER, Store, ids
from tests.worker.conftest import eventually


class Ear:
    """What a worker of another process hears: another backend object on the same keys."""

    def __init__(self, backend: RedisBackend) -> None:
        self.backend = RedisBackend(backend.settings)
        self.queues: Queue[str] = Queue()
        self.stop = self.backend.listen(self._wake)
        self.begin()

    def _wake(self, queue: str | None) -> bool:
        # Unasked it looks when it begins to listen, and once more, whenever a busy machine lets it.
        if queue is not None:
            self.queues.put(queue)
        return True

    def _is_listening(self) -> bool:
        try:
            (found,) = self.backend.connections.client().pubsub_numsub(self.backend.keys_of_store.news)
        except RedisError:
            return False
        return bool(found[1])

    def begin(self) -> None:
        """Hear everything from here on."""
        assert eventually(self._is_listening)

    def next(self) -> str:
        return self.queues.get(timeout=30)

    def hears_nothing(self) -> bool:
        try:
            self.queues.get(timeout=0.2)
        except Empty:
            return True
        return False


@pytest.fixture
def ear(backend: RedisBackend) -> Iterator[Ear]:
    ear = Ear(backend)
    yield ear
    ear.stop()


def test_a_message_that_is_due_is_announced_with_its_queue(store: Store, ear: Ear) -> None:
    store.schedule(queue="mail", delay=0)

    assert ear.next() == "mail"


def test_one_that_workers_will_see_at_their_next_poll_is_not(store: Store, ear: Ear) -> None:
    store.schedule(delay=3600)
    held = store.schedule(delay=3600)
    held.hold()

    assert ear.hears_nothing()


@pytest.mark.parametrize("verb", ["make_due", "resume", "redrive", "reschedule"])
def test_so_is_what_a_verb_makes_due(store: Store, ear: Ear, verb: str) -> None:
    arguments: dict[str, Any] = {"delay": 0} if verb == "reschedule" else {}
    status = {"resume": "blocked", "redrive": "dead"}.get(verb, "scheduled")
    due_at = datetime(2020 if verb == "resume" else 2099, 1, 1, tzinfo=UTC)
    message = store.in_status(status, due_at=due_at)
    while not ear.hears_nothing():
        pass

    assert getattr(message, verb)(**arguments)

    assert ear.next() == message.queue


def test_a_wake_up_is_not_kept_back_by_a_write_that_failed(store: Store, ear: Ear) -> None:
    store.schedule(key="k", delay=3600)
    with pytest.raises(KeyInUse):
        store.schedule(key="k", queue="mail", delay=0)

    store.schedule(queue="mail", delay=0)

    assert ear.next() == "mail"


def test_many_calls_are_few_announcements(store: Store, backend: RedisBackend, ear: Ear) -> None:
    began = time.monotonic()
    for _ in range(300):
        store.schedule(delay=0)
    took = time.monotonic() - began
    ear.next()

    # One in 5 ms, as the server counts them; so on a busy machine there may be one for each.
    commands = backend.connections.client().info("commandstats")
    assert commands["cmdstat_publish"]["calls"] <= 1 + took / 0.004


def test_a_listener_whose_connection_breaks_makes_another(store: Store, backend: RedisBackend, ear: Ear) -> None:
    backend.connections.client().client_kill_filter(_type="pubsub")
    ear.begin()

    store.schedule(queue="mail", delay=0)
    assert ear.next() == "mail"


def test_a_listener_waits_for_a_server_that_is_away(store: Store, server: Any, ear: Ear) -> None:
    server.stop()
    server.start()
    ear.begin()

    store.schedule(queue="mail", delay=0)
    assert ear.next() == "mail"


def test_a_listener_ends_when_it_is_told_to(backend: RedisBackend, ear: Ear) -> None:
    before = {thread for thread in threading.enumerate() if thread.name == "sked-listener"}
    other = Ear(backend)
    (thread,) = {each for each in threading.enumerate() if each.name == "sked-listener"} - before

    other.stop()

    thread.join(30)
    assert not thread.is_alive()


def test_who_may_not_publish_schedules_all_the_same(server: Any, make: Any) -> None:
    """New users of a server have no channels unless somebody gives them some."""
    with server.connect() as client:
        client.execute_command("ACL SETUSER shop on >secret ~{sked:* +@all -@admin -@dangerous +info")
    store = Store(make(server.location.replace("unix://", "unix://shop:secret@")))

    message = store.schedule(delay=0)
    assert store.find(message).make_due() is Answer.MADE_DUE

    assert ids(store.backend.claim(WORKER, "default", 10)) == [message.pk]


def test_the_rights_that_the_page_about_redis_names_are_enough(server: Any, make: Any) -> None:
    page = (Path(__file__).parents[2] / "docs/howto/use-redis.md").read_text()
    (rule,) = re.findall(r"^(ACL SETUSER .+)$", page, re.MULTILINE)
    with server.connect() as client:
        client.execute_command(rule.replace("{shop:", "{sked:"))
    backend = make(server.location.replace("unix://", "unix://shop:a-long-password@"))
    store, ear = Store(backend), Ear(backend)
    try:
        store.schedule_many([{"event": "e", "queue": "mail"}] * 600)
        assert ear.next() == "mail"
    finally:
        ear.stop()

    for status in Status:
        store.in_status(status, key=f"k-{status}").cancel()
    assert backend.rescue() and not backend.expire()
    backend.prune()
    assert store.search().count() == 600 + len(Status)
    assert backend.check() == []
