"""System checks: the SKED setting, and what each backend says about itself.

E001 the setting is wrong · E002 a backend cannot be made · E003 two aliases share one database table ·
E004-E007 a database that cannot keep the promises · E008, W006 atomic receivers where they cannot be ·
W001 SQLite settings · W002 (--deploy) messages in memory · W003 the default backend is no database ·
W004 a store that does not answer · W005 the isolation level of MySQL and MariaDB · E009 a Redis that is too old ·
E010, W007 one that may evict messages · W008 one that may lose them ·
E011 a declared recurrence that cannot be stored · W009 no time zones ·
E040 a hook around deliveries that is none · E041 a message type that nothing can be decoded to · W040 no upcaster ·
E042 a cipher that is none, or is not used ·
W010, W011 (--database) stored recurrences that come to nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning
from django.db import DatabaseError

from django_sked import codecs, conf, payloads, syncing, typed
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import InvalidBackend, InvalidMessage, InvalidMessageType, Misconfigured
from django_sked.models import Recurrence
from django_sked.recurring import Declaration, declarations
from django_sked.signals import message_due
from django_sked.worker.hooks import Hooks

#: Stored recurrences that are looked at.
MOST_RECURRENCES = 1000
#: One that every source of time zones has.
_A_ZONE = "America/New_York"


def check_backends(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check the SKED setting and each of its backends."""
    try:
        aliases = list(conf.aliases())
    except InvalidBackend as error:
        return [Error(str(error), id="django_sked.E001")]
    found: list[CheckMessage] = []
    backends: list[BaseBackend] = []
    for alias in aliases:
        try:
            backend = message_backends[alias]
            found += backend.check() + _hooks(backend) + _cipher(backend)
            backends.append(backend)
        except Misconfigured as error:
            found.append(Error(str(error), id="django_sked.E002"))
    return found + _shared_tables(backends) + _default_is_no_database(backends) + _atomic_receivers(backends)


def _hooks(backend: BaseBackend) -> list[CheckMessage]:
    try:
        Hooks(backend.options.around_delivery)
    except InvalidBackend as error:
        return [Error(f"SKED[{backend.alias!r}]['OPTIONS']: {error}", id="django_sked.E040")]
    return []


def _cipher(backend: BaseBackend) -> list[CheckMessage]:
    """Keys have been looked at with the setting."""
    seal = backend.options.payload_cipher
    if seal is not None and not backend.supports_cipher:
        text = (
            f"SKED[{backend.alias!r}]['OPTIONS'] has a payload_cipher, and {type(backend).__name__} encrypts nothing."
        )
        return [Error(text, hint="Use another backend, or remove it.", id="django_sked.E042")]
    try:
        if seal is not None:
            seal.cipher  # noqa: B018
    except InvalidBackend as error:
        return [Error(f"SKED[{backend.alias!r}]['OPTIONS']: {error}.", id="django_sked.E042")]
    return []


