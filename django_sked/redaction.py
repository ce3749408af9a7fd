"""What is not to be shown: values whose keys match the patterns of `redact`. Receivers get them all the same."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from django_sked.sealing import Sealed

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage

#: Stands in the place of a value.
MARK = "[redacted]"
#: ... also as a form shows it, where it stands for one value of many.
MARKS = re.compile(r"\[redacted(?: [0-9a-f]{12})?\]")
#: Of a message: what patterns look into ...
_CARRIED = ("payload", "metadata", "result", "verdict")
#: ... and what may repeat some of it.
_TEXTS = ("errors", "reason")
#: Shorter values are not looked for in texts: they are in too many words.
SHORTEST = 4

Path: TypeAlias = tuple[str, ...]
Mark: TypeAlias = Callable[[Path, Any], str]


def _mark(path: Path, value: Any) -> str:
    return MARK


def is_index(step: str) -> bool:
    """May a database take this step of a path for the number of a list item? Django lets `int()` decide."""
    try:
        int(step)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Redaction:
    """Patterns of keys, such as `*password*`, and of dotted paths, such as `card.*`; upper and lower case are one.

    A pattern is compared with the key and with the path from the outermost object on; numbers of list items may be in
    the path, or left out.
    """

    patterns: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.patterns)

    @cached_property
    def _matches(self) -> Callable[[str], Any]:
        return re.compile("|".join(translate(pattern.lower()) for pattern in self.patterns) or r"(?!)").match

    def hides(self, path: Path) -> bool:
        """Is the value at this path, or what it is a part of, not to be shown? Items of lists are numbers.

        Without a path it is about one text or number that is no part of anything: only what fits all hides that.
        """
        if not path:
            return self._matches("") is not None
        for end in range(1, len(path) + 1):
            steps = [step.lower() for step in path[:end]]
            texts = {steps[-1], ".".join(steps)}
            # What is a number to a database may be a key here, as +49 is.
            for is_number in (str.isdecimal, is_index):
                keys = [step for step in steps if not is_number(step)]
                texts |= {*keys[-1:], ".".join(keys)}
            if any(map(self._matches, texts)):
                return True
        return False

    def shown(self, value: Any, mark: Mark = _mark, path: Path = ()) -> Any:
        """A copy with the mark in the place of each value that is not to be shown."""
        is_looked_into = not path and (value is None or isinstance(value, Mapping | list))
        if not is_looked_into and self.hides(path):
            return mark(path, value)
        if isinstance(value, Mapping) and not isinstance(value, Sealed):
            return {key: self.shown(item, mark, (*path, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self.shown(item, mark, (*path, str(index))) for index, item in enumerate(value)]
        return value

    def hidden(self, value: Any) -> list[tuple[Path, Any]]:
        """What `shown` would not show."""
        found: list[tuple[Path, Any]] = []

        def note(path: Path, item: Any) -> str:
            found.append((path, item))
            return MARK

        self.shown(value, note)
        return found

    def has_mark(self, value: Any) -> bool:
        """Is anything in a new value that stands for a hidden one?"""
        if isinstance(value, Mapping):
            return any(map(self.has_mark, value.values()))
        if isinstance(value, list):
            return any(map(self.has_mark, value))
        return bool(self.patterns) and isinstance(value, str) and MARKS.fullmatch(value) is not None

    def scrub(self, text: str, *values: Any) -> str:
        """A text without the values that are hidden in these, as far as they are in it as they are."""
        secrets = {each for value in values for _, item in self.hidden(value) for each in _texts(item)}
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, MARK)
            cut = next((n for n in range(len(secret) - 1, SHORTEST - 1, -1) if text.endswith(secret[:n])), 0)
            text = text[: len(text) - cut] + MARK if cut else text
        return text

    def without_secrets(self, message: ScheduledMessage) -> ScheduledMessage:
        """A copy to be looked at; the message itself where there is nothing to hide. Never to be written."""
        if not self.patterns:
            return message
        twin = copy.copy(message)
        carried = [getattr(message, name) for name in _CARRIED]
        for name, value in zip(_CARRIED, carried, strict=True):
            setattr(twin, name, self.shown(value))
        for name in _TEXTS:
            setattr(twin, name, self._scrubbed(getattr(message, name), carried))
        return twin

    def _scrubbed(self, value: Any, carried: Iterable[Any]) -> Any:
        if isinstance(value, str):
            return self.scrub(value, *carried)
        if isinstance(value, list):
            return [self._scrubbed(item, carried) for item in value]
        if isinstance(value, dict):
            return {key: self._scrubbed(item, carried) for key, item in value.items()}
        return value


def _texts(value: Any) -> Iterator[str]:
    """How a value may stand in a text."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        for text in {str(value), repr(value)[1:-1] if isinstance(value, str) else str(value)}:
            if len(text) >= SHORTEST:
                yield text
