"""What defines a recurrence: arguments become the checked values of a row, the same for code, calls and forms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from django_sked import arguments, civil, payloads, triggers
from django_sked.arguments import shown
from django_sked.exceptions import InvalidMessage
from django_sked.retry import from_json, to_json
from django_sked.scheduling import retry_policy

if TYPE_CHECKING:
    from django_sked.models import Recurrence

MISFIRES = ("latest", "skip", "all")
OVERLAPS = ("allow", "skip", "queue")
MOST_MADE_UP = 1000
MOST_OCCURRENCES = 1_000_000_000
LONGEST_JITTER = timedelta(days=1)
GRACE = timedelta(seconds=60)

#: The arguments that describe a recurrence, as `Recurrence.objects.create()` and `@recurring` take them.
ARGUMENTS = (
    *("name", "event", "payload", "cron", "every", "trigger", "timezone", "queue", "priority", "metadata"),
    *("max_attempts", "retry", "timeout", "expires_in", "start", "end", "max_occurrences", "jitter", "misfire"),
    *("misfire_cap", "grace", "overlap", "stateful", "backend"),
)


def define(
    name: object,
    *,
    event: object = None,
    payload: object = None,
    cron: object = None,
    every: object = None,
    trigger: object = None,
    timezone: object = "UTC",
    start: object = None,
    end: object = None,
    retry: object = None,
    **others: Any,
) -> dict[str, Any]:
    """The values of a row from these arguments; without `event` it is the name. Raises InvalidMessage."""
    if unknown := others.keys() - ARGUMENTS:
        raise arguments.unknown(unknown, ARGUMENTS, what="A recurrence", values=others)
    checked_name = named(name)
    values: dict[str, Any] = {
        "name": checked_name,
        "event": arguments.event(checked_name if event is None else event),
        "payload": payloads.normalise(payload, max_bytes=None),
        "trigger": triggers.to_json(one_trigger(cron=cron, every=every, trigger=trigger)),
        "timezone": civil.zone(timezone).key,
        "start_at": None if start is None else arguments.instant(start, "start"),
        "end_at": None if end is None else arguments.instant(end, "end"),
        "retry_policy": None if retry is None else to_json(retry_policy(retry)),
    }
    given = {name: value for name, value in others.items() if value is not None}
    values |= {name: check(given[name]) if name in given else default for name, (check, default) in _OTHERS.items()}
    _check_span(values)
    return values


def checked(values: Mapping[str, Any], names: Collection[str] | None = None) -> dict[str, Any]:
    """The values of a row that was filled in by hand, checked in the same way; or those of these names."""
    wanted = FIELDS if names is None else names
    result = {name: _by_hand(name, values) for name in FIELDS if name in wanted}
    _check_span({**values, **result})
    return result


def _by_hand(name: str, values: Mapping[str, Any]) -> Any:
    value = values[name]
    if name in _OTHERS:
        check, default = _OTHERS[name]
        return default if value is None else check(value)
    if name in ("start_at", "end_at"):
        return None if value is None else arguments.instant(value, name.removesuffix("_at"))
    if name == "retry_policy":
        return None if value is None else to_json(from_json(value))
    return _NAMED[name](values)


def named_by(update_fields: Iterable[str] | None, row: Recurrence) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a row that `save(update_fields=...)` writes, all of a definition for None; and those that it does
    not, for they are none of a definition. Raises InvalidMessage for what is no field."""
    names = list(FIELDS if update_fields is None else update_fields)
    known = {field.name for field in row._meta.concrete_fields if not field.primary_key}
    for name in names:
        if name not in known:
            raise _no_definition(name)
    found = {name: getattr(row, name) for name in names}
    return {name: found[name] for name in FIELDS if name in found}, {n: found[n] for n in names if n not in FIELDS}


def refuse(state: Mapping[str, Any], stored: Recurrence) -> None:
    """Raises InvalidMessage where any of these is another one than is stored. `update_or_create()` names times that
    are as they were."""
    for name, value in state.items():
        if getattr(stored, name) != value:
            raise _no_definition(name)


