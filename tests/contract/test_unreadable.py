"""P32: a row that cannot be read is set aside with the reason, and stops nobody else."""

from __future__ import annotations

import pytest
from django.db import connections

from django_sked.exceptions import SkedError
from django_sked.states import Answer
from tests.contract.store import T0, Store, after

pytestmark = pytest.mark.needs("database")


def spoil(store: Store, pk: object, column: str, value: str) -> None:
    connection = connections[store.database]
    id = str(pk) if connection.features.has_native_uuid_field else str(pk).replace("-", "")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE django_sked_scheduledmessage SET {column} = %s WHERE id = %s", [value, id])


def test_an_unreadable_payload_holds_up_no_other_message(store: Store) -> None:
    bad = store.schedule("bad", at=T0)
    good = store.schedule("good", at=after(seconds=1))
    spoil(store, bad.pk, "payload", "[" + "1" * 5000 + "]")  # more digits than Python converts

    claimed = store.claim(now=after(seconds=2))

    assert [message.pk for message in claimed] == [good.pk]
    row = store.rows.filter(pk=bad.pk).values("status", "reason", "next_at").get()
    assert row["status"] == "scheduled"
    assert row["reason"].startswith("cannot be read")
    assert row["next_at"] > after(minutes=59)


def test_an_unreadable_message_expires_as_any_other_and_holds_up_none(store: Store) -> None:
    bad = store.schedule("bad", at=after(hours=1), expires_at=after(hours=2))
    good = store.schedule("good", at=after(hours=1), expires_at=after(hours=3))
    spoil(store, bad.pk, "payload", "[" + "1" * 5000 + "]")

    ended = store.backend.expire(now=after(hours=4))

    assert [(message.pk, message.status, message.finished_at) for message in ended] == [
        (good.pk, "expired", after(hours=4))
    ]
    rows = store.rows.filter(pk__in=[bad.pk, good.pk]).values_list("status", "finished_at")
    assert list(rows) == [("expired", after(hours=4))] * 2
    assert store.backend.expire(now=after(hours=4)) == []


def test_a_message_of_unknown_status_is_left_alone_and_verbs_say_so(store: Store) -> None:
    odd = store.schedule("odd", at=T0)
    good = store.schedule("good", at=T0)
    spoil(store, odd.pk, "status", "zzz")

    assert [message.pk for message in store.claim(now=T0)] == [good.pk]
    for verb in ("cancel", "hold", "resume", "make_due"):
        answer = getattr(store.objects, verb)(id=odd.pk, backend=store.alias)
        assert answer in (Answer.FINISHED, Answer.NOT_HELD), verb
        assert not answer


def test_errors_that_are_no_list_do_not_stop_a_settle(store: Store) -> None:
    message = store.schedule("e", at=T0)
    (claimed,) = store.claim(now=T0)
    spoil(store, message.pk, "errors", '{"a": 1}')

    settled = store.settle(claimed, "retry", now=T0, delay=5.0, errors=[{"attempt": 1, "text": "boo"}])

    assert message.pk in settled.written
    assert store.find(message).errors == [{"attempt": 1, "text": "boo"}]


def test_a_key_that_is_handed_on_meanwhile_is_followed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.schedule("first", key="k")
    backend = store.backend
    change_one = backend.change_one

    def too_late_for_the_first(id: object, verb: object, **kwargs: object) -> Answer:
        if id == first.pk:
            store.schedule("second", key="k", on_conflict="replace")
        return change_one(id, verb, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(backend, "change_one", too_late_for_the_first)

    assert store.objects.hold(key="k", backend=store.alias) is Answer.HELD
    assert store.objects.find(key="k", backend=store.alias).event == "second"


def test_a_verb_by_a_key_that_nobody_holds_says_so(store: Store) -> None:
    assert store.objects.cancel(key="nobody", backend=store.alias) is Answer.NOT_FOUND
    with pytest.raises(SkedError):
        store.objects.cancel(backend=store.alias)
