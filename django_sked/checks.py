"""System checks: the SKED setting, and what each backend says about itself.

E001 the setting is wrong · E002 a backend cannot be made · E003 two aliases share one database table ·
E004-E007 a database that cannot keep the promises · W001 SQLite settings · W002 (--deploy) messages in memory ·
W003 the default backend is no database · W004 a database that does not answer ·
W005 the isolation level of MySQL and MariaDB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning

from django_sked import conf
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import InvalidBackend, Misconfigured


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
            found += backend.check()
            backends.append(backend)
        except Misconfigured as error:
            found.append(Error(str(error), id="django_sked.E002"))
    return found + _shared_tables(backends) + _default_is_no_database(backends)


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