def check_types(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """What `@message_type` and `@upcast` declare."""
    found: list[CheckMessage] = []
    for event, kind in sorted(typed.known.items()):
        try:
            codecs.check(kind.cls)
        except InvalidMessageType as error:
            found.append(Error(f"The message type of {event!r}: {error}", id="django_sked.E041"))
        missing = [version for version in range(1, kind.version) if typed.upcaster(event, version) is None]
        if missing:
            text = f"Messages of {event!r} of version {', '.join(map(str, missing))} could not be delivered any more: "
            hint = "Add @upcast for them, or silence this check when none of them is left."
            found.append(Warning(f"{text}nothing upcasts them.", hint=hint, id="django_sked.W040"))
    return found


def check_deployment(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """With --deploy: messages that end with the process that scheduled them."""
    try:
        backends = message_backends.all()
    except Misconfigured:
        return []  # said by check_backends
    return [
        Warning(
            f"SKED[{backend.alias!r}] keeps its messages in the memory of one process.",
            hint="They are gone when it ends. Use the database backend, or keep this one to the tests' settings.",
            id="django_sked.W002",
        )
        for backend in backends
        if not backend.reaches_other_processes
    ]


def _default_is_no_database(backends: list[BaseBackend]) -> list[CheckMessage]:
    if not any(backend.alias == DEFAULT_ALIAS and backend.database is None for backend in backends):
        return []
    return [
        Warning(
            "The messages of SKED['default'] are no rows of a database: ScheduledMessage.objects.get() and filter() "
            "do not see them.",
            hint="Use find() and search(), which ask the backend. Silence this check when you do.",
            id="django_sked.W003",
        )
    ]


def _atomic_receivers(backends: list[BaseBackend]) -> list[CheckMessage]:
    """Receivers that are to run in one transaction with the settle, where some messages are in no transaction."""
    unable = [backend.alias for backend in backends if not backend.supports_atomic_receivers]
    names = message_due.atomic_receivers() if unable else []
    if not names:
        return []
    message = f"Receivers with atomic=True cannot take messages of SKED[{unable[0]!r}]: {', '.join(names)}."
    hint = "Messages for them belong into the database backend; elsewhere, use message.idempotency_key."
    if len(unable) == len(backends):
        return [Error(message, hint=hint, id="django_sked.E008")]
    return [Warning(message, hint=hint, id="django_sked.W006")]


def _shared_tables(backends: list[BaseBackend]) -> list[CheckMessage]:
    seen: dict[str, str] = {}
    found: list[CheckMessage] = []
    for backend in backends:
        if backend.database is None:
            continue
        if backend.database in seen:
            found.append(
                Error(
                    f"SKED[{seen[backend.database]!r}] and SKED[{backend.alias!r}] keep their messages in one table, "
                    f"in the database {backend.database!r}.",
                    hint="Use queues to keep messages apart, or give each backend a database of its own.",
                    id="django_sked.E003",
                )
            )
        seen[backend.database] = backend.alias
    return found


def check_recurrences(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """What the code declares, and whether this machine knows time zones."""
    try:
        aliases = set(conf.aliases())
    except InvalidBackend:
        return []  # said by check_backends
    return [*_time_zones(), *(found for each in declarations() for found in _declaration(each, aliases))]


def _time_zones() -> list[CheckMessage]:
    try:
        # Not from the cache: what was read before the files were gone.
        ZoneInfo.no_cache(_A_ZONE)
    except (ZoneInfoNotFoundError, OSError):
        return [
            Warning(
                f"This machine does not know the time zone {_A_ZONE!r}: it seems to have no time zone data.",
                hint="Install the system's time zones, or the package tzdata. "
                "Until then recurrences and at_local= can be in no zone.",
                id="django_sked.W009",
            )
        ]
    return []


def _declaration(declaration: Declaration, aliases: set[str]) -> list[CheckMessage]:
    alias, problem = declaration.values["backend"], ""
    if alias not in aliases:
        problem = f"there is no SKED[{alias!r}]: backend must be one of {', '.join(map(repr, sorted(aliases)))}."
    else:
        try:
            backend = message_backends[alias]
            payloads.normalise(declaration.values["payload"], max_bytes=backend.options.max_payload_bytes)
        except InvalidMessage as error:
            problem = str(error)
        except Misconfigured:
            pass  # said by check_backends
    if not problem:
        return []
    text = f"@recurring({declaration.name!r}) above {declaration.function} cannot be stored: {problem}"
    return [Error(text, id="django_sked.E011")]


def check_stored_recurrences(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """With --database: recurrences that no worker with this code and these settings could promote, or deliver."""
    found: list[CheckMessage] = []
    for using in databases or ():
        try:
            if syncing.is_ready(using):
                rows = Recurrence.objects.using(using).filter(status=Recurrence.Status.ACTIVE).order_by("name")
                found += [message for row in rows[:MOST_RECURRENCES] for message in _stored(row)]
        except DatabaseError:
            continue  # said by check_backends
    return found


def _stored(recurrence: Recurrence) -> list[CheckMessage]:
    problem = ""
    if recurrence.backend not in message_backends:
        problem = f"there is no SKED[{recurrence.backend!r}]"
    else:
        try:
            recurrence.rules  # noqa: B018
        except InvalidMessage as error:
            problem = str(error).rstrip(".")
    if problem:
        text = f"The stored recurrence {recurrence.name!r} cannot be promoted here: {problem}."
        return [Warning(text, hint="Change it, or end it.", id="django_sked.W011")]
    if message_due.receivers_of(recurrence.event):
        return []
    text = f"Nobody here receives {recurrence.event!r}, the event of the stored recurrence {recurrence.name!r}."
    return [Warning(text, hint="Connect a receiver, or pause the recurrence.", id="django_sked.W010")]
