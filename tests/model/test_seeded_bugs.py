"""The machine catches every store that breaks a promise. `pytest -rP` shows by which invariant."""

from __future__ import annotations

from typing import cast

import pytest

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from tests.model import campaign
from tests.model.agreement import Violation
from tests.model.bug import Bug
from tests.model.pair import emptied
from tests.model.seeded_bugs import BUGS, DATABASE_BUGS

#: Programs after which a broken store counts as one that passes.
EXAMPLES = 480


def _hunt(store: BaseBackend, bug: type[Bug]) -> None:
    with pytest.raises(Violation) as caught:
        campaign.hunt(lambda retention: cast(BaseBackend, bug(emptied(store, retention))), examples=EXAMPLES)
    print(f"{bug.__name__}: {caught.value}")


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_broken_store_is_caught(bug: type[Bug]) -> None:
    _hunt(message_backends["memory"], bug)


@pytest.mark.django_db(transaction=True, databases=["default"], available_apps=["django_sked", "tests.testapp"])
@pytest.mark.parametrize("bug", DATABASE_BUGS, ids=lambda bug: bug.__name__)
def test_a_broken_database_is_caught(bug: type[Bug]) -> None:
    _hunt(message_backends["default"], bug)
