"""STEP schedule: arguments become one checked, unsaved `ScheduledMessage`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models.base import ModelState
from django.db.models.signals import post_init, pre_init

from django_sked import arguments, civil, dependencies, garbage, ids, payloads, subjects, typed
from django_sked.arguments import shown
from django_sked.conf import BackendSettings
from django_sked.exceptions import InvalidMessage
from django_sked.retry import RetryPolicy, from_json, to_json
from django_sked.states import LIVE, Status

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage

#: In the place of an argument that was not given, where None could be.
UNSET: Any = type("Unset", (), {"__repr__": lambda self: "UNSET"})()
OnConflict = Literal["error", "ignore", "replace"]

#: The arguments that describe one message, as `schedule()` takes them.
ARGUMENTS = (
    "event",
    "payload",
    "at",
    "delay",
    "at_local",
    "timezone",
    "key",
    "queue",
    "priority",
    "metadata",
    "subject",
    "max_attempts",
    "retry",
    "timeout",
    "expires_at",
    "expires_in",
    "id",
    "allow_past",
    "on_success",
    "on_failure",
    "on_finish",
)
_KNOWN = frozenset(ARGUMENTS)
#: ... and those that a call of `schedule()` has besides.
CALL_ARGUMENTS = ("on_conflict", "backend")


def build(
    model: type[ScheduledMessage],
    settings: BackendSettings,
    now: datetime,
    event: object,
    payload: object = None,
    *,
    at: object = None,
    delay: object = None,
    at_local: object = None,
    timezone: object = None,
    key: object = None,
    queue: object = UNSET,
    priority: object = 0,
    metadata: object = None,
    subject: object = None,
    max_attempts: object = None,
    retry: object = None,
    timeout: object = None,
    expires_at: object = None,
    expires_in: object = None,
    id: object = None,
    allow_past: object = True,
    on_success: object = None,
    on_failure: object = None,
    on_finish: object = None,
    new_id: Callable[[], UUID] = ids.uuid7,
    checks_type: bool = True,
) -> ScheduledMessage:
    """An unsaved message from the arguments of `schedule()`; raises InvalidMessage for the first wrong one.

    Without `checks_type` a payload that does not fit its type is found out when it is delivered.
    """
    options = settings.options
    kind = None
    if typed.known or type(event) is not str:
        kind, event, payload = typed.unfold(event, payload)
    local_time = None
    if at_local is not None or timezone is not None:
        at, local_time = wall_time(at_local, timezone, at=at, delay=delay)
    due_at = now if at is None and delay is None else arguments.moment(at=at, delay=delay, now=now) or now
    if allow_past is not True and not arguments.boolean(allow_past, "allow_past") and due_at < now:
        raise InvalidMessage(f"at lies in the past: {shown(at)} (allow_past=False).")
    checked_key = None if key is None else arguments.key(key)
    values = {
        "id": new_id() if id is None else ids.parse(id),
        "event": arguments.event(event),
        "queue": "default" if queue is UNSET else arguments.queue(queue),
        "priority": arguments.priority(priority),
        "payload": payloads.normalise(payload, max_bytes=options.max_payload_bytes),
        "metadata": {} if metadata is None else payloads.normalise_metadata(metadata),
        "key": checked_key,
        "live_key": checked_key,
        "due_at": due_at,
        "next_at": due_at,
        "expires_at": None if expires_at is None and expires_in is None else expiry(due_at, expires_at, expires_in),
        "timeout": options.timeout if timeout is None else arguments.timeout(timeout),
        "created_at": now,
        "max_attempts": options.max_attempts if max_attempts is None else arguments.max_attempts(max_attempts),
        "retry_policy": None if retry is None else to_json(retry_policy(retry)),
        # Fresh ones, as no two messages may share what can be changed.
        "delivered_to": {},
        "errors": [],
    }
    if kind is not None:
        if checks_type:
            kind.check(values["payload"])
        values["schema_version"] = kind.version
        _complete_typed(values, kind, queue=queue, max_attempts=max_attempts, retry=retry, timeout=timeout)
    message = _new(model, values)
    if local_time is not None:
        message.local_time = local_time
    if subject is not None:
        message.subject_type, message.subject_id = subjects.identity(subject)
    if id is not None:
        message.has_own_id = True
    if on_success is not None or on_failure is not None or on_finish is not None:
        waits_for = dependencies.conditions(
            settings.alias, model, on_success=on_success, on_failure=on_failure, on_finish=on_finish
        )
        is_timed = at is not None
        wait_for(message, waits_for, delay=None if is_timed else due_at - now, expires_in=expires_in)
    return message


def _complete_typed(values: dict[str, Any], kind: typed.MessageType, **given: object) -> None:
    """A message of a type has, where nothing else was said, the type's defaults."""
    if given["queue"] is UNSET and kind.queue is not None:
        values["queue"] = kind.queue
    if given["max_attempts"] is None and kind.max_attempts is not None:
        values["max_attempts"] = kind.max_attempts
    if given["retry"] is None and kind.retry is not None:
        values["retry_policy"] = to_json(kind.retry)
    if given["timeout"] is None and kind.timeout is not None:
        values["timeout"] = kind.timeout


