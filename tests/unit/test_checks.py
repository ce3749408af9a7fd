"""What `manage.py check` says."""

from __future__ import annotations

import sys
import zoneinfo
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import CheckMessage, run_checks
from django.db import OperationalError, connections
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.models import Recurrence
from django_sked.recurring import recurring
from django_sked.signals import message_due
from django_sked.testing import connected
from django_sked.typed import message_type, upcast

pytestmark = pytest.mark.django_db(databases="__all__")  # a check may ask a server for its version

MEMORY = {"BACKEND": "django_sked.backends.memory.MemoryBackend"}
DATABASE = {"BACKEND": "django_sked.backends.database.DatabaseBackend"}


def ours(found: Iterable[CheckMessage]) -> list[str]:
    return [str(message.id) for message in found if str(message.id).startswith("django_sked.")]


def test_the_settings_of_the_tests_pass() -> None:
    assert ours(run_checks()) == []


@override_settings(SKED={"default": MEMORY})
def test_a_default_backend_without_rows_is_warned_of() -> None:
    assert "django_sked.W003" in ours(run_checks())


@override_settings(SKED={"default": DATABASE, "memory": MEMORY})
def test_messages_in_memory_are_warned_of_at_a_deployment_only() -> None:
    assert "django_sked.W002" not in ours(run_checks())
    assert "django_sked.W002" in ours(run_checks(include_deployment_checks=True))


def test_a_database_of_an_unknown_vendor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"], "vendor", "oracle")

    assert ours(message_backends["default"].check())[0] == "django_sked.E004"


def test_a_database_with_a_time_zone_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "TIME_ZONE", "Europe/Berlin")

    assert "django_sked.E007" in ours(message_backends["default"].check())


def test_a_database_without_transactions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"].features, "supports_transactions", False)

    assert ours(message_backends["default"].check())[0] == "django_sked.E004"


def as_vendor(vendor: str, monkeypatch: pytest.MonkeyPatch, **features: bool) -> None:
    """Let the default database pass for one of another vendor, with these features."""
    monkeypatch.setattr(connections["default"], "vendor", vendor)
    for name, value in features.items():
        monkeypatch.setattr(connections["default"].features, name, value)


@pytest.mark.parametrize("vendor", ["postgresql", "mysql"])
def test_a_server_without_skip_locked_is_refused(vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_vendor(vendor, monkeypatch, has_select_for_update_skip_locked=False)

    assert ours(message_backends["default"].check()) == ["django_sked.E005"]


@pytest.mark.parametrize(
    ("vendor", "options", "found"),
    [
        ("mysql", {}, []),
        ("mysql", {"isolation_level": "READ COMMITTED"}, []),
        ("mysql", {"isolation_level": "repeatable read"}, ["django_sked.W005"]),
        ("mysql", {"isolation_level": "serializable"}, ["django_sked.W005"]),
        ("mysql", {"isolation_level": None}, ["django_sked.W005"]),  # whatever the server has
        ("postgresql", {"isolation_level": 3}, []),
    ],
)
def test_mysql_with_another_isolation_level_is_warned_of(
    vendor: str, options: dict[str, Any], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_vendor(vendor, monkeypatch, has_select_for_update_skip_locked=True)
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)

    assert ours(message_backends["default"].check()) == found


def test_a_database_that_does_not_answer_is_a_warning_because_a_worker_can_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            raise OperationalError("connection refused")

    monkeypatch.setattr(connections["default"], "features", Away())

    assert ours(message_backends["default"].check())[0] == "django_sked.W004"


@pytest.mark.skipif(
    settings.DATABASES["default"]["ENGINE"] != "django.db.backends.sqlite3", reason="the check is about SQLite"
)
def test_sqlite_with_untouched_settings_gets_the_lines_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {})

    (warning,) = message_backends["default"].check()

    assert warning.id == "django_sked.W001"
    assert '"transaction_mode": "IMMEDIATE"' in str(warning.hint)


