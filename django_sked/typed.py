"""Typed messages: a class that stands for an event and the form of its payload, with a version.

@message_type("user.reminder")
@dataclass(frozen=True)
class Reminder:
    user: str
    at_work: bool = False

ScheduledMessage.objects.schedule(Reminder(user="alice"), delay=5)

@receiver(message_due, event=Reminder)
def remind(message: TypedMessage[Reminder], **kwargs):
    message.payload.user
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from types import GenericAlias
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

from django_sked import arguments, codecs, decoders, payloads
from django_sked.exceptions import (
    InvalidMessage,
    InvalidMessageType,
    InvalidPayload,
    InvalidReceiver,
    UndecodablePayload,
)
from django_sked.retry import RetryPolicy

if TYPE_CHECKING:
    from typing import Generic

    from django_sked.models import ScheduledMessage

__all__ = ["Typed", "TypedMessage", "message_type", "upcast"]

LATEST_VERSION = 32_767

T = TypeVar("T")
C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[[Any], Any])
Delay = timedelta | float


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


class _Pydantic(Protocol):
    def model_dump_json(self, *args: Any, **kwargs: Any) -> str: ...


class _Struct(Protocol):
    __struct_fields__: ClassVar[tuple[str, ...]]


#: An instance of a class under `@message_type`, as far as type checkers can tell one.
Typed: TypeAlias = _Dataclass | _Pydantic | _Struct

if TYPE_CHECKING:

    class TypedMessage(ScheduledMessage, Generic[T]):
        """A `ScheduledMessage` whose payload is a `T`, for annotations."""

        payload: T

else:

    class TypedMessage:
        """A `ScheduledMessage` whose payload is of that class, for annotations: `TypedMessage[Reminder]`."""

        __class_getitem__ = classmethod(GenericAlias)


class VersionTooNew(UndecodablePayload):
    """The message is of a version that this release does not know yet."""


@dataclass(frozen=True, slots=True, eq=False)
class MessageType:
    """One class, the event it stands for, and what its messages have unless they are scheduled otherwise."""

    cls: type
    event: str
    version: int
    queue: str | None
    max_attempts: int | None
    retry: RetryPolicy | None
    timeout: timedelta | None
    codec: codecs.Codec

    def encode(self, instance: Any) -> Any:
        """What the payload of this instance is, save for what `payloads.normalise` does. Raises InvalidPayload."""
        try:
            return self.codec.encode(instance)
        except Exception as error:  # of a library, of a serializer of its own, or of what holds itself
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise InvalidPayload(f"This {self.cls.__qualname__} ({self.event!r}) is no JSON: {text:.200}") from error

    def check(self, payload: Any) -> None:
        """Raises InvalidPayload where this JSON could not be delivered as this type."""
        try:
            self.codec.decode(payload)
        except decoders.Mismatch as error:
            raise InvalidPayload(f"This is no {self.cls.__qualname__} ({self.event!r}): {error}") from None


#: The types by their events, and by their classes.
known: dict[str, MessageType] = {}
_by_class: dict[type, MessageType] = {}
#: Event -> version -> what makes the next version of it.
_upcasters: dict[str, dict[int, Callable[[Any], Any]]] = {}


def message_type(
    event: str,
    *,
    version: int = 1,
    queue: str | None = None,
    max_attempts: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: Delay | None = None,
) -> Callable[[C], C]:
    """Make a class the type of the messages of `event`: a dataclass, a pydantic model or a msgspec Struct.

    Put it above `@dataclass`. `version` is that of the payload's form: raise it when older payloads do not fit any
    more, and say by `@upcast` how they become newer ones. The others are what messages of this type have unless
    `schedule()` is told otherwise. Raises InvalidMessageType for a wrong argument or class, and where another class
    stands for that event, or this one for another.
    """
    try:
        values = _checked(event, version, queue, max_attempts, retry, timeout)
    except InvalidMessage as error:
        raise InvalidMessageType(f"@message_type({event!r}): {error}") from None

    def declare(cls: C) -> C:
        if not codecs.is_known(cls):
            raise InvalidMessageType(
                f"@message_type({event!r}) takes a dataclass, a pydantic model or a msgspec Struct, not {cls!r}; "
                "it stands above @dataclass."
            )
        other = known.get(event)
        if other is not None and _place(other.cls) != _place(cls):
            raise InvalidMessageType(f"Two classes stand for {event!r}: {_place(other.cls)} and {_place(cls)}.")
        own = _by_class.get(cls)
        if own is not None and own.event != event:
            raise InvalidMessageType(f"{_place(cls)} stands for two events: {own.event!r} and {event!r}.")
        known[event] = _by_class[cls] = MessageType(cls=cls, codec=codecs.of(cls), **values)
        return cls

    return declare


def _checked(
    event: object, version: object, queue: object, max_attempts: object, retry: object, timeout: object
) -> dict[str, Any]:
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise InvalidMessage(f"retry must be a policy of django_sked.retry, not {arguments.shown(retry)}.")
    return {
        "event": arguments.event(event),
        "version": _version(version, "version"),
        "queue": None if queue is None else arguments.queue(queue),
        "max_attempts": None if max_attempts is None else arguments.max_attempts(max_attempts),
        "retry": retry,
        "timeout": arguments.timeout(timeout),
    }


def _version(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LATEST_VERSION:
        raise InvalidMessage(f"{name} must be a whole number from 1 to {LATEST_VERSION}, not {arguments.shown(value)}.")
    return int(value)


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def upcast(event: str, *, from_version: int) -> Callable[[F], F]:
    """Make a function turn the payload of a message of `from_version` into that of the next version.

    It gets the payload as JSON, of its own to change, and returns JSON. Where a message is older by several versions,
    they are called one after the other. Raises InvalidMessageType where two are given for one version.
    """
    try:
        arguments.event(event)
        _version(from_version, "from_version")
    except InvalidMessage as error:
        raise InvalidMessageType(f"@upcast({event!r}): {error}") from None

    def declare(function: F) -> F:
        chain = _upcasters.setdefault(event, {})
        other = chain.get(from_version)
        if other is not None and _place_of(other) != _place_of(function):
            raise InvalidMessageType(
                f"Two functions upcast {event!r} from version {from_version}: {_place_of(other)} and "
                f"{_place_of(function)}."
            )
        chain[from_version] = function
        return function

    return declare


def _place_of(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


# Schedule


def of(value: object) -> MessageType | None:
    """The type of an instance, or of a class."""
    return _by_class.get(value if isinstance(value, type) else type(value))


def all_of(classes: Iterable[type]) -> list[MessageType]:
    """The types of these classes; raises InvalidReceiver for another one."""
    found = []
    for cls in classes:
        kind = of(cls) if isinstance(cls, type) else None
        if kind is None:
            raise InvalidReceiver(f"{cls!r} is no type of messages; see @message_type.")
        found.append(kind)
    return found


def unfold(event: object, payload: object) -> tuple[MessageType | None, object, object]:
    """The type, event and payload of what `schedule()` was given: an instance, or an event and its payload."""
    if isinstance(event, str):
        if payload is not None and of(payload) is not None:
            payload = folded(payload, event)[1]
        return known.get(event), event, payload
    kind = _of_instance(event)
    if kind is None:
        if codecs.is_known(type(event)):
            raise InvalidMessage(f"{_place(type(event))} is no type of messages: put @message_type(...) above it.")
        return None, event, payload  # which is refused like every other event
    if payload is not None:
        raise InvalidMessage(f"A {kind.cls.__qualname__} is the payload itself: give no other one.")
    return kind, kind.event, kind.encode(event)


def folded(payload: object, event: str | None = None) -> tuple[MessageType | None, object]:
    """The type and the JSON of a payload: an instance, or JSON for a message of that event, if it is known.

    Raises InvalidMessage for an instance of another event's type.
    """
    kind = None if event is None else known.get(event)
    own = _of_instance(payload)
    if own is None:
        return kind, payload
    if event is not None and own is not kind:
        raise InvalidMessage(f"The payload is a message of {own.event!r}, not of {event!r}.")
    return own, own.encode(payload)


def _of_instance(value: object) -> MessageType | None:
    kind = None if value is None else of(value)
    if kind is not None and isinstance(value, type):
        raise InvalidMessage(f"{kind.cls.__qualname__} is a class: give an instance of it.")
    return kind


# Deliver


def decoded(event: str, payload: Any, version: int) -> Any:
    """The instance that a stored payload of some version is of; raises UndecodablePayload."""
    kind = known[event]
    if version != kind.version:
        payload = _upcasted(kind, payload, version)
    try:
        return kind.codec.decode(payload)
    except decoders.Mismatch as error:
        raise UndecodablePayload(f"It is no {kind.cls.__qualname__} any more: {error}") from None


def version_of(event: str, payload: Any) -> int:
    """The version of a payload that was kept without it: the current one, or the only older one from which upcasters
    make an instance. Where there is none, or several would make different ones, nothing is guessed: the current one."""
    current, found = known[event].version, {}
    for version in range(current, 0, -1):
        try:
            found[version] = decoded(event, payload, version)
        except UndecodablePayload:
            continue
        if version == current:
            return version
    first, *others = found.values() or [None]
    return max(found) if found and all(other == first for other in others) else current


def _upcasted(kind: MessageType, payload: Any, version: int) -> Any:
    if version > kind.version:
        raise VersionTooNew(
            f"It is of version {version} of {kind.event!r}, and this release knows only up to {kind.version}."
        )
    payload = copy.deepcopy(payload)
    for each in range(version, kind.version):
        function = upcaster(kind.event, each)
        if function is None:
            raise UndecodablePayload(f"Nothing upcasts {kind.event!r} from version {each}, and it is of {version}.")
        try:
            payload = payloads.normalise(function(payload), max_bytes=None)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            raise UndecodablePayload(
                f"{_place_of(function)} could not upcast it from version {each}: {text}"
            ) from error
    return payload


def upcaster(event: str, version: int) -> Callable[[Any], Any] | None:
    """What makes the next version out of this one."""
    return _upcasters.get(event, {}).get(version)


def unreadable(event: str, version: int) -> str | None:
    """Why no message of this version could be decoded here; None where there is no reason, or no type."""
    kind = known.get(event)
    if kind is None or version == kind.version:
        return None
    if version > kind.version:
        return f"this release knows only up to version {kind.version}"
    missing = [each for each in range(version, kind.version) if upcaster(event, each) is None]
    return f"nothing upcasts it from version {missing[0]}" if missing else None