def _no_definition(name: object) -> InvalidMessage:
    return InvalidMessage(f"update_fields must be fields of the definition ({', '.join(FIELDS)}), not {shown(name)}.")


def _check_span(values: Mapping[str, Any]) -> None:
    start, end = values["start_at"], values["end_at"]
    if start is not None and end is not None and end < start:
        raise InvalidMessage(f"end must not lie before start ({start}), not {end}.")


def named(value: object) -> str:
    try:
        return arguments.event(value)
    except InvalidMessage as error:
        raise InvalidMessage(str(error).replace("event must", "name must", 1)) from None


def one_trigger(*, cron: object, every: object, trigger: object) -> triggers.Trigger:
    """Exactly one of `cron`, `every` and `trigger`, as a trigger."""
    if sum(each is not None for each in (cron, every, trigger)) != 1:
        raise InvalidMessage("Give exactly one of cron=, every= and trigger=.")
    if cron is not None:
        return triggers.Cron(cron)  # type: ignore[arg-type]
    if every is not None:
        return triggers.Every(every)  # type: ignore[arg-type]
    if not callable(getattr(trigger, "next_after", None)):
        raise InvalidMessage(f"trigger must have next_after(previous), which {shown(trigger)} has not.")
    return cast(triggers.Trigger, trigger)


def _duration(name: str, most: timedelta) -> Any:
    def check(value: object) -> timedelta:
        result = arguments.duration(value, name)
        if result > most:
            raise InvalidMessage(f"{name} must be at most {most}, not {shown(value)}.")
        return result

    return check


def _one_of(name: str, allowed: tuple[str, ...]) -> Any:
    def check(value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise InvalidMessage(f"{name} must be one of {', '.join(map(repr, allowed))}, not {shown(value)}.")
        return str.__str__(value)

    return check


def _whole(name: str, most: int) -> Any:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise InvalidMessage(f"{name} must be a whole number from 1 to {most}, not {shown(value)}.")
        return int(value)

    return check


def _lasting(value: object) -> timedelta:
    result = arguments.duration(value, "expires_in")
    if not timedelta(0) < result <= arguments.LONGEST_SHIFT:
        raise InvalidMessage(f"expires_in must be more than 0 and at most 366000 days, not {shown(value)}.")
    return result


def _alias(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 64:
        raise InvalidMessage(f"backend must be an alias of the SKED setting, not {shown(value)}.")
    return str.__str__(value)


#: Argument and field of one name -> the check, and what holds when it is left out.
_OTHERS: dict[str, tuple[Any, Any]] = {
    "queue": (arguments.queue, "default"),
    "priority": (arguments.priority, 0),
    "metadata": (payloads.normalise_metadata, {}),
    "max_attempts": (arguments.max_attempts, None),
    "timeout": (arguments.timeout, None),
    "expires_in": (_lasting, None),
    "max_occurrences": (_whole("max_occurrences", MOST_OCCURRENCES), None),
    "jitter": (_duration("jitter", LONGEST_JITTER), timedelta(0)),
    "misfire": (_one_of("misfire", MISFIRES), "latest"),
    "misfire_cap": (_whole("misfire_cap", MOST_MADE_UP), 100),
    "grace": (_duration("grace", LONGEST_JITTER), GRACE),
    "overlap": (_one_of("overlap", OVERLAPS), "allow"),
    "stateful": (lambda value: arguments.boolean(value, "stateful"), False),
    "backend": (_alias, "default"),
}
#: Field of another name, or which others are needed for -> the check of a row.
_NAMED: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "name": lambda row: named(row["name"]),
    "event": lambda row: arguments.event(row["event"] or row["name"]),
    "payload": lambda row: payloads.normalise(row["payload"], max_bytes=None),
    "trigger": lambda row: triggers.to_json(triggers.from_json(row["trigger"])),
    "timezone": lambda row: civil.zone(row["timezone"]).key,
}
#: The fields that a definition has.
FIELDS = ("name", "event", "payload", "trigger", "timezone", "start_at", "end_at", "retry_policy", *_OTHERS)