@override_settings(SKED={"default": MEMORY})
def test_atomic_receivers_are_refused_where_no_backend_can_have_them() -> None:
    def books(**kwargs: object) -> None: ...

    with connected(books, "order.paid", atomic=True):
        found = [message for message in run_checks() if message.id == "django_sked.E008"]

    assert len(found) == 1
    assert "books" in str(found[0])


@override_settings(SKED={"default": DATABASE, "memory": MEMORY})
def test_atomic_receivers_are_warned_of_where_some_backend_cannot_have_them() -> None:
    def books(**kwargs: object) -> None: ...

    assert "django_sked.W006" not in ours(run_checks())
    with connected(books, "order.paid", atomic=True):
        assert "django_sked.W006" in ours(run_checks())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"backend": "elsewhere"}, "there is no SKED['elsewhere']: backend must be one of"),
        ({"payload": "x" * 300_000}, "payload"),
    ],
)
def test_a_declared_recurrence_that_cannot_be_stored_is_refused(
    arguments: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_sked.recurring._declared", {})

    def digest(**kwargs: object) -> None: ...

    recurring("digest", every=60, dispatch_uid="tests.digest", **arguments)(digest)
    try:
        (found,) = [message for message in run_checks() if message.id == "django_sked.E011"]
    finally:
        message_due.disconnect(dispatch_uid="tests.digest")

    assert "@recurring('digest')" in str(found) and said in str(found)


def test_a_machine_without_time_zones_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "django_sked.W009" not in ours(run_checks())
    path = zoneinfo.TZPATH
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath(to=[])
    try:
        assert "django_sked.W009" in ours(run_checks())
    finally:
        zoneinfo.reset_tzpath(to=path)


def stored(**fields: Any) -> list[str]:
    recurrence = Recurrence.objects.create("digest", every=60)
    Recurrence.objects.filter(pk=recurrence.pk).update(**fields)
    assert "django_sked.W011" not in ours(run_checks())  # no database is asked unless it is named
    return [identity for identity in ours(run_checks(databases=["default"])) if identity > "django_sked.W009"]


def test_a_stored_recurrence_that_nobody_here_receives_is_warned_of() -> None:
    assert stored() == ["django_sked.W010"]
    with connected(lambda **kwargs: None, "digest", dispatch_uid="digest"):
        assert "django_sked.W010" not in ours(run_checks(databases=["default"]))


@pytest.mark.parametrize(
    "fields", [{"trigger": {"kind": "moon"}}, {"timezone": "Mars/Olympus"}, {"backend": "elsewhere"}]
)
def test_a_stored_recurrence_that_cannot_be_promoted_here_is_warned_of(fields: dict[str, Any]) -> None:
    assert stored(**fields) == ["django_sked.W011"]


def test_a_paused_recurrence_is_not_looked_at() -> None:
    assert stored(status="paused") == []


@dataclass
class Bytes:
    data: bytes


@dataclass
class Text:
    data: str


@pytest.mark.usefixtures("message_types")
def test_a_message_type_that_nothing_could_be_decoded_to_is_refused() -> None:
    message_type("bytes")(Bytes)

    (found,) = [each for each in run_checks() if str(each.id).startswith("django_sked.")]

    assert found.id == "django_sked.E041"
    assert "The message type of 'bytes': Bytes.data: JSON cannot be decoded to <class 'bytes'>" in found.msg


@pytest.mark.usefixtures("message_types")
def test_versions_that_nothing_upcasts_are_warned_of() -> None:
    message_type("text", version=4)(Text)
    upcast("text", from_version=2)(lambda payload: payload)

    (found,) = [each for each in run_checks() if str(each.id).startswith("django_sked.")]

    assert found.id == "django_sked.W040"
    assert "Messages of 'text' of version 1, 3 could not be delivered any more" in found.msg
