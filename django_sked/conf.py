"""The SKED setting as frozen values, checked once.

SKED = {
    "default": {
        "BACKEND": "django_sked.backends.database.DatabaseBackend",
        "QUEUES": {"mail": {"concurrency": 4}},
        "OPTIONS": {"database": "default", "max_attempts": 5},
    },
}
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from django.conf import settings

from django_sked import arguments
from django_sked.exceptions import InvalidBackend, SkedError
from django_sked.retry import Exponential, RetryPolicy
from django_sked.sealing import Seal
from django_sked.states import FINISHED, Status

DEFAULT_SETTING = {"default": {"BACKEND": "django_sked.backends.database.DatabaseBackend"}}
KEYS = ("BACKEND", "LOCATION", "KEY_PREFIX", "QUEUES", "OPTIONS")
WEEK = timedelta(days=7)
DEFAULT_RETENTION: Mapping[Status, timedelta] = {
    Status.DELIVERED: WEEK,
    Status.CANCELLED: WEEK,
    Status.EXPIRED: WEEK,
    Status.DEAD: timedelta(days=90),
}

T = TypeVar("T")


def _number(least: float, most: float, *, whole: bool = False) -> Callable[[object], Any]:
    def check(value: object) -> float:
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        kinds = int if whole else (int, float)
        if isinstance(seconds, bool) or not isinstance(seconds, kinds) or not least <= seconds <= most:
            raise InvalidBackend(f"must be a {'whole ' if whole else ''}number from {least} to {most}, not {value!r}")
        return seconds

    return check


def _retry(value: object) -> RetryPolicy:
    if not isinstance(value, RetryPolicy):
        raise InvalidBackend(f"must be a policy of django_sked.retry, such as Exponential(), not {value!r}")
    return value


def _retention(value: object) -> Mapping[Status, timedelta | None]:
    """How long finished messages are kept, by status: a timedelta or seconds; 0 deletes at the settle, None never."""
    if not isinstance(value, Mapping):
        raise InvalidBackend(f"must be a dictionary such as {{'delivered': timedelta(days=7)}}, not {value!r}")
    kept: dict[Status, timedelta | None] = dict(DEFAULT_RETENTION)
    for status, time in value.items():
        if not isinstance(status, str) or status not in FINISHED:
            raise InvalidBackend(f"knows the statuses {', '.join(sorted(FINISHED))}, not {status!r}")
        kept[Status(status)] = None if time is None else arguments.duration(time, f"retention of {status!r}")
    return kept


def _paths(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(path, str) and _PATH.fullmatch(path) for path in value
    ):
        raise InvalidBackend(f"must be a list of dotted paths such as 'shop.hooks.tenant', not {value!r}")
    return tuple(value)


_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each.strip(". ") for each in value):
        raise InvalidBackend(f"must be a list of patterns such as '*password*' and 'card.*', not {value!r}")
    return tuple(value)


def _seal(value: object) -> Seal | None:
    """Keys are checked at once; what a dotted path leads to is imported when it is first needed."""
    if value is None:
        return None
    if isinstance(value, str):
        if not _PATH.fullmatch(value):  # which may be a key
            raise InvalidBackend("must be a list of Fernet keys, or a dotted path such as 'shop.ciphers.Cipher'")
        return Seal(path=value)
    keys = list(value) if isinstance(value, list | tuple) else []
    if not keys or not all(isinstance(key, str | bytes) for key in keys):
        raise InvalidBackend("must be a list of Fernet keys, at least one, or a dotted path")
    seal = Seal(keys=tuple(keys))
    seal.cipher  # noqa: B018
    return seal


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidBackend(f"must be True or False, not {value!r}")
    return value


def _database(value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or value not in settings.DATABASES):
        raise InvalidBackend(f"must be one of the DATABASES ({', '.join(settings.DATABASES)}), not {value!r}")
    return value


def keywords(value: object) -> Mapping[str, Any]:
    """Keyword arguments for redis-py's connections; `connecting.refuse_unknown` knows which there are."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InvalidBackend("must be a dictionary of keyword arguments of redis-py")  # which may have a password in it
    if taken := value.keys() & _TAKEN:
        raise InvalidBackend(f"must leave {min(taken)!r} to LOCATION and the other options")
    return dict(value)


#: What the Redis backend tells redis-py itself.
_TAKEN = frozenset({"decode_responses", "encoding_errors", "retry", "retry_on_timeout", "retry_on_error", "protocol"})


