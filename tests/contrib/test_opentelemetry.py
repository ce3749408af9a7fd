"""Traces: a producer's context in the metadata, and a consumer's span around each call of a receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.test import override_settings
from django.utils import timezone
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from django_sked.contrib import opentelemetry
from django_sked.contrib.opentelemetry import carrier, traced
from django_sked.exceptions import Bury, Reschedule
from django_sked.models import ScheduledMessage
from tests.worker.conftest import Store, run


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[ReadableSpan]]]:
    """What has ended so far, of a provider that is not the one of the process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(opentelemetry, "_tracer", lambda: provider.get_tracer("test"))
    yield lambda: list(exporter.get_finished_spans())
    provider.shutdown()


def attempt(memory: Store, receive: Callable[..., Any], function: Callable[..., Any], **arguments: Any) -> None:
    receive(traced(function), name="r")
    memory.schedule("order.paid", **arguments)
    run(memory, max_messages=1)


def test_metadata_carries_the_context_of_a_producer_span(spans: Callable[[], list[ReadableSpan]]) -> None:
    metadata = carrier("order.paid", {"tenant": "acme"})

    (span,) = spans()
    assert (span.name, span.kind) == ("schedule order.paid", SpanKind.PRODUCER)
    assert metadata["tenant"] == "acme"
    assert f"{span.context.trace_id:032x}-{span.context.span_id:016x}" in metadata["traceparent"]


def test_without_a_provider_nothing_is_added() -> None:
    assert carrier("order.paid", {"tenant": "acme"}) == {"tenant": "acme"}


def test_what_metadata_cannot_have_is_left_out_of_it_with_a_warning(
    spans: Callable[[], list[ReadableSpan]], memory: Store, caplog: pytest.LogCaptureFixture
) -> None:
    token = context.attach(baggage.set_baggage("k", "v" * 1_500))
    try:
        metadata = carrier("order.paid", {"tenant": "acme"})
        full = carrier("order.paid", {str(number): "" for number in range(50)})
    finally:
        context.detach(token)

    assert metadata.keys() == {"tenant", "traceparent"}
    assert len(full) == 50 and "traceparent" not in full
    assert [record.getMessage() for record in caplog.records] == [
        "context_dropped event=order.paid name='baggage'",
        "context_dropped event=order.paid name='traceparent'",
        "context_dropped event=order.paid name='baggage'",
    ]
    assert memory.schedule("order.paid", metadata=metadata).metadata == metadata
    assert memory.schedule("order.paid", metadata=full).metadata == full


def test_a_short_baggage_is_carried(spans: Callable[[], list[ReadableSpan]]) -> None:
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        assert carrier("order.paid")["baggage"] == "tenant=acme"
    finally:
        context.detach(token)


