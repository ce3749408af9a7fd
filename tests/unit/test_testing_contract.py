"""The contract that is shipped for backends of others, on ours."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings

from django_sked.backends import message_backends
from django_sked.testing import BackendContract
from tests.contract.conftest import _parameters
from tests.servers import empty


class TestContract(BackendContract):
    @pytest.fixture(autouse=True, params=_parameters())
    def store(self, request: Any) -> Any:
        message_backends.reset()
        if server := settings.SKED_TEST_STORES.get(request.param):
            empty(server)
        self.alias = request.param
        yield
        message_backends.reset()
