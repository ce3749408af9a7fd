"""Messages about an object: found by it, and cancelled when it is deleted, where that was declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models.signals import class_prepared, post_delete
from django.test.utils import isolate_apps

from django_sked import subjects
from django_sked.cancelling import cancels_messages
from django_sked.exceptions import InvalidMessage, NotSupported
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.contract.store import Store
from tests.testapp.models import Note


def note(id: int = 42) -> Note:
    """An object that need not be stored anywhere."""
    return Note(pk=id, text="x")


def test_a_message_keeps_what_it_is_about(store: Store) -> None:
    found = store.find(store.schedule(subject=note()))

    assert (found.subject_type, found.subject_id) == ("testapp.note", "42")
    assert (store.find(store.schedule()).subject_type, store.find(store.schedule()).subject_id) == (None, None)


def test_many_may_each_have_their_own(store: Store) -> None:
    stored = store.schedule_many([{"event": "e", "subject": note(n), "delay": 60} for n in (1, 1, 2)])

    assert [store.find(message).subject_id for message in stored] == ["1", "1", "2"]


@pytest.mark.needs("supports_subjects")
def test_the_messages_of_an_object_are_found_and_changed(store: Store) -> None:
    mine = [store.schedule(subject=note()), store.in_status(Status.DELIVERED, subject=note())]
    other = store.schedule(subject=note(4))
    store.schedule()

    found = store.objects.for_object(note(), backend=store.alias)

    assert set(found) == set(mine)
    assert found.count() == 2
    assert store.objects.for_object(note(), backend=store.alias).cancel(reason="paid") == 1
    assert (store.status(mine[0]), store.status(other)) == (Status.CANCELLED, Status.SCHEDULED)


def test_where_they_cannot_be_found_that_is_said(store: Store) -> None:
    if store.backend.supports_subjects:
        pytest.skip("they can")
    with pytest.raises(NotSupported, match="cannot search for the messages about an object"):
        store.objects.for_object(note(), backend=store.alias)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (42, "subject must be an object of a model, not 42."),
        (Note, "subject must be an object of a model, not"),
        (Note(text="x"), "subject must be stored before a message can be about it"),
        (Note(pk="x" * 65), "subject must have a primary key of at most 64 characters"),
    ],
)
def test_what_cannot_be_a_subject_is_refused(subject: object, text: str, store: Store) -> None:
    with pytest.raises(InvalidMessage, match=text):
        store.schedule(subject=subject)

    assert store.search().count() == 0


@pytest.mark.django_db
def test_the_object_is_read_from_its_table() -> None:
    user = User.objects.create_user("ada")
    message = ScheduledMessage.objects.schedule("e", subject=user)

    assert ScheduledMessage.objects.get(pk=message.pk).subject == user
    user.delete()
    assert message.subject is None
    assert ScheduledMessage(subject_type="gone.model", subject_id="1").subject is None
    assert ScheduledMessage(subject_type="auth.user", subject_id="x").subject is None
    assert ScheduledMessage().subject is None


# With the object


def proxy(name: str) -> Any:
    meta = type("Meta", (), {"proxy": True, "app_label": "testapp"})
    with isolate_apps("tests.testapp"):
        return type(name, (Note,), {"__module__": __name__, "Meta": meta})


EARLIER = proxy("Earlier")


@pytest.fixture
def declared() -> Iterator[type[models.Model]]:
    signals = (post_delete, class_prepared)
    before = [list(signal.receivers) for signal in signals]
    yield cancels_messages(Note)
    for signal, receivers in zip(signals, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("by_query", [False, True])
def test_with_an_object_its_live_messages_end(by_query: bool) -> None:
    stored, other = Note.objects.create(text="x"), Note.objects.create(text="y")
    schedule = ScheduledMessage.objects.schedule
    mine, in_memory = schedule("e", delay=60, subject=stored), schedule("e", delay=60, subject=stored, backend="memory")
    others = schedule("e", delay=60, subject=other)

    if by_query:
        Note.objects.filter(pk=stored.pk).delete()
    else:
        pk = stored.pk
        stored.delete()
        assert pk is not None

    mine.refresh_from_db()
    in_memory.refresh_from_db()
    others.refresh_from_db()
    assert (mine.status, in_memory.status, others.status) == (Status.CANCELLED, Status.CANCELLED, Status.SCHEDULED)
    assert mine.reason == f"testapp.note {mine.subject_id} was deleted"


@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.usefixtures("declared")
def test_a_deletion_that_is_rolled_back_cancels_nothing() -> None:
    stored = Note.objects.create(text="x")
    message = ScheduledMessage.objects.schedule("e", delay=60, subject=stored)

    with pytest.raises(RuntimeError), transaction.atomic():
        Note.objects.filter(pk=stored.pk).delete()
        raise RuntimeError

    message.refresh_from_db()
    assert message.status == Status.SCHEDULED


@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("is_earlier", [True, False])
def test_with_an_object_that_is_deleted_as_a_proxy_its_messages_end(is_earlier: bool) -> None:
    model = EARLIER if is_earlier else proxy("Later")
    stored = model.objects.create(text="x")
    message = ScheduledMessage.objects.schedule("e", delay=60, subject=stored)

    model.objects.filter(pk=stored.pk).delete()

    message.refresh_from_db()
    assert message.status == Status.CANCELLED


@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.usefixtures("declared")
def test_an_object_that_no_message_can_be_about_is_deleted_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Note.objects.create(text="x")
    monkeypatch.setattr(subjects, "LONGEST_ID", 0)

    stored.delete()

    assert not Note.objects.exists()


@pytest.mark.django_db
def test_a_model_that_declares_nothing_has_no_listener() -> None:
    assert not post_delete.has_listeners(Note)