def wait_for(
    message: ScheduledMessage, waits_for: Mapping[UUID, str], *, delay: timedelta | None, expires_in: object
) -> None:
    """It is blocked until its conditions hold; from then on its delay is counted, and after that `expires_in`."""
    if not waits_for:
        return
    message.waits_for = waits_for
    message.status = Status.BLOCKED
    message.parents_left = len(waits_for)
    message.release_delay = delay
    if expires_in is not None:
        message.release_expiry = arguments.duration(expires_in, "expires_in")
        message.expires_at = None


def wall_time(at_local: object, timezone: object, *, at: object, delay: object) -> tuple[datetime, str]:
    """The instant that a wall time in a zone names, and both as they are kept."""
    if at_local is None or timezone is None:
        raise InvalidMessage("Give at_local= and timezone= together.")
    if at is not None or delay is not None:
        raise InvalidMessage("Give only one of at=, delay= and at_local=.")
    wall, zone = civil.wall_time(at_local), civil.zone(timezone)
    return civil.instant_of(wall, zone), civil.to_text(wall, zone)


def _new(model: type[ScheduledMessage], values: dict[str, Any]) -> ScheduledMessage:
    """An unsaved instance; without the work that `Model.__init__` does for models whose fields it has to look up."""
    if is_listened_to(model):
        return model(**values)
    message = model.__new__(model)
    message.__dict__ = _blank(model) | values
    message._state = ModelState()
    return message


def is_listened_to(model: type[ScheduledMessage]) -> bool:
    """Does anybody want to know of each new instance?"""
    # Looked at first, as the search among them takes longer than all of this: mostly there are none, of any model.
    return bool(
        (pre_init.receivers and pre_init.has_listeners(model))
        or (post_init.receivers and post_init.has_listeners(model))
    )


@cache
def _blank(model: type[ScheduledMessage]) -> dict[str, Any]:
    return {field.attname: field.get_default() for field in model._meta.concrete_fields}


def expiry(due_at: datetime, expires_at: object, expires_in: object) -> datetime | None:
    """The instant after which no receiver starts; `expires_in` is counted from the due time."""
    if expires_at is not None and expires_in is not None:
        raise InvalidMessage("Give either expires_at= or expires_in=, not both.")
    if expires_at is not None:
        result = arguments.instant(expires_at, "expires_at")
    elif expires_in is not None:
        result = arguments.later(due_at, arguments.duration(expires_in, "expires_in"), "expires_in")
    else:
        return None
    if result <= due_at:
        raise InvalidMessage(f"The message would expire at {result} and be due only at {due_at}.")
    return result


