"""Stores whose payloads are encrypted, one for each of the SKED setting, and what is really in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.conf import settings
from django.db import connections
from django.test import override_settings

from django_sked.backends import message_backends
from tests.contract.store import Store
from tests.servers import empty

_APPS = ["django_sked", "tests.testapp"]
#: What no store may show.
SECRET = "hunter2-Zeppelin"
OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


class Reversed:
    """A cipher that is none, for the tests of dotted paths."""

    def encrypt(self, data: bytes) -> bytes:
        return data[::-1].hex().encode()

    def decrypt(self, data: bytes) -> bytes:
        return bytes.fromhex(data.decode())[::-1]


def _parameter(alias: str) -> Any:
    databases = [alias if alias in settings.DATABASES else "default"]
    uses = pytest.mark.django_db(transaction=True, databases=databases, available_apps=_APPS)
    return pytest.param(alias, marks=[uses], id=settings.SKED_TEST_ALIASES.get(alias, alias))


Configure = Callable[..., Store]


@pytest.fixture(params=map(_parameter, settings.SKED))
def alias(request: pytest.FixtureRequest) -> str:
    if store := settings.SKED_TEST_STORES.get(request.param):
        empty(store)
    return str(request.param)


@pytest.fixture
def configure(alias: str) -> Iterator[Configure]:
    """`configure([key, ...])` begins anew with this cipher: other settings, the same messages."""
    entered: list[override_settings] = []

    def begin(cipher: Any = None, **options: Any) -> Store:
        setting = settings.SKED[alias]
        given = setting.get("OPTIONS", {}) | options | {"payload_cipher": cipher}
        kept = message_backends._backends.get("memory")
        entered.append(override_settings(SKED=settings.SKED | {alias: setting | {"OPTIONS": given}}))
        entered[-1].enable()
        store = Store(message_backends[alias])
        if alias == "memory" and kept is not None:
            shelf: Any = store.backend
            shelf._shelf = kept._shelf  # type: ignore[attr-defined]
            shelf._shelf._seal = store.backend.options.payload_cipher
        return store

    yield begin
    for each in reversed(entered):
        each.disable()
    message_backends.reset()


@pytest.fixture
def store(configure: Configure) -> Store:
    return configure([NEW])


def dump(store: Store, *, with_files: bool = True) -> str:
    """Everything that the store has on disk, or would send to whoever asks for all of it."""
    backend: Any = store.backend
    if store.alias == "memory":
        return repr([vars(message) for message in backend._shelf.values()])
    if backend.database is None:
        return _redis(backend.connections.client())
    connection = connections[backend.database]
    found = _rows(connection)
    if connection.vendor == "sqlite" and with_files:
        name = str(connection.settings_dict["NAME"])
        for path in (name, f"{name}-wal"):
            with open(path, "rb") as file:
                found += repr(file.read())
    elif connection.vendor == "postgresql":
        with connection.cursor() as cursor, cursor.copy("COPY django_sked_scheduledmessage TO STDOUT") as rows:
            found += repr(b"".join(bytes(row) for row in rows))
    return found


def _rows(connection: Any) -> str:
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            if table.startswith("django_sked"):
                cursor.execute(f"SELECT * FROM {table}")
                found += cursor.fetchall()
    return repr(found)


def _redis(client: Any) -> str:
    found = []
    for key in client.scan_iter("*", count=1000):
        found += [key, client.dump(key), client.hgetall(key) if client.type(key) in (b"hash", "hash") else ""]
    return repr(found)
