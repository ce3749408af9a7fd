"""Metrics for Prometheus, made of the facts that django-sked tells anyway, and of a look at the backlog.

prometheus.connect()                          # in a receivers.py: counters and histograms
prometheus.serve(9187)                        # ... and a port in each worker's process
path("metrics", prometheus.view(token=...))   # or a page of the site
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from django_sked import clock, signals
from django_sked.backends import message_backends
from django_sked.backends.backlog import KINDS
from django_sked.contrib import serving
from django_sked.models import ScheduledMessage
from django_sked.standing import standing

logger = logging.getLogger("django_sked.contrib")

#: Seconds: punctual is below the first, and an outage is beyond the last.
LATENESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)
DURATION = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)
#: Events with a label of their own; what comes after them is called "other".
MOST_EVENTS = 200
#: Attempts of which the beginning is remembered: more than any worker has running.
MOST_RUNNING = 10_000
#: Seconds for which the numbers of the backlog are not asked for again.
BACKLOG_AGE = 5.0

_FACTS: dict[str, Signal] = {
    "scheduled": signals.message_scheduled,
    "rescheduled": signals.message_rescheduled,
    "cancelled": signals.message_cancelled,
    "started": signals.message_started,
    "delivered": signals.message_delivered,
    "failed": signals.message_failed,
    "dead": signals.message_dead,
    "expired": signals.message_expired,
}
_UID = "django_sked.contrib.prometheus"


class Metrics:
    """The metrics of one registry: `sked_messages_total`, `sked_lateness_seconds`, `sked_attempt_seconds`,
    `sked_worker_errors_total` and `sked_store_errors_total`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        labels = ("backend", "queue", "event")
        self._messages = Counter(
            "sked_messages",
            "Facts about messages, as this process has told them.",
            (*labels, "fact"),
            registry=registry,
        )
        self._lateness = Histogram(
            "sked_lateness_seconds",
            "From when a message might begin to when its receivers did.",
            ("backend", "queue"),
            buckets=LATENESS,
            registry=registry,
        )
        self._attempt = Histogram(
            "sked_attempt_seconds",
            "From the start of the first receiver to when the outcome was written.",
            labels,
            buckets=DURATION,
            registry=registry,
        )
        self._worker_errors = Counter(
            "sked_worker_errors",
            "Steps of workers that failed; expected ones are tried again.",
            ("backend", "step", "expected"),
            registry=registry,
        )
        self._store_errors = Counter(
            "sked_store_errors", "Writes after a commit that failed.", ("backend", "step"), registry=registry
        )
        self._events: set[str] = set()
        self._begun: OrderedDict[tuple[str, UUID], float] = OrderedDict()
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Count from now on."""
        for name, fact in _FACTS.items():
            fact.connect(self._hearer(name), weak=False, dispatch_uid=self._uid)
        signals.worker_error.connect(self._on_worker_error, weak=False, dispatch_uid=self._uid)
        signals.store_error.connect(self._on_store_error, weak=False, dispatch_uid=self._uid)

    def disconnect(self) -> None:
        """Count no more; what was counted stays in the registry."""
        for fact in (*_FACTS.values(), signals.worker_error, signals.store_error):
            fact.disconnect(dispatch_uid=self._uid)
        with self._lock:
            self._begun.clear()  # the ends of these will not be heard

    @property
    def _uid(self) -> str:
        """Of its own, so that several registries can count."""
        return f"{_UID}.{id(self)}"

    def _hearer(self, name: str) -> Callable[..., None]:
        def hear(messages: list[ScheduledMessage], backend: str, **kwargs: Any) -> None:
            for message in messages:
                self._count(name, message, backend)

        return hear

    def _count(self, fact: str, message: ScheduledMessage, backend: str) -> None:
        event = self._label(message.event)
        self._messages.labels(backend, message.queue, event, fact).inc()
        if fact == "started":
            self._begin(message, backend)
        elif fact in ("delivered", "failed", "expired"):
            with self._lock:
                begun = self._begun.pop((backend, message.pk), None)
            if begun is not None:
                self._attempt.labels(backend, message.queue, event).observe(max(0.0, clock.monotonic() - begun))

    def _begin(self, message: ScheduledMessage, backend: str) -> None:
        late = message_backends[backend].now() - max(message.next_at, message.due_at)
        self._lateness.labels(backend, message.queue).observe(max(0.0, late.total_seconds()))
        with self._lock:
            self._begun[backend, message.pk] = clock.monotonic()
            if len(self._begun) > MOST_RUNNING:
                self._begun.popitem(last=False)

    def _label(self, event: str) -> str:
        if event in self._events:
            return event
        if len(self._events) >= MOST_EVENTS:
            return "other"
        self._events.add(event)
        return event

    def _on_worker_error(self, worker: Any, step: str, expected: bool, **kwargs: Any) -> None:
        self._worker_errors.labels(worker.backend.alias, step, str(expected).lower()).inc()

    def _on_store_error(self, backend: str, step: str, **kwargs: Any) -> None:
        self._store_errors.labels(backend, step).inc()


class Backlog(Collector):
    """What is due, to come, claimed and dead, queue by queue, and how late the oldest is: asked when it is scraped.

    A backend that does not answer has no numbers, and `sked_backend_up` 0.
    """

    def __init__(self) -> None:
        self._known: list[Metric] = []
        self._known_at = float("-inf")
        self._lock = threading.Lock()

    def describe(self) -> list[Metric]:
        """Nothing, so that registering it asks nobody."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if clock.monotonic() - self._known_at > BACKLOG_AGE:
                self._known = self._ask()
                self._known_at = clock.monotonic()
            yield from self._known

    def _ask(self) -> list[Metric]:
        queue = ("backend", "queue")
        messages = GaugeMetricFamily(
            "sked_backlog_messages", "Messages by state, counted up to 10000 at most.", None, (*queue, "state")
        )
        oldest = GaugeMetricFamily(
            "sked_oldest_due_seconds", "How long the oldest due message has been due.", None, queue
        )
        workers = GaugeMetricFamily("sked_workers", "Workers whose lease is good.", None, ("backend",))
        serving_ = GaugeMetricFamily("sked_queue_workers", "Those that serve this queue.", None, queue)
        up = GaugeMetricFamily("sked_backend_up", "Does the backend answer?", None, ("backend",))
        for backend in message_backends.all():
            try:
                found = standing(backend)
            except Exception as error:
                logger.warning("metrics_failed backend=%s error=%s", backend.alias, type(error).__name__)
                up.add_metric([backend.alias], 0)
                continue
            up.add_metric([backend.alias], 1)
            if found.workers is not None:
                workers.add_metric([backend.alias], len(found.workers))
            for each in found.queues:
                where = [backend.alias, each.queue]
                for state in KINDS:
                    messages.add_metric([*where, state], getattr(each.backlog, state).number)
                oldest.add_metric(where, each.late.total_seconds())
                if each.workers is not None:
                    serving_.add_metric(where, each.workers)
        return [messages, oldest, workers, serving_, up]


