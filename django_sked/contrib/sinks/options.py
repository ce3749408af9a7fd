"""OPTIONS of our sinks: fields of frozen dataclasses, each with its check, as in `django_sked.conf`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django_sked import conf
from django_sked.arguments import shown
from django_sked.contrib.sinks.exceptions import InvalidSink
from django_sked.exceptions import SkedError
from django_sked.models import ScheduledMessage


def option(check: Callable[[object], Any], **kwargs: Any) -> Any:
    """A field of a sink. Without a default it must be in OPTIONS."""
    return dataclasses.field(metadata={"check": check}, **kwargs)


def make(sink_class: type[Any], values: object, where: str) -> Any:
    """A sink of this class; raises InvalidSink, which names the option."""
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise InvalidSink(f"{where} must be a dictionary, not {shown(values)}.")
    try:
        if not _has_checks(sink_class):
            return sink_class(**values)
        needed = [f.name for f in dataclasses.fields(sink_class) if _is_needed(f) and f.name not in values]
        if needed:
            raise InvalidSink(f"{where} needs {', '.join(map(repr, needed))}.")
        return conf.build(sink_class, values, where)
    except SkedError as error:
        text = str(error)
        raise InvalidSink(text if text.startswith(where) else f"{where}: {text}") from error
    except Exception as error:  # of a class that checks its arguments itself
        raise InvalidSink(f"{where} is not what {sink_class.__qualname__} takes: {error}.") from error


def _has_checks(sink_class: type[Any]) -> bool:
    return dataclasses.is_dataclass(sink_class) and all("check" in f.metadata for f in dataclasses.fields(sink_class))


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def text(value: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidSink(f"must be text that is not empty, not {shown(value)}")
    return value


def texts(value: object) -> tuple[str, ...]:
    """A list of such texts, not empty."""
    if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
        raise InvalidSink(f"must be a list of texts that is not empty, not {shown(value)}")
    return tuple(text(each) for each in value)


def switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidSink(f"must be True or False, not {shown(value)}")
    return value


def seconds(least: float, most: float) -> Callable[[object], float]:
    """A duration in seconds, from a number or a timedelta."""

    def check(value: object) -> float:
        number = value.total_seconds() if isinstance(value, timedelta) else value
        if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
            raise InvalidSink(f"must be a timedelta or seconds, from {least:g} to {most:g}, not {shown(value)}")
        return float(number)

    return check


def whole(least: int, most: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InvalidSink(f"must be a whole number from {least} to {most}, not {shown(value)}")
        return value

    return check


def limit(seconds: float, message: ScheduledMessage) -> float:
    """The seconds that an attempt may take here: not more than the message has."""
    return seconds if message.timeout is None else min(seconds, message.timeout.total_seconds())


def optional(check: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else check(value)
