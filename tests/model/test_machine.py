"""Every store does what the book says, whatever the steps and their order."""

from __future__ import annotations

import pytest

from django_sked.backends.base import BaseBackend
from tests.model import campaign
from tests.model.pair import emptied

pytestmark = pytest.mark.slow


def test_a_store_agrees_with_the_book_after_every_step(backend: BaseBackend) -> None:
    campaign.run(lambda retention: emptied(backend, retention))