#: What has ever been connected: a registry takes metrics of one name once.
_metrics: dict[CollectorRegistry, Metrics] = {}
#: What is connected now, with what shows the backlog there.
_connected: dict[CollectorRegistry, Backlog | None] = {}


def connect(registry: CollectorRegistry = REGISTRY, *, backlog: bool = True) -> None:
    """Make metrics of what this process does, and, when they are asked for, of the backlog. Once per registry.

    A registry that was disconnected counts on from where it was.
    """
    if registry in _connected:
        return
    if registry not in _metrics:
        _metrics[registry] = Metrics(registry)
    _connected[registry] = shown = Backlog() if backlog else None
    _metrics[registry].connect()
    if shown is not None:
        registry.register(shown)


def disconnect(registry: CollectorRegistry = REGISTRY) -> None:
    """Count no more, and ask for no backlog; what was counted stays in the registry."""
    if registry in _connected:
        shown = _connected.pop(registry)
        _metrics[registry].disconnect()
        if shown is not None:
            registry.unregister(shown)


def serve(port: int, *, address: str = "127.0.0.1", ports: int = 1, registry: CollectorRegistry = REGISTRY) -> None:
    """A port in the process of each worker, from when it starts: `/metrics`.

    With `sked_worker --processes` each process takes the first free one of `ports` ports from `port` on.
    """
    started: list[serving.Server] = []

    def start(**kwargs: Any) -> None:
        if not started:
            started.append(serving.serve({"/metrics": lambda: _page(registry)}, port, address=address, ports=ports))

    signals.worker_started.connect(start, weak=False, dispatch_uid=f"{_UID}.{port}")


def _page(registry: CollectorRegistry) -> serving.Page:
    return serving.Page(200, generate_latest(registry), CONTENT_TYPE_LATEST)


def view(*, token: str | None = None, registry: CollectorRegistry = REGISTRY) -> Callable[[HttpRequest], HttpResponse]:
    """A view of the metrics, for who may view scheduled messages, and for who brings the bearer token, if there is one.

    It has the facts of this one process of the web server, and the backlog of all. An empty token is none; raises
    ValueError for one of less than 16 characters.
    """
    token = token or None
    if token is not None and len(token) < 16:
        raise ValueError("token must have at least 16 characters: anybody may try to guess it.")

    def metrics(request: HttpRequest) -> HttpResponse:
        if not _may_see(request, token):
            return HttpResponse("forbidden\n", status=403, content_type="text/plain")
        return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return metrics


def _may_see(request: HttpRequest, token: str | None) -> bool:
    kind, _space, given = request.headers.get("Authorization", "").partition(" ")
    if token is not None and kind.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode()):
        return True
    user = getattr(request, "user", None)
    return user is not None and user.is_active and user.has_perm("django_sked.view_scheduledmessage")
