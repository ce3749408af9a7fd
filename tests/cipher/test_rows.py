"""What a QuerySet must not do to what is encrypted: write it in the clear, or search in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as configured
from django.db import connection
from django.db.models import Case, F, JSONField, QuerySet, Value, When

from django_sked.exceptions import NotSupported
from django_sked.models import Recurrence, ScheduledMessage
from tests.cipher.conftest import NEW, OLD, SECRET, Configure, dump

CARRIED = {"name": SECRET}
Cipher = Callable[..., None]


@pytest.fixture
def cipher(db: None, settings: Any) -> Cipher:
    """`cipher(key, ...)`: of the memory backend, whose recurrences are in a database without one."""

    def begin(*keys: str) -> None:
        plain = {"BACKEND": "django_sked.backends.database.DatabaseBackend"}
        memory = configured.SKED["memory"] | {"OPTIONS": {"payload_cipher": list(keys) or None}}
        settings.SKED = {"default": plain, "memory": memory}

    return begin


@pytest.fixture
def recurrence(cipher: Cipher) -> Iterator[Recurrence]:
    cipher(NEW)
    yield Recurrence.objects.create("r", every=60, payload={"name": "first"}, backend="memory")


def stored() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT payload FROM django_sked_recurrence")
        return repr(cursor.fetchall())


def test_recurrences_cannot_be_given_a_payload_past_the_cipher_of_their_backend(recurrence: Recurrence) -> None:
    recurrence.payload = CARRIED
    rows = Recurrence.objects.all()
    writes: list[Callable[[], Any]] = [
        lambda: rows.update(payload=CARRIED),
        lambda: rows.filter(name="r").update(queue="q", payload=Value(CARRIED, JSONField())),
        lambda: rows.bulk_update([recurrence], ["queue", "payload"]),
        lambda: Recurrence.objects.of(recurrence.store).update(payload=None),
    ]
    for write in writes:
        with pytest.raises(NotSupported, match=r"payload.*save\(\)"):
            write()
    assert SECRET not in stored()
    assert rows.update(queue="mail") == 1
    assert rows.bulk_update([recurrence], ["queue"]) == 1
    recurrence.payload = CARRIED
    recurrence.save()
    assert SECRET not in stored()
    assert rows.get().payload == CARRIED


def test_recurrences_cannot_be_searched_by_what_is_encrypted(recurrence: Recurrence) -> None:
    rows = Recurrence.objects.all()
    for found in (
        rows.filter(payload__name="first"),
        rows.exclude(payload__name="first"),
        rows.filter(payload={"name": "first"}),
        rows.filter(payload__has_key="name"),
        rows.filter(payload__name__a__startswith="f"),
        rows.annotate(carried=F("payload")).filter(carried__name="first"),
        rows.values("payload__name"),
        rows.order_by("payload__name"),
    ):
        with pytest.raises(NotSupported, match="cannot be searched"):
            list(found)
    assert rows.filter(payload__isnull=False).get().payload == {"name": "first"}
    # Rows of a backend without a cipher, in the same database.
    assert ScheduledMessage.objects.filter(payload__name="first").count() == 0


def test_without_a_cipher_recurrences_are_searched_and_updated_as_ever(cipher: Cipher) -> None:
    cipher()
    Recurrence.objects.create("r", every=60, payload={"name": "first"})

    assert Recurrence.objects.filter(payload__name="first").update(payload=CARRIED) == 1
    assert Recurrence.objects.get(payload__name=SECRET).payload == CARRIED


def test_a_recurrence_that_gets_another_backend_is_encrypted_by_the_cipher_of_that(cipher: Cipher) -> None:
    cipher(NEW)
    recurrence = Recurrence.objects.create("r", every=60, payload=CARRIED)
    assert SECRET in stored()

    recurrence.backend = "memory"
    recurrence.save()
    assert SECRET not in stored()
    recurrence.refresh_from_db()
    assert (recurrence.backend, recurrence.payload) == ("memory", CARRIED)

    cipher(OLD, NEW)
    recurrence.backend, recurrence.timezone = "default", "Europe/Berlin"
    recurrence.save()
    assert SECRET in stored()
    recurrence.refresh_from_db()
    assert (recurrence.backend, recurrence.payload) == ("default", CARRIED)


def test_an_expression_cannot_write_past_the_cipher(configure: Configure) -> None:
    store = configure([NEW])
    if store.backend.database is None:
        pytest.skip("its messages are no rows")
    message = store.schedule(payload={"name": "first"})
    rows: QuerySet[ScheduledMessage] = QuerySet(ScheduledMessage, using=store.backend.database)
    for payload in (
        Value(CARRIED, JSONField()),
        Value(f'"{SECRET}"'),
        Case(When(pk=message.pk, then=Value(CARRIED, JSONField())), default=F("payload")),
        F("metadata"),
    ):
        with pytest.raises(NotSupported, match="expression"):
            rows.update(payload=payload)
    assert SECRET not in dump(store)

    assert rows.update(payload=F("payload")) == 1
    assert store.find(message).payload == {"name": "first"}
    sealed = Value(CARRIED, ScheduledMessage._meta.get_field("payload"))
    assert rows.update(payload=Case(When(pk=message.pk, then=sealed), default=F("payload"))) == 1
    assert store.find(message).payload == CARRIED
    message.payload = [SECRET]
    assert rows.bulk_update([message], ["payload"]) == 1
    assert store.find(message).payload == [SECRET]
    assert SECRET not in dump(store)
    assert rows.update(payload=None) == 1
