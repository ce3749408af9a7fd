"""Metrics: what each fact counts, what a scrape asks, and who may see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.test import RequestFactory
from prometheus_client import CollectorRegistry

from django_sked import signals
from django_sked.contrib import prometheus, serving
from django_sked.exceptions import Bury, Retry
from django_sked.models import ScheduledMessage
from django_sked.worker import Worker
from tests.contrib.conftest import Get
from tests.docs.pages import names
from tests.worker.conftest import Calls, Store, eventually, run

TOKEN = "a-token-of-enough-letters"
LABELS = {"backend": "memory", "queue": "default", "event": "order.paid"}


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    registry = CollectorRegistry()
    prometheus.connect(registry, backlog=False)
    yield registry
    prometheus.disconnect(registry)


def count(registry: CollectorRegistry, fact: str, **labels: str) -> float:
    return registry.get_sample_value("sked_messages_total", {**LABELS, **labels, "fact": fact}) or 0


def test_each_fact_is_counted_by_backend_queue_and_event(
    registry: CollectorRegistry, memory: Store, receive: Callable[..., Any]
) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        if message.payload == 0:
            raise Bury("no luck")
        if message.payload == 1 and message.attempt == 1:
            raise Retry(delay=0)

    receive(receiver, name="r")
    memory.schedule_many(4)
    memory.schedule("order.paid", queue="mail", delay=3600).cancel()

    def is_done() -> bool:
        run(memory, burst=True)
        return count(registry, "delivered") == 3

    assert eventually(is_done)
    wanted = {"scheduled": 4, "started": 5, "delivered": 3, "failed": 2, "dead": 1}
    assert {fact: count(registry, fact) for fact in wanted} == wanted
    assert count(registry, "cancelled", queue="mail") == 1


def test_lateness_and_duration_are_measured(
    registry: CollectorRegistry, memory: Store, receive: Callable[..., Any]
) -> None:
    receive(Calls(), name="r")
    memory.schedule_many(3)

    run(memory, burst=True)

    where = {"backend": "memory", "queue": "default"}
    assert registry.get_sample_value("sked_lateness_seconds_count", where) == 3
    assert 0 < (registry.get_sample_value("sked_lateness_seconds_sum", where) or 0) < 30
    assert registry.get_sample_value("sked_attempt_seconds_count", LABELS) == 3


def test_events_beyond_a_number_share_a_label(
    registry: CollectorRegistry, memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "MOST_EVENTS", 2)
    for event in ("a", "b", "c", "d", "a"):
        memory.schedule(event)

    assert [count(registry, "scheduled", event=event) for event in ("a", "b", "c", "other")] == [2, 1, 0, 2]


def test_what_never_ends_is_forgotten(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MOST_RUNNING", 2)
    metrics = prometheus.Metrics(CollectorRegistry())

    for _ in range(5):
        metrics._count("started", memory.schedule(), "memory")

    assert len(metrics._begun) == 2


def test_errors_of_workers_and_stores_are_counted(registry: CollectorRegistry) -> None:
    signals.worker_error.send(Worker, worker=Worker("memory"), error=OSError(), step="beat", expected=True)
    signals.store_error.send(None, backend="fast", step="schedule", error=OSError())

    beat = {"backend": "memory", "step": "beat", "expected": "true"}
    assert registry.get_sample_value("sked_worker_errors_total", beat) == 1
    assert registry.get_sample_value("sked_store_errors_total", {"backend": "fast", "step": "schedule"}) == 1


def test_each_registry_counts_until_it_is_disconnected_itself(registry: CollectorRegistry, memory: Store) -> None:
    other = CollectorRegistry()
    prometheus.connect(other, backlog=False)
    memory.schedule("order.paid")
    prometheus.disconnect(other)
    memory.schedule("order.paid")

    assert (count(registry, "scheduled"), count(other, "scheduled")) == (2, 1)


def test_a_registry_that_is_connected_again_counts_on(registry: CollectorRegistry, memory: Store) -> None:
    memory.schedule("order.paid")
    prometheus.disconnect(registry)
    memory.schedule("order.paid")
    prometheus.connect(registry, backlog=False)
    memory.schedule("order.paid")

    assert count(registry, "scheduled") == 2


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_the_backlog_is_shown_until_a_registry_is_disconnected_and_when_it_is_connected_again(database: Store) -> None:
    registry = CollectorRegistry()
    shown = []
    for act in (prometheus.connect, prometheus.disconnect, prometheus.connect, prometheus.disconnect):
        act(registry)
        shown.append(registry.get_sample_value("sked_backend_up", {"backend": "default"}))

    assert shown == [1, None, 1, None]


def test_without_connect_nobody_listens() -> None:
    connected = {uid for fact in prometheus._FACTS.values() for (uid, _sender), *_ in fact.receivers}

    assert not any(str(uid).startswith("django_sked.contrib.prometheus") for uid in connected)


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_the_backlog_is_asked_for_at_a_scrape_and_not_twice_in_a_moment(database: Store) -> None:
    registry = CollectorRegistry()
    prometheus.connect(registry)
    database.schedule(queue="mail")
    database.schedule(queue="mail", delay=3600)

    def backlog(state: str) -> float | None:
        where = {"backend": "default", "queue": "mail", "state": state}
        return registry.get_sample_value("sked_backlog_messages", where)

    assert (backlog("due"), backlog("future"), backlog("claimed"), backlog("dead")) == (1, 1, 0, 0)
    assert registry.get_sample_value("sked_backend_up", {"backend": "default"}) == 1
    assert registry.get_sample_value("sked_workers", {"backend": "default"}) == 0
    assert registry.get_sample_value("sked_queue_workers", {"backend": "default", "queue": "mail"}) == 0
    late = registry.get_sample_value("sked_oldest_due_seconds", {"backend": "default", "queue": "mail"})
    assert late is not None and late >= 0
    database.schedule(queue="mail")
    assert backlog("due") == 1  # as known
    prometheus.disconnect(registry)


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_a_backend_that_is_away_is_down(database: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: Any) -> Any:
        raise OSError("away")

    monkeypatch.setattr(type(database.backend), "read_now", away)
    registry = CollectorRegistry()
    registry.register(prometheus.Backlog())

    assert registry.get_sample_value("sked_backend_up", {"backend": "default"}) == 0
    assert registry.get_sample_value("sked_backend_up", {"backend": "memory"}) == 1


def test_a_worker_has_a_port_of_its_own(
    registry: CollectorRegistry, memory: Store, receive: Callable[..., Any], start: Callable[..., Worker], get: Get
) -> None:
    calls = receive(Calls(), name="r")
    served: list[Any] = []
    original = serving.serve

    def serve(*args: Any, **kwargs: Any) -> Any:
        served.append(original(*args, **kwargs))
        return served[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "serve", serve)
        prometheus.serve(0, registry=registry)
        start("memory")
    memory.schedule()
    assert calls.wait_for(1)

    status, text = get(served[0].port, "/metrics")

    assert status == 200
    assert 'sked_messages_total{backend="memory",event="order.paid",fact="started",queue="default"} 1.0' in text
    signals.worker_started.disconnect(dispatch_uid="django_sked.contrib.prometheus.0")
    served[0].close()


# The view


def ask(token: str | None = TOKEN, user: Any = None, **headers: str) -> Any:
    request = RequestFactory().get("/metrics", headers=headers)
    request.user = user or AnonymousUser()
    return prometheus.view(token=token, registry=CollectorRegistry())(request)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": f"bearer {TOKEN}"}, 200),
        ({"authorization": f"Bearer {TOKEN}x"}, 403),
        ({"authorization": "Bearer "}, 403),
        ({"authorization": f"Basic {TOKEN}"}, 403),
        ({"authorization": "Bearer é"}, 403),
    ],
)
def test_the_view_is_for_who_brings_the_token(headers: dict[str, str], status: int) -> None:
    assert ask(**headers).status_code == status


def test_without_a_token_none_opens_it() -> None:
    for token in (None, ""):  # as a variable of the environment that is not set, or empty
        assert ask(token=token, authorization="Bearer ").status_code == 403
    with pytest.raises(ValueError, match="at least 16 characters"):
        prometheus.view(token="short")


@pytest.mark.django_db
def test_the_view_is_for_who_may_view_messages() -> None:
    user, other = (User.objects.create_user(name) for name in ("a", "b"))
    user.user_permissions.add(Permission.objects.get(codename="view_scheduledmessage"))

    assert ask(user=user).status_code == 200
    assert ask(user=other).status_code == 403


def test_the_metrics_are_those_of_the_documentation() -> None:
    registry = CollectorRegistry()
    prometheus.Metrics(registry)
    true = {metric.name for metric in registry.collect()}
    written = {name.removesuffix("_total") for name in names("howto/monitor.md", "Metrics", "metric")}
    backlog = {"sked_backlog_messages", "sked_oldest_due_seconds", "sked_workers", "sked_queue_workers"}
    assert written == true | backlog | {"sked_backend_up"}
