"""P19: an id of the caller's own is kept to the bit, or refused in a sentence; never stored as another one."""

from __future__ import annotations

import random
from uuid import RFC_4122, UUID

import pytest
from django.core.exceptions import ObjectDoesNotExist

from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from tests.contract.store import Store

chance = random.Random(3)
#: Of every version, as all of these have been drawn up.
PROPER = [UUID(int=chance.getrandbits(128), version=version) for version in range(1, 6) for _ in range(20)]
ANY = [UUID(int=chance.getrandbits(128)) for _ in range(200)]
#: A version that there was not yet at the time of its variant: the type of MariaDB does not take it.
ODD = UUID("03e0a813-bdc2-ae99-63d2-e49085ef3430")


def test_ids_of_every_version_are_kept_and_found(store: Store) -> None:
    assert {id.variant for id in PROPER} == {RFC_4122}

    made = ScheduledMessage.objects.schedule_many(
        [{"event": "order.paid", "id": id} for id in PROPER], backend=store.backend.alias
    )

    assert [message.pk for message in made] == PROPER
    assert [store.backend.find(id=id).pk for id in PROPER] == PROPER


def test_any_other_id_is_kept_or_refused_by_its_name_and_nothing_is_stored(store: Store) -> None:
    refused = []
    for id in [*ANY, ODD]:
        try:
            ScheduledMessage.objects.schedule("order.paid", id=id, backend=store.backend.alias)
        except InvalidMessage as error:
            assert str(id) in str(error)
            refused.append(id)
        else:
            assert store.backend.find(id=id).pk == id
    for id in refused:
        with pytest.raises(ObjectDoesNotExist):
            store.backend.find(id=id)
    assert set(store.backend.find_many([*ANY, ODD])) == {*ANY, ODD} - set(refused)

    if refused:
        assert ODD in refused
        with pytest.raises(InvalidMessage, match=str(ODD)):
            ScheduledMessage.objects.schedule_many(
                [{"event": "many", "id": id} for id in (UUID(int=1), ODD)], backend=store.backend.alias
            )
        with pytest.raises(ObjectDoesNotExist):
            store.backend.find(id=UUID(int=1))