def retry_policy(value: object) -> RetryPolicy:
    if not isinstance(value, RetryPolicy):
        raise InvalidMessage(
            f"retry must be Exponential(), Fixed(delay) or Never() of django_sked.retry, not {shown(value)}."
        )
    return value


def on_conflict(value: object) -> OnConflict:
    if value not in ("error", "ignore", "replace"):
        raise InvalidMessage(f"on_conflict must be 'error', 'ignore' or 'replace', not {shown(value)}.")
    return value


def listed(items: object) -> list[object]:
    """What `schedule_many()` was given; raises InvalidMessage for what is not several."""
    if isinstance(items, Mapping | str) or not isinstance(items, Iterable):
        raise InvalidMessage(f"schedule_many takes dictionaries or unsaved messages, not {shown(items)}.")
    return list(items)


def build_many(
    model: type[ScheduledMessage], settings: BackendSettings, now: datetime, items: Iterable[object]
) -> list[ScheduledMessage]:
    """Unsaved messages from dictionaries of the arguments of `schedule()`, from unsaved instances, or from instances
    of a message type."""
    items = listed(items)
    new_id = ids.many(len(items)).__next__
    messages: list[ScheduledMessage] = []
    last: dict[str, Any] | None = None
    shared: frozenset[str] = frozenset() if is_listened_to(model) else SHARED
    with garbage.left_alone():
        for position, item in enumerate(items):
            try:
                if last is not None and type(item) is dict and is_like(item, last):
                    payload = payloads.normalise(item.get("payload"), max_bytes=settings.options.max_payload_bytes)
                    messages.append(another(messages[-1], payload, new_id()))
                elif isinstance(item, model):
                    last = None
                    messages.append(complete(item, settings, now))
                else:
                    known = _arguments(item)
                    messages.append(build(model, settings, now, **known, new_id=new_id))
                    last = dict(known) if shared.issuperset(known) and not is_typed(known["event"]) else None
            except InvalidMessage as error:
                raise type(error)(f"Message {position}: {error}") from None
    return messages


#: Arguments of which messages have either the very same, or, of the payload, each its own.
SHARED = frozenset({"event", "payload", "at", "delay", "queue", "priority", "max_attempts", "timeout", "expires_in"})


def is_like(item: dict[Any, Any], last: dict[str, Any]) -> bool:
    """Are the arguments, but for the payload, the very ones of the last message, which have been checked?"""
    if len(item) != len(last):
        return False
    for name, value in item.items():
        if name == "payload":
            if name not in last:
                return False
        elif value is not last.get(name, _MISSING):
            return False
    return True


def is_typed(event: Any) -> bool:
    return type(event) is not str or event in typed.known


_MISSING = object()


def another(like: ScheduledMessage, payload: payloads.JSON, id: UUID) -> ScheduledMessage:
    """An unsaved message with another id, and a payload that has been normalised."""
    own = {"id": id, "payload": payload, "metadata": {}, "delivered_to": {}, "errors": [], "_state": ModelState()}
    message = like.__class__.__new__(like.__class__)
    message.__dict__ = like.__dict__ | own
    return message


def _arguments(item: object) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        if typed.of(item) is not None:
            return {"event": item}
        raise InvalidMessage(f"expected a dictionary, an unsaved message or one of a type, not {shown(item)}.")
    if unknown := item.keys() - _KNOWN:
        raise arguments.unknown(map(str, unknown), ARGUMENTS, what="A message", values=dict(item))
    if "event" not in item:
        raise InvalidMessage("event is missing.")
    return item