@pytest.mark.parametrize("broken", ["tracer", "propagator"])
def test_a_carrier_that_cannot_trace_gives_back_what_it_was_given(
    broken: str,
    spans: Callable[[], list[ReadableSpan]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no luck")

    if broken == "tracer":
        monkeypatch.setattr(opentelemetry, "_tracer", fails)
    else:
        monkeypatch.setattr(propagate, "inject", fails)

    assert carrier("order.paid", {"tenant": "acme"}) == {"tenant": "acme"}
    assert [record.getMessage() for record in caplog.records] == ["tracing_failed event=order.paid error=RuntimeError"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_receiver_has_a_span_that_is_linked_with_the_producers(
    is_async: bool, spans: Callable[[], list[ReadableSpan]], memory: Store, receive: Callable[..., Any]
) -> None:
    current: list[Any] = []

    def plain(message: ScheduledMessage, **kwargs: Any) -> None:
        current.append(trace.get_current_span().get_span_context())

    async def coroutine(message: ScheduledMessage, **kwargs: Any) -> None:
        plain(message)

    attempt(memory, receive, coroutine if is_async else plain, metadata=carrier("order.paid"))

    producer, consumer = spans()
    assert (consumer.name, consumer.kind, consumer.parent) == ("deliver order.paid", SpanKind.CONSUMER, None)
    assert [link.context.span_id for link in consumer.links] == [producer.context.span_id]
    assert consumer.context.trace_id != producer.context.trace_id
    assert current == [consumer.context]
    assert consumer.attributes is not None
    assert (consumer.attributes["sked.receiver"], consumer.attributes["sked.attempt"]) == ("r", 1)
    assert memory.count(status="delivered") == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Bury("no luck"), StatusCode.ERROR),
        (ValueError("x"), StatusCode.ERROR),
        (Reschedule(delay=60), StatusCode.UNSET),
    ],
)
def test_an_error_ends_the_span_as_failed(
    error: Exception,
    status: StatusCode,
    spans: Callable[[], list[ReadableSpan]],
    memory: Store,
    receive: Callable[..., Any],
) -> None:
    def fails(message: ScheduledMessage, **kwargs: Any) -> None:
        raise error

    attempt(memory, receive, fails)

    (span,) = spans()
    assert span.status.status_code == status
    assert [event.name for event in span.events] == (["exception"] if status == StatusCode.ERROR else [])
    assert span.links == ()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_span_of_an_error_shows_nothing_that_is_hidden(
    is_async: bool, spans: Callable[[], list[ReadableSpan]], receive: Callable[..., Any]
) -> None:
    def fails(message: ScheduledMessage, **kwargs: Any) -> None:
        raise ValueError(f"{'x' * 480} cannot log in with {message.payload.pop('password')}")

    async def coroutine(message: ScheduledMessage, **kwargs: Any) -> None:
        fails(message)

    setting = settings.SKED["memory"]
    changed = setting | {"OPTIONS": setting.get("OPTIONS", {}) | {"redact": ["password"]}}
    with override_settings(SKED=settings.SKED | {"memory": changed}):
        attempt(Store("memory"), receive, coroutine if is_async else fails, payload={"password": "hunter2-Zeppelin"})

    (span,) = spans()
    (event,) = span.events
    assert "hunter2" not in span.to_json()
    assert span.status.status_code == StatusCode.ERROR
    assert span.status.description == f"ValueError: {'x' * 480} cannot log in"[:500]
    assert event.name == "exception" and event.attributes is not None
    assert event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"] == f"{'x' * 480} cannot log in with [redacted]"
    assert "Traceback" in str(event.attributes["exception.stacktrace"])


@pytest.mark.parametrize("metadata", [{"traceparent": "nonsense"}, {"traceparent": ""}, {}])
def test_a_context_that_is_none_is_no_link(
    metadata: dict[str, str], spans: Callable[[], list[ReadableSpan]], memory: Store, receive: Callable[..., Any]
) -> None:
    attempt(memory, receive, lambda message, **kwargs: None, metadata=metadata)

    (span,) = spans()
    assert span.links == ()


@pytest.mark.parametrize("metadata", [{"traceparent": 7}, {"traceparent": None, "tracestate": ["x"]}, {"baggage": {}}])
def test_a_context_of_another_kind_than_text_keeps_no_message_from_its_receiver(
    metadata: dict[str, Any], spans: Callable[[], list[ReadableSpan]]
) -> None:
    """As what has stored it past `schedule()`, which takes text only."""
    message = ScheduledMessage(event="order.paid", due_at=timezone.now(), metadata=metadata)

    assert traced(lambda message, **kwargs: "received")(message=message) == "received"

    (span,) = spans()
    assert (span.links, span.status.status_code) == ((), StatusCode.UNSET)


def test_a_propagator_that_fails_keeps_no_message_from_its_receiver(
    spans: Callable[[], list[ReadableSpan]],
    memory: Store,
    receive: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("no context")

    monkeypatch.setattr(propagate, "extract", fails)

    attempt(memory, receive, lambda message, **kwargs: None)

    assert [span.links for span in spans()] == [()]
    assert memory.count(status="delivered") == 1


@pytest.mark.parametrize("step", ["on_start", "on_end"])
def test_a_span_processor_that_fails_keeps_no_message_from_its_receiver(
    step: str, memory: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError("no collector")

    processor, provider = SpanProcessor(), TracerProvider()
    monkeypatch.setattr(processor, step, fails)
    provider.add_span_processor(processor)
    monkeypatch.setattr(opentelemetry, "_tracer", lambda: provider.get_tracer("test"))

    attempt(memory, receive, lambda message, **kwargs: None)

    assert memory.count(status="delivered") == 1


def test_a_receiver_keeps_its_name_and_its_kind() -> None:
    async def coroutine(message: ScheduledMessage, **kwargs: Any) -> None: ...

    def plain(message: ScheduledMessage, **kwargs: Any) -> None: ...

    assert (traced(plain).__qualname__, traced(plain).__module__) == (plain.__qualname__, __name__)
    assert iscoroutinefunction(traced(coroutine)) and not iscoroutinefunction(traced(plain))
