"""A copy of what was encrypted is encrypted, too; and what no key opens is not copied."""

from __future__ import annotations

import pytest

from django_sked.exceptions import NotOpened
from django_sked.states import Status
from tests.cipher.conftest import NEW, OLD, OTHER, SECRET, Configure, dump
from tests.contract.store import Store


def test_a_redelivered_message_is_encrypted(store: Store) -> None:
    ended = store.in_status(Status.DELIVERED, payload={"name": SECRET})

    copy = ended.redeliver()

    assert store.find(copy).payload == {"name": SECRET}
    assert SECRET not in dump(store)


def test_what_no_key_opens_is_not_redelivered_unless_with_another_payload(configure: Configure) -> None:
    ended = configure([OLD]).in_status(Status.DELIVERED, payload={"name": SECRET})
    store = configure([OTHER])

    with pytest.raises(NotOpened, match=str(ended.pk)):
        store.find(ended).redeliver()
    copy = store.find(ended).redeliver(payload={"name": "Ada"})

    assert (store.search().count(), store.find(copy).payload) == (2, {"name": "Ada"})
    assert configure([NEW, OLD]).find(ended).payload == {"name": SECRET}
