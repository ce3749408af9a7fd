"""Traces that go on where a message is delivered: its metadata carries the context, its receivers have spans.

ScheduledMessage.objects.schedule("invoice.reminder", payload, metadata=carrier("invoice.reminder"))

@receiver(message_due, event="invoice.reminder")
@traced
def remind(sender, message, **kwargs): ...
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from django_sked import __version__, payloads
from django_sked.exceptions import EndRecurrence, InvalidPayload, Reschedule
from django_sked.models import ScheduledMessage
from django_sked.worker import failures

F = TypeVar("F", bound=Callable[..., Any])
logger = logging.getLogger("django_sked.contrib")


def _tracer() -> trace.Tracer:
    # Asked for each time: a provider may be set after this module is imported. Until then it costs next to nothing.
    return trace.get_tracer("django_sked", __version__)


def carrier(event: str, metadata: Mapping[str, str] | None = None) -> dict[str, str]:
    """Metadata for `schedule()`: what you give, and the context of a producer span, the child of the current one.

    The context is that of the propagator that is set, as a rule `traceparent`. Without a provider nothing is added.
    What metadata cannot have, as a client's long `baggage`, is left out, with a warning in the log.
    """
    found = dict(metadata or {})
    carried: dict[str, str] = {}
    attributes = {"messaging.system": "django_sked", "messaging.operation.type": "send", "sked.event": event}
    with (
        _unharmed("event", event),
        _tracer().start_as_current_span(f"schedule {event}", kind=SpanKind.PRODUCER, attributes=attributes),
    ):
        propagate.inject(carried)
    for name, value in carried.items():
        if _fits(name, value) and (name in found or len(found) < payloads.MOST_METADATA):
            found[name] = value
        else:
            logger.warning("context_dropped event=%s name=%r", event, name)
    return found


def _fits(name: str, value: str) -> bool:
    try:
        return bool(payloads.normalise_metadata({name: value}))
    except InvalidPayload:
        return False


def traced(receiver: F) -> F:
    """A receiver, plain or a coroutine function, each call of which is a consumer span.

    The span begins a trace of its own, for between a message and its delivery there may be months; it is linked with
    the producer's, and is the current one in the receiver. An error is recorded and ends it as failed; a `Reschedule`
    or an `EndRecurrence` does not. Put it below `@receiver`: the receiver keeps its name.
    """
    if iscoroutinefunction(receiver):

        @functools.wraps(receiver)
        async def receive_async(*args: Any, message: ScheduledMessage, **kwargs: Any) -> Any:
            with _span(message):
                return await receiver(*args, message=message, **kwargs)

        return cast(F, markcoroutinefunction(receive_async))

    @functools.wraps(receiver)
    def receive(*args: Any, message: ScheduledMessage, **kwargs: Any) -> Any:
        with _span(message):
            return receiver(*args, message=message, **kwargs)

    return cast(F, receive)


@contextmanager
def _span(message: ScheduledMessage) -> Iterator[Span]:
    """Whatever fails in tracing itself is logged, and neither keeps a message from its receiver nor fails it."""
    stack = ExitStack()
    span: Span = trace.INVALID_SPAN
    with _unharmed("id", message.pk):
        span = stack.enter_context(_begin(message))
    try:
        yield span
    except (Reschedule, EndRecurrence):
        raise
    except BaseException as error:
        with _unharmed("id", message.pk):
            _fail(span, error, message)
        raise
    finally:
        with _unharmed("id", message.pk):
            stack.close()


def _fail(span: Span, error: BaseException, message: ScheduledMessage) -> None:
    """The error, without what `redact` hides of the message."""
    text = failures.scrubbed(str(error), message)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {text}"[:500]))
    if not message.backend.redaction:
        span.record_exception(error)
        return
    path = failures.path_of(error).removeprefix("builtins.")
    stack = failures.scrubbed("".join(traceback.format_exception(error)), message)
    attributes = {"exception.type": path, "exception.message": text, "exception.stacktrace": stack}
    span.add_event("exception", {**attributes, "exception.escaped": "False"})


def _begin(message: ScheduledMessage) -> AbstractContextManager[Span]:
    return _tracer().start_as_current_span(
        f"deliver {message.event}",
        context=trace.set_span_in_context(trace.INVALID_SPAN),
        kind=SpanKind.CONSUMER,
        links=_links(message),
        attributes=_attributes(message),
        record_exception=False,
        set_status_on_exception=False,
    )


@contextmanager
def _unharmed(name: str, value: object) -> Iterator[None]:
    """Whatever fails in it is logged, with this name and value."""
    try:
        yield
    except Exception as error:
        logger.warning("tracing_failed %s=%s error=%s", name, value, type(error).__name__)


def _links(message: ScheduledMessage) -> list[Link]:
    """The producer's context, where the metadata has one: it may have anything else under the same names."""
    metadata = message.metadata if isinstance(message.metadata, dict) else {}
    carried = {name: value for name, value in metadata.items() if isinstance(value, str)}
    context = trace.INVALID_SPAN_CONTEXT
    with _unharmed("id", message.pk):
        context = trace.get_current_span(propagate.extract(carried)).get_span_context()
    return [Link(context)] if context.is_valid and context.is_remote else []


def _attributes(message: ScheduledMessage) -> dict[str, str | int]:
    return {
        "messaging.system": "django_sked",
        "messaging.operation.type": "process",
        "messaging.destination.name": message.queue,
        "messaging.message.id": str(message.pk),
        "sked.event": message.event,
        "sked.attempt": message.attempt,
        "sked.receiver": message.receiver or "",
        "sked.due_at": message.due_at.isoformat(),
    }
