"""How long to wait after a failed attempt. Policies are values: frozen, equal by value, stored with the message."""

from __future__ import annotations

import dataclasses
import math
import random as _random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias, get_args

from django_sked.arguments import shown
from django_sked.exceptions import InvalidMessage

Jitter: TypeAlias = Literal["full", "equal", "none"]
Seconds: TypeAlias = float | timedelta

SHORTEST = 0.001
LONGEST = timedelta(days=3650).total_seconds()
#: No jitter makes a wait shorter than this, or than half of what it would be without jitter if that is less.
FLOOR = 0.1
MOST_DELAYS = 100


class RetryPolicy(ABC):
    """Decide when a failed message is tried again.

    A policy of your own is a frozen dataclass of JSON values that derives from this and is entered in `kinds`.
    """

    __slots__ = ()

    @abstractmethod
    def delay_after(self, attempt: int, *, random: Callable[[], float] = _random.random) -> float | None:
        """Return the seconds to wait after the `attempt`-th attempt (from 1) failed, or None for never again."""


@dataclass(frozen=True, slots=True, init=False)
class Exponential(RetryPolicy):
    """Wait `base` at first and `factor` times as long after each further failure, at most `cap`.

    `base` and `cap` are seconds or timedeltas from 1 ms to 3650 days. With d the wait so computed, the jitter "none"
    waits d, "equal" between d/2 and d, "full" between a floor and d, evenly spread. The floor is 0.1 s, or d/2 if
    that is less: no retry comes at once.

    Raises InvalidMessage, naming the argument.
    """

    base: float
    factor: float
    cap: float
    jitter: Jitter

    def __init__(
        self, *, base: Seconds = 1.0, factor: float = 2.0, cap: Seconds = 3600.0, jitter: Jitter = "full"
    ) -> None:
        first, last = _seconds(base, "base"), _seconds(cap, "cap")
        if last < first:
            raise InvalidMessage(f"cap must not be less than base ({first} s), not {last} s.")
        _set(self, base=first, factor=_factor(factor), cap=last, jitter=_jitter(jitter))

    def delay_after(self, attempt: int, *, random: Callable[[], float] = _random.random) -> float:
        """Return the seconds to wait after the `attempt`-th failed attempt (from 1)."""
        return _spread(self._unspread(_steps(attempt)), self.jitter, random)

    def _unspread(self, steps: int) -> float:
        # By logarithms first: the power itself overflows a float within some hundred attempts.
        if steps * math.log(self.factor) >= math.log(self.cap / self.base):
            return self.cap
        return min(self.cap, self.base * self.factor**steps)


@dataclass(frozen=True, slots=True, init=False)
class Fixed(RetryPolicy):
    """Wait `delay` after each failure, or the given delays one after the other, the last one again and again.

    `delay` is seconds or a timedelta, or a list or tuple of at most 100 of them, each from 1 ms to 3650 days; `jitter`
    is as for Exponential. Raises InvalidMessage, naming the argument.
    """

    delay: tuple[float, ...]
    jitter: Jitter

    def __init__(self, delay: Seconds | Sequence[Seconds], *, jitter: Jitter = "none") -> None:
        _set(self, delay=_delays(delay), jitter=_jitter(jitter))

    def delay_after(self, attempt: int, *, random: Callable[[], float] = _random.random) -> float:
        """Return the seconds to wait after the `attempt`-th failed attempt (from 1)."""
        return _spread(self.delay[min(_steps(attempt), len(self.delay) - 1)], self.jitter, random)


@dataclass(frozen=True, slots=True)
class Never(RetryPolicy):
    """Do not try again: the first failed attempt is the last."""

    def delay_after(self, attempt: int, *, random: Callable[[], float] = _random.random) -> None:
        """Return None: never again."""


#: The policies by the name under which they are stored. A name must not change its meaning while messages hold it.
kinds: dict[str, type[RetryPolicy]] = {"exponential": Exponential, "fixed": Fixed, "never": Never}


def to_json(policy: RetryPolicy) -> dict[str, Any]:
    """Return the small dict that is stored with a message; from_json() makes an equal policy of it.

    Raises InvalidMessage when the class of the policy is not in `kinds`.
    """
    kind = next((name for name, each in kinds.items() if each is type(policy)), None)
    if kind is None:
        raise InvalidMessage(f"retry must be of a class in django_sked.retry.kinds, not {type(policy).__qualname__}.")
    fields = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}  # type: ignore[arg-type]
    return {"kind": kind} | {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def from_json(data: object) -> RetryPolicy:
    """Return the policy that to_json() wrote down; arguments left out have their defaults.

    Raises InvalidMessage for an unknown kind and for arguments that it does not take.
    """
    if not isinstance(data, Mapping):
        raise InvalidMessage(f"retry must be a dict with a 'kind', not {shown(data)}.")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise InvalidMessage(f"retry must be of one of the kinds {', '.join(kinds)}, not {shown(kind)}.")
    try:
        return kinds[kind](**{name: value for name, value in data.items() if name != "kind"})
    except TypeError as error:
        raise InvalidMessage(f"retry must be what the kind {kind} takes, not {shown(dict(data))}: {error}.") from error


def _set(policy: RetryPolicy, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(policy, name, value)


def _seconds(value: object, name: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not SHORTEST <= seconds <= LONGEST:  # type: ignore[operator]
        raise InvalidMessage(f"{name} must be a timedelta or seconds, from 1 ms to 3650 days, not {shown(value)}.")
    return float(seconds)  # type: ignore[arg-type]


def _delays(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        return (_seconds(value, "delay"),)
    if not 1 <= len(value) <= MOST_DELAYS:
        raise InvalidMessage(f"delay must be one delay or a list of 1 to {MOST_DELAYS}, not of {len(value)}.")
    return tuple(_seconds(each, f"delay[{index}]") for index, each in enumerate(value))


def _factor(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1_000_000:
        raise InvalidMessage(f"factor must be a number from 1 to 1000000, not {shown(value)}.")
    return float(value)


def _jitter(value: object) -> Jitter:
    if not isinstance(value, str) or value not in get_args(Jitter):
        raise InvalidMessage(f"jitter must be 'full', 'equal' or 'none', not {shown(value)}.")
    return value  # type: ignore[return-value]


def _steps(attempt: int) -> int:
    if attempt < 1:
        raise InvalidMessage(f"attempt must be 1 or more, not {shown(attempt)}.")
    return attempt - 1


def _spread(delay: float, jitter: Jitter, random: Callable[[], float]) -> float:
    if jitter == "none":
        return delay
    least = delay / 2 if jitter == "equal" else min(FLOOR, delay / 2)
    return min(delay, least + (delay - least) * random())