def _location(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidBackend(f"must be text, such as a URL, not a {type(value).__name__}")
    return value


def _key_prefix(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.:-]{1,64}", value):
        raise InvalidBackend(f"must be 1 to 64 letters, digits or any of . : - _, not {value!r}")
    return value


def _option(check: Callable[[object], Any], **kwargs: Any) -> Any:
    return field(metadata={"check": check}, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every backend understands in OPTIONS. Durations are seconds or timedeltas."""

    max_attempts: int = _option(arguments.max_attempts, default=5)
    retry: RetryPolicy = _option(_retry, default=Exponential())
    timeout: timedelta | None = _option(arguments.timeout, default=None)
    lease: float = _option(_number(0.5, 3600), default=30.0)
    poll_interval: float = _option(_number(0.01, 3600), default=1.0)
    batch_size: int = _option(_number(1, 5000, whole=True), default=500)
    max_payload_bytes: int = _option(_number(1, 1 << 30, whole=True), default=256 * 1024)
    #: Of what each receiver returns; 0 keeps no results.
    max_result_bytes: int = _option(_number(0, 1 << 30, whole=True), default=64 * 1024)
    #: Dotted paths of context managers around each call of a receiver, the outermost first.
    around_delivery: tuple[str, ...] = _option(_paths, default=())
    retention: Mapping[Status, timedelta | None] = _option(_retention, default_factory=lambda: DEFAULT_RETENTION)
    #: Patterns of keys and dotted paths whose values are shown to nobody but receivers.
    redact: tuple[str, ...] = _option(_patterns, default=())
    #: Fernet keys, of which the first encrypts and all decrypt, or a dotted path of a cipher.
    payload_cipher: Seal | None = _option(_seal, default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions(Options):
    """OPTIONS of the database backend: `database` is an alias in DATABASES; by default the routers choose."""

    database: str | None = _option(_database, default=None)
    #: Are idle workers told of messages that are due before they would look?
    wakeups: bool = _option(_switch, default=True)
    #: On PostgreSQL, does a settle of plain deliveries wait until it would survive a crash of the server?
    durable_settles: bool = _option(_switch, default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions(Options):
    """OPTIONS of the Redis backend. Durations are seconds or timedeltas."""

    #: The alias in DATABASES whose transactions writes wait for, inside `atomic()`; None when they wait for none.
    transaction_database: str | None = _option(_database, default="default")
    #: How long one call may wait for the server, and for a connection to it.
    socket_timeout: float = _option(_number(0.1, 3600), default=5.0)
    connect_timeout: float = _option(_number(0.1, 3600), default=5.0)
    #: Further keyword arguments of redis-py's connections, such as `ssl_ca_certs`, `username` and `password`.
    connection: Mapping[str, Any] = _option(keywords, default_factory=dict, repr=False)
    #: So many replicas must have what is scheduled or changed before the call returns (WAIT), within `replica_timeout`.
    replicas: int = _option(_number(0, 100, whole=True), default=0)
    replica_timeout: float = _option(_number(0.001, 3600), default=1.0)
    #: Is a server that may evict messages when its memory is full refused? Else it is warned of.
    refuse_eviction: bool = _option(_switch, default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """What a worker does for one queue, unless its command line says otherwise."""

    concurrency: int | None = _option(_number(1, 1000, whole=True), default=None)
    #: Seconds by which messages are claimed ahead of their time: more punctual, and so much earlier unchangeable.
    lookahead: float | None = _option(_number(0, 10), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """One alias of the SKED setting."""

    alias: str
    #: May hold a password.
    location: str = field(default="", repr=False)
    key_prefix: str = "sked"
    queues: Mapping[str, QueueSettings] = field(default_factory=dict)
    options: Options = field(default_factory=Options)


def aliases() -> Mapping[str, Any]:
    """The SKED setting itself; without one, the database backend on the default database."""
    value = getattr(settings, "SKED", DEFAULT_SETTING)
    if not isinstance(value, Mapping) or "default" not in value:
        raise InvalidBackend("SKED must be a dictionary with an entry 'default'.")
    for alias, params in value.items():
        if not isinstance(params, Mapping) or not isinstance(params.get("BACKEND"), str):
            raise InvalidBackend(f"SKED[{alias!r}] must be a dictionary with a dotted path in 'BACKEND'.")
    return value


def parse(alias: str, params: Mapping[str, Any], options_class: type[Options]) -> BackendSettings:
    """The checked settings of one alias; raises InvalidBackend with the alias and the key in it."""
    where = f"SKED[{alias!r}]"
    _refuse_unknown(params, KEYS, where)
    queues = {
        _checked(arguments.queue, name, f"{where}['QUEUES']"): build(
            QueueSettings, queue, f"{where}['QUEUES'][{name!r}]"
        )
        for name, queue in _mapping(params.get("QUEUES", {}), f"{where}['QUEUES']").items()
    }
    return BackendSettings(
        alias=alias,
        location=_checked(_location, params.get("LOCATION", ""), f"{where}['LOCATION']"),
        key_prefix=_checked(_key_prefix, params.get("KEY_PREFIX", "sked"), f"{where}['KEY_PREFIX']"),
        queues=queues,
        options=build(options_class, params.get("OPTIONS", {}), f"{where}['OPTIONS']"),
    )


def build(cls: type[T], values: object, where: str) -> T:
    """An instance of a dataclass of options from a dictionary, each value checked."""
    given = _mapping(values, where)
    checks = {f.name: f.metadata["check"] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    _refuse_unknown(given, checks, where)
    return cls(**{name: _checked(checks[name], value, f"{where}[{name!r}]") for name, value in given.items()})


def _checked(check: Callable[[object], T], value: object, where: str) -> T:
    try:
        return check(value)
    except SkedError as error:
        raise InvalidBackend(f"{where}: {str(error).rstrip('.')}.") from None


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidBackend(f"{where} must be a dictionary, not {value!r}.")
    return value


def _refuse_unknown(given: Iterable[str], allowed: Iterable[str], where: str) -> None:
    known = list(allowed)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it may have {', '.join(sorted(known))}."
            raise InvalidBackend(f"{where} has an unknown key {name!r}: {hint}")
