"""The SKED setting as checked values, and how an alias becomes a backend."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from django_sked import conf
from django_sked.backends import message_backends
from django_sked.backends.database import DatabaseBackend
from django_sked.backends.memory import MemoryBackend
from django_sked.conf import DEFAULT_RETENTION, DatabaseOptions, Options
from django_sked.exceptions import InvalidBackend
from django_sked.models import ScheduledMessage
from django_sked.retry import Exponential, Fixed
from django_sked.states import Status

MEMORY = {"BACKEND": "django_sked.backends.memory.MemoryBackend"}
DATABASE = {"BACKEND": "django_sked.backends.database.DatabaseBackend"}


def findings(setting: Any) -> list[str]:
    """The errors and warnings that the system check finds, by id."""
    with override_settings(SKED=setting):
        return [message.id or "" for message in run_checks() if (message.id or "").startswith("django_sked.E")]


def test_without_a_setting_messages_are_rows_of_the_default_database(settings: Any) -> None:
    del settings.SKED

    assert list(message_backends) == ["default"]
    assert isinstance(message_backends["default"], DatabaseBackend)
    assert message_backends["default"].database == "default"


def test_what_is_not_set_has_its_documented_default() -> None:
    options = conf.parse("default", MEMORY, Options).options

    assert (options.max_attempts, options.retry, options.timeout) == (5, Exponential(), None)
    assert (options.lease, options.poll_interval, options.batch_size) == (30.0, 1.0, 500)
    assert options.max_payload_bytes == 256 * 1024
    assert options.retention == DEFAULT_RETENTION


def test_what_is_set_is_taken() -> None:
    params = MEMORY | {
        "LOCATION": "somewhere",
        "KEY_PREFIX": "app:sked",
        "QUEUES": {"mail": {"concurrency": 4}, "default": {}},
        "OPTIONS": {"max_attempts": 3, "retry": Fixed(5), "timeout": 60, "lease": timedelta(seconds=10)},
    }

    found = conf.parse("fast", params, Options)

    assert (found.alias, found.location, found.key_prefix) == ("fast", "somewhere", "app:sked")
    assert (found.queues["mail"].concurrency, found.queues["default"].concurrency) == (4, None)
    assert (found.options.max_attempts, found.options.retry) == (3, Fixed(5))
    assert (found.options.timeout, found.options.lease) == (timedelta(minutes=1), 10.0)


def test_a_retention_changes_the_statuses_it_names_and_keeps_the_others() -> None:
    params = MEMORY | {"OPTIONS": {"retention": {"delivered": 0, Status.DEAD: None, "expired": timedelta(days=1)}}}

    retention = conf.parse("default", params, Options).options.retention

    assert retention == {
        **DEFAULT_RETENTION,
        Status.DELIVERED: timedelta(0),
        Status.DEAD: None,
        Status.EXPIRED: timedelta(days=1),
    }


def test_the_options_apply_to_what_is_scheduled() -> None:
    setting = MEMORY | {"OPTIONS": {"max_attempts": 7, "timeout": 9, "max_payload_bytes": 10}}
    with override_settings(SKED={"default": setting}):
        message = ScheduledMessage.objects.schedule("e", "12345678")

        assert (message.max_attempts, message.timeout) == (7, timedelta(seconds=9))
        with pytest.raises(ValueError, match="at most 10 bytes"):
            ScheduledMessage.objects.schedule("e", "123456789")


def test_a_database_option_must_name_a_database() -> None:
    with pytest.raises(InvalidBackend, match=r"\['database'\]: must be one of the DATABASES \(default.*not 'nowhere'"):
        conf.parse("default", DATABASE | {"OPTIONS": {"database": "nowhere"}}, DatabaseOptions)


def test_backends_are_made_once_and_anew_when_the_setting_changes() -> None:
    with override_settings(SKED={"default": MEMORY}):
        first = message_backends["default"]
        assert message_backends["default"] is first
        assert isinstance(first, MemoryBackend)
    with override_settings(SKED={"default": MEMORY}):
        assert message_backends["default"] is not first


def test_an_unknown_alias_is_refused_with_those_there_are() -> None:
    words = "'slow'; there are: default, fast"
    with override_settings(SKED={"default": MEMORY, "fast": MEMORY}), pytest.raises(InvalidBackend, match=words):
        message_backends["slow"]


def test_rows_belong_to_the_backend_of_their_database() -> None:
    with override_settings(SKED={"default": MEMORY, "rows": DATABASE | {"OPTIONS": {"database": "default"}}}):
        assert message_backends.of_database("default") is message_backends["rows"]
        assert message_backends.of_database("elsewhere") is message_backends["default"]
        assert message_backends.of_database(None) is message_backends["default"]


def test_an_unsaved_message_belongs_to_the_default_backend_whatever_its_database_is_called() -> None:
    with override_settings(SKED={"default": DATABASE}, DATABASE_ROUTERS=["tests.unit.test_conf.Elsewhere"]):
        assert message_backends["default"].database == "elsewhere"
        assert ScheduledMessage(event="e").backend is message_backends["default"]
        assert ScheduledMessage.objects.all().db == "elsewhere"


class Elsewhere:
    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "elsewhere"


def test_a_database_without_messages_is_refused() -> None:
    with override_settings(SKED={"default": DATABASE}), pytest.raises(InvalidBackend, match="'elsewhere'"):
        message_backends.of_database("elsewhere")


@pytest.mark.parametrize(
    ("setting", "ids"),
    [
        ({"default": MEMORY}, []),
        ({"default": DATABASE}, []),
        ({}, ["django_sked.E001"]),
        ({"default": MEMORY, "x": {}}, ["django_sked.E001"]),
        ({"default": MEMORY | {"OPTIONS": {"lease": 0}}}, ["django_sked.E002"]),
        ({"default": MEMORY | {"QUEUES": {"a b": {}}}}, ["django_sked.E002"]),
        ({"default": MEMORY | {"BACKEND": "json.dumps"}}, ["django_sked.E002"]),
        ({"default": MEMORY | {"BACKEND": "nowhere"}}, ["django_sked.E002"]),
        ({"default": MEMORY | {"BACKEND": "tests.unit.broken.Backend"}}, ["django_sked.E002"]),
        ({"default": MEMORY | {"BACKEND": "django_sked.backends.base.BaseBackend"}}, ["django_sked.E002"]),
        ({"default": DATABASE, "again": DATABASE}, ["django_sked.E003"]),
        ({"default": MEMORY, "x": MEMORY | {"X": 1}, "y": MEMORY | {"Y": 1}}, ["django_sked.E002", "django_sked.E002"]),
    ],
)
@pytest.mark.django_db(databases="__all__")
def test_a_wrong_setting_is_found_by_the_system_check(setting: Any, ids: list[str]) -> None:
    assert findings(setting) == ids


@pytest.mark.django_db(databases="__all__")
def test_times_without_zones_are_found_by_the_system_check() -> None:
    with override_settings(USE_TZ=False):
        assert findings({"default": DATABASE}) == ["django_sked.E006"]


def test_keys_of_a_cipher_are_checked_and_never_repeated() -> None:
    good, bad = "0" * 43 + "=", "secret-that-is-no-key"
    for value in ([bad], [good, bad], [], [7], bad, b"x", {"key": good}, good):
        with pytest.raises(InvalidBackend) as caught:
            conf.parse("default", MEMORY | {"OPTIONS": {"payload_cipher": value}}, Options)
        assert str(caught.value).startswith("SKED['default']['OPTIONS']['payload_cipher']: ")
        assert bad not in str(caught.value) and good not in str(caught.value)
    options = conf.parse("default", MEMORY | {"OPTIONS": {"payload_cipher": [good]}}, Options).options
    assert good not in repr(options)
    assert findings({"default": MEMORY | {"OPTIONS": {"payload_cipher": [bad]}}}) == ["django_sked.E002"]


@pytest.mark.parametrize("path", ["nowhere.Cipher", "tests.unit.test_conf.MEMORY", "tests.unit.test_conf.findings"])
def test_a_path_that_leads_to_no_cipher_is_found_by_the_system_check(path: str) -> None:
    assert findings({"default": MEMORY | {"OPTIONS": {"payload_cipher": path}}}) == ["django_sked.E042"]
    assert findings({"default": MEMORY | {"OPTIONS": {"payload_cipher": "tests.cipher.conftest.Reversed"}}}) == []


class Forgetful(MemoryBackend):
    """A backend of others, from before there were ciphers."""

    supports_cipher = False


def test_a_cipher_that_a_backend_does_not_use_is_found_by_the_system_check() -> None:
    cipher = {"OPTIONS": {"payload_cipher": ["0" * 43 + "="]}}

    assert findings({"default": cipher | {"BACKEND": "tests.unit.test_conf.Forgetful"}}) == ["django_sked.E042"]
    assert findings({"default": MEMORY | cipher}) == []
