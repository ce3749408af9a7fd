"""From the setting SKED_SINKS to receivers of `message_due`: one for each entry, named `sink:` and its name there."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from django_sked.arguments import shown
from django_sked.contrib.sinks import options
from django_sked.contrib.sinks.exceptions import InvalidSink
from django_sked.models import ScheduledMessage
from django_sked.signals import message_due

KEYS = ("SINK", "EVENTS", "OPTIONS")
_NAME = re.compile(r"\w[\w.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One entry of SKED_SINKS, well-formed: whether its sink can be made is seen when it is made."""

    name: str
    path: str
    events: tuple[str, ...]
    options: Any

    @property
    def receiver(self) -> str:
        """The name under which a message remembers that this sink has taken it."""
        return f"sink:{self.name}"

    def make(self) -> Any:
        """Its sink; raises InvalidSink."""
        where = f"SKED_SINKS[{self.name!r}]"
        try:
            sink_class = import_string(self.path)
        except Exception as error:
            raise InvalidSink(f"{where}['SINK']: {self.path!r} cannot be imported: {error}.") from error
        deliver = getattr(sink_class, "deliver", None)
        if not isinstance(sink_class, type) or not callable(deliver):
            raise InvalidSink(f"{where}['SINK']: {self.path!r} is no class with a method deliver(message).")
        if iscoroutinefunction(deliver):
            raise InvalidSink(f"{where}['SINK']: deliver() of {self.path!r} must be a plain method, not a coroutine.")
        return options.make(sink_class, self.options, f"{where}['OPTIONS']")


class Routes:
    """The receivers that are connected now. A sink is made when it is first needed, once in a process."""

    def __init__(self) -> None:
        self._connected: list[Route] = []
        self._sinks: dict[str, Any] = {}
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Connect what the setting says, instead of what it said before. Wrong entries are for the system checks."""
        with self._lock:
            for route in self._connected:
                message_due.disconnect(dispatch_uid=route.receiver)
            self._connected, _problems = read()
            self._sinks = {}
        for route in self._connected:
            message_due.connect(_receiver(self, route), event=route.events, weak=False, dispatch_uid=route.receiver)

    def sink(self, route: Route) -> Any:
        """The sink of this route; raises InvalidSink, and tries again the next time."""
        with self._lock:
            if route.name not in self._sinks:
                self._sinks[route.name] = route.make()
            return self._sinks[route.name]


def _receiver(routes: Routes, route: Route) -> Any:
    def deliver(message: ScheduledMessage, **kwargs: Any) -> Any:
        return routes.sink(route).deliver(message)

    return deliver


def read() -> tuple[list[Route], list[InvalidSink]]:
    """The well-formed entries of the setting, and what is wrong with the others."""
    value = getattr(settings, "SKED_SINKS", {})
    if not isinstance(value, Mapping):
        return [], [InvalidSink(f"SKED_SINKS must be a dictionary of sinks by name, not {shown(value)}.")]
    routes: list[Route] = []
    problems: list[InvalidSink] = []
    for name, entry in value.items():
        try:
            routes.append(_route(name, entry))
        except InvalidSink as problem:
            problems.append(problem)
    return routes, problems


def _route(name: object, entry: object) -> Route:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidSink(f"A name in SKED_SINKS must be 1 to 64 letters, digits or any of . - _, not {shown(name)}.")
    where = f"SKED_SINKS[{name!r}]"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("SINK"), str):
        raise InvalidSink(f"{where} must be a dictionary with a dotted path in 'SINK'.")
    for key in entry:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it may have {', '.join(sorted(KEYS))}."
            raise InvalidSink(f"{where} has an unknown key {key!r}: {hint}")
    events = _events(entry.get("EVENTS"), where)
    return Route(name=name, path=entry["SINK"], events=events, options=entry.get("OPTIONS", {}))


def _events(value: object, where: str) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else value
    are_texts = isinstance(patterns, list | tuple) and all(isinstance(p, str) and 0 < len(p) <= 255 for p in patterns)
    if not patterns or not are_texts:
        raise InvalidSink(f"{where}['EVENTS'] must be an event, a glob such as 'invoice.*' or a list of them.")
    return tuple(patterns)  # type: ignore[arg-type]


routes = Routes()


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting == "SKED_SINKS":
        routes.connect()


setting_changed.connect(_on_setting_changed, dispatch_uid="django_sked.reset_sinks")
