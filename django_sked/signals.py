"""The signal that receivers connect to, and the facts that are told about messages and workers.

`message_due` is what users receive. The facts are told after the write has committed, best effort, one send per batch:
receivers get `messages` (a list of `ScheduledMessage`) and `backend` (its alias); `worker_*` get `worker`.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

from asgiref.sync import iscoroutinefunction
from django.dispatch import Signal

from django_sked import typed
from django_sked.exceptions import InvalidReceiver

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage

logger = logging.getLogger("django_sked")

EVERY_EVENT = ("*",)

_current: ContextVar[ScheduledMessage | None] = ContextVar("django_sked_current_message", default=None)


def current_message() -> ScheduledMessage | None:
    """The message whose receiver is running in this context, or None; for code below a receiver."""
    return _current.get()


@dataclass(slots=True, eq=False)
class Receiver:
    """One connected receiver of `message_due`: who it is, what it listens to, and how to reach it."""

    name: str
    events: tuple[str, ...]
    is_async: bool
    #: Is it called in one transaction with the settle?
    atomic: bool
    _reference: Callable[[], Callable[..., Any] | None] = field(repr=False)
    #: The events whose payload it gets as an instance of their type.
    typed_events: frozenset[str] = frozenset()

    @property
    def function(self) -> Callable[..., Any] | None:
        """The function or bound method; None once it has been garbage-collected."""
        return self._reference()

    def takes(self, event: str) -> bool:
        """Is it one of its events, or does one of its globs match?"""
        return any(pattern == event or fnmatchcase(event, pattern) for pattern in self.events)


class MessageDueSignal(Signal):
    """Sent for each due message to the receivers of its event.

    `@receiver(message_due, event="invoice.*")` takes a name, a glob (`*` crosses dots) or a list of them; without
    `event=` a receiver takes every event. In the place of a name stands a `@message_type` class: then the payload is
    an instance of it. A receiver is called with `sender=ScheduledMessage`, `message`, `signal`
    and must accept `**kwargs`. It may be a coroutine function. With `atomic=True` it runs in one transaction with the
    settle, on the database of the messages: what it writes there and "delivered" are committed together. Its name,
    under which a message remembers that it succeeded, is its `dispatch_uid`, else `module.qualname`.
    """

    def __init__(self) -> None:
        super().__init__(use_caching=False)
        self._receivers: dict[str, Receiver] = {}
        self._by_event: dict[str, tuple[Receiver, ...]] = {}
        self._guard = threading.RLock()

    def connect(
        self,
        receiver: Callable[..., Any],
        sender: object | None = None,
        weak: bool = True,
        dispatch_uid: Hashable | None = None,
        *,
        event: str | type | Iterable[str | type] | None = None,
        atomic: bool = False,
        **options: Any,
    ) -> None:
        """Connect `receiver` to the messages of `event`; raises InvalidReceiver when it could never work."""
        name = _name_of(receiver, dispatch_uid)
        _check(receiver, sender, name, options)
        if not isinstance(atomic, bool):
            raise InvalidReceiver(f"The receiver {name!r}: atomic must be True or False, not {atomic!r}.")
        if atomic and iscoroutinefunction(receiver):
            raise InvalidReceiver(f"The receiver {name!r} is a coroutine function: a transaction needs a plain one.")
        events, typed_events = _patterns(event, name)
        with self._guard:
            known = self._receivers.get(name)
            if known is not None and (function := known.function) is not None:
                if function != receiver:
                    raise InvalidReceiver(
                        f"Two receivers are named {name!r}: give one of them a dispatch_uid of its own. "
                        "A message remembers by this name who has received it."
                    )
                if known.atomic != atomic:
                    raise InvalidReceiver(f"The receiver {name!r} is connected twice, with atomic=True and without.")
                events = tuple(dict.fromkeys((*known.events, *events)))
                typed_events |= known.typed_events
            super().connect(receiver, sender=None, weak=weak, dispatch_uid=name)
            reference = _weak(receiver, self._forget_the_dead) if weak else _strong(receiver)
            is_async = iscoroutinefunction(receiver)
            self._receivers[name] = Receiver(name, events, is_async, atomic, reference, typed_events)
            self._by_event.clear()

    def disconnect(
        self,
        receiver: Callable[..., Any] | None = None,
        sender: object | None = None,
        dispatch_uid: Hashable | None = None,
    ) -> bool:
        """Disconnect by the function or by its dispatch_uid; true when it was connected."""
        name = str(dispatch_uid) if receiver is None else _name_of(receiver, dispatch_uid)
        with self._guard:
            found = self._receivers.pop(name, None)
            self._by_event.clear()
            super().disconnect(None, sender=None, dispatch_uid=name)
        return found is not None

    @contextmanager
    def connected(
        self, receiver: Callable[..., Any], *, dispatch_uid: Hashable | None = None, **options: Any
    ) -> Iterator[None]:
        """Connect it for the time of a `with` block, as `connect()` does; then it is connected as it was before."""
        name = _name_of(receiver, dispatch_uid)
        before = self._receivers.get(name)
        self.connect(receiver, dispatch_uid=dispatch_uid, **options)
        try:
            yield
        finally:
            with self._guard:
                if before is None or before.function is None:
                    self.disconnect(receiver, dispatch_uid=dispatch_uid)
                elif name in self._receivers:
                    self._receivers[name] = before
                    self._by_event.clear()

    def receivers_of(self, event: str) -> tuple[Receiver, ...]:
        """The receivers of this event, in the order in which they were connected, the atomic ones last."""
        found = self._by_event.get(event)
        if found is None:
            with self._guard:
                takers = [r for r in self._receivers.values() if r.takes(event) and r.function is not None]
                found = tuple(sorted(takers, key=lambda taker: taker.atomic))
                if len(self._by_event) > 10_000:
                    self._by_event.clear()
                self._by_event[event] = found
        return found

    def events(self) -> list[str]:
        """Every event pattern that somebody receives, sorted."""
        with self._guard:
            return sorted({event for r in self._receivers.values() if r.function is not None for event in r.events})

    def atomic_receivers(self) -> list[str]:
        """The names of the receivers that were connected with `atomic=True`, sorted."""
        with self._guard:
            return sorted(r.name for r in self._receivers.values() if r.atomic and r.function is not None)

    def _forget_the_dead(self, _reference: object = None) -> None:
        # May run in the middle of any code, under the garbage collector: no waiting for a lock here.
        self._by_event = {}


def _check(receiver: Callable[..., Any], sender: object, name: str, options: dict[str, Any]) -> None:
    if not callable(receiver):
        raise InvalidReceiver(f"A receiver must be callable, not {receiver!r}.")
    if not _accepts_kwargs(receiver):
        raise InvalidReceiver(f"The receiver {name!r} must accept **kwargs.")
    if options:
        raise InvalidReceiver(f"The receiver {name!r} was connected with an unknown option {sorted(options)[0]!r}.")
    label = getattr(getattr(sender, "_meta", None), "label", None)
    if sender is not None and label != "django_sked.ScheduledMessage":
        raise InvalidReceiver(f"The sender of message_due is always ScheduledMessage, not {sender!r}: use event=.")


def _accepts_kwargs(receiver: Callable[..., Any]) -> bool:
    # Not django.utils.inspect.func_accepts_kwargs: its cache would keep a weakly connected receiver alive.
    parameters = inspect.signature(receiver).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _patterns(event: object, name: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """The patterns, and those of them that were given as classes."""
    if event is None:
        return EVERY_EVENT, frozenset()
    given = [event] if isinstance(event, str | type) else list(event) if isinstance(event, Iterable) else []
    kinds = {cls: typed.of(cls) for cls in given if isinstance(cls, type)}
    for cls, kind in kinds.items():
        if kind is None:
            raise InvalidReceiver(f"The receiver {name!r}: {cls!r} is no type of messages; see @message_type.")
    typed_events = frozenset(kind.event for kind in kinds.values() if kind is not None)
    patterns = [kinds[p].event if isinstance(p, type) else p for p in given]  # type: ignore[union-attr]
    if not patterns or not all(isinstance(p, str) and p and len(p) <= 255 for p in patterns):
        raise InvalidReceiver(
            f"The receiver {name!r}: event must be a name, a glob, a @message_type class or a list of them, "
            f"not {event!r}."
        )
    return tuple(cast("list[str]", patterns)), typed_events


def _name_of(receiver: Callable[..., Any], dispatch_uid: Hashable | None) -> str:
    if dispatch_uid is not None:
        return str(dispatch_uid)
    function = getattr(receiver, "__func__", receiver)
    qualname = getattr(function, "__qualname__", None)
    if qualname is None:
        raise InvalidReceiver(f"{receiver!r} has no name of its own: connect it with a dispatch_uid.")
    return f"{function.__module__}.{qualname}"


def _weak(receiver: Callable[..., Any], forget: Callable[[object], None]) -> Callable[[], Callable[..., Any] | None]:
    if hasattr(receiver, "__self__") and hasattr(receiver, "__func__"):
        return weakref.WeakMethod(cast("Any", receiver), forget)
    return weakref.ref(receiver, forget)


def _strong(receiver: Callable[..., Any]) -> Callable[[], Callable[..., Any]]:
    return lambda: receiver


message_due = MessageDueSignal()

message_scheduled = Signal()
message_rescheduled = Signal()
message_cancelled = Signal()
message_started = Signal()
message_delivered = Signal()
message_failed = Signal()
message_dead = Signal()
message_expired = Signal()

#: A write that was to follow a commit has failed: `backend`, the `step`, and the `error`.
store_error = Signal()

worker_started = Signal()
worker_stopped = Signal()
worker_error = Signal()


def tell(fact: Signal, messages: Sequence[ScheduledMessage], backend: str) -> None:
    """Send a fact about these messages, if somebody listens; a failing listener is logged by Django, no more."""
    if messages and fact.receivers and fact.has_listeners():
        send_safely(fact, sender=type(messages[0]), messages=list(messages), backend=backend)


_thread = threading.local()


def surround_listeners(around: Callable[[], AbstractContextManager[None]]) -> None:
    """Have what listens to facts in this thread run within such a context: it may take longer than what tells them."""
    _thread.around = around


def send_safely(fact: Signal, **kwargs: Any) -> None:
    """Send a fact; not even a listener that would end its thread, as by sys.exit(), gets further than the log."""
    around: Callable[[], AbstractContextManager[None]] = getattr(_thread, "around", nullcontext)
    try:
        with around():
            fact.send_robust(**kwargs)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        logger.exception("listener_failed error=%s", type(error).__name__)