def complete(message: ScheduledMessage, settings: BackendSettings, now: datetime) -> ScheduledMessage:
    """Check an unsaved instance, of any status, as `build` checks arguments, and fill in what it leaves out."""
    if not message._state.adding:
        raise InvalidMessage(f"Message {message.pk} is stored already.")
    message.id = ids.parse(message.id)
    message.event = arguments.event(message.event)
    kind, payload = typed.folded(message.payload, message.event)
    is_instance = payload is not message.payload
    message.payload = payloads.normalise(payload, max_bytes=settings.options.max_payload_bytes)
    if kind is not None and (is_instance or _is_left_out(message, "schema_version", kind.version)):
        kind.check(message.payload)
        message.schema_version = kind.version
    _complete_options(message, kind, settings)
    message.queue = arguments.queue(message.queue)
    message.priority = arguments.priority(message.priority)
    message.metadata = {} if message.metadata is None else payloads.normalise_metadata(message.metadata)
    message.key = arguments.key(message.key)
    message.max_attempts = arguments.max_attempts(message.max_attempts)
    message.timeout = arguments.timeout(message.timeout)
    if message.retry_policy is not None:
        from_json(message.retry_policy)
    _complete_times(message, now)
    if message.local_time is not None:
        civil.from_text(message.local_time)
    _complete_state(message)
    _check_history(message)
    message.has_own_id = True
    return message


def _complete_options(message: ScheduledMessage, kind: typed.MessageType | None, settings: BackendSettings) -> None:
    values = {"max_attempts": settings.options.max_attempts, "timeout": settings.options.timeout}
    if kind is not None:
        _complete_typed(values, kind, queue=UNSET, max_attempts=None, retry=None, timeout=None)
    for name, value in values.items():
        if _is_left_out(message, name, value):
            setattr(message, name, value)


def _is_left_out(message: ScheduledMessage, name: str, value: object) -> bool:
    """Is it for us to say? Its constructor was not told, and nobody but we has changed it since."""
    told = message._told
    return told is not None and name not in told and getattr(message, name) in (_blank(type(message))[name], value)


def _check_history(message: ScheduledMessage) -> None:
    """Fields that only workers write, and an instance made by hand may bring."""
    for name, kind in (("errors", list), ("delivered_to", dict), ("result", object)):
        value = payloads.normalise(getattr(message, name), what=name, max_bytes=None)
        if not isinstance(value, kind):
            raise InvalidMessage(f"{name} must be a {kind.__name__}, not {shown(value)}.")
        setattr(message, name, value)
    arguments.reason(message.reason)
    try:
        message.clean_fields(exclude=_CHECKED)
    except ValidationError as error:
        name, texts = next(iter(error.message_dict.items()))
        raise InvalidMessage(f"{name} {shown(getattr(message, name))}: {' '.join(texts)}") from None


_CHECKED = {
    *("id", "event", "queue", "priority", "payload", "metadata", "key", "live_key", "status", "max_attempts"),
    *("timeout", "retry_policy", "errors", "delivered_to", "result"),
    *("due_at", "next_at", "expires_at", "created_at", "finished_at", "held_at", "claimed_at", "tick_at"),
}


def _complete_times(message: ScheduledMessage, now: datetime) -> None:
    due_at: datetime | None = message.due_at
    message.due_at = now if due_at is None else arguments.instant(due_at, "due_at")
    next_at: datetime | None = message.next_at
    message.next_at = message.due_at if next_at is None else arguments.instant(next_at, "next_at")
    message.expires_at = expiry(message.due_at, message.expires_at, None)
    for name in ("created_at", "finished_at", "held_at", "claimed_at", "tick_at"):
        value = getattr(message, name)
        setattr(message, name, None if value is None else arguments.instant(value, name))
    message.created_at = message.created_at or now
    message.finished_at = None if message.status in LIVE else message.finished_at or now


def _complete_state(message: ScheduledMessage) -> None:
    if message.status not in Status.values:
        raise InvalidMessage(f"status must be one of {', '.join(Status.values)}, not {shown(message.status)}.")
    message.status = Status(message.status)
    message.live_key = message.key if message.status in LIVE else None
    if message.status == Status.BLOCKED and not message.parents_left and message.held_at is None:
        message.held_at = message.created_at
