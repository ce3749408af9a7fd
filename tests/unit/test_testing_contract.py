"""The contract that is shipped for backends of others, on ours."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.backends.memory import MemoryBackend
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


# A suite that no backend fails says nothing: these do, each at what it does wrong.


class Early(MemoryBackend):
    def claim(self, *args: Any, now: Any = None, **kwargs: Any) -> Any:
        return super().claim(*args, now=now + timedelta(milliseconds=1), **kwargs)


class Forgetful(MemoryBackend):
    def find(self, **which: Any) -> Any:
        found = super().find(**which)
        found.payload = None
        return found


class Fenceless(MemoryBackend):
    def settle(self, outcomes: Any, **options: Any) -> Any:
        for outcome in outcomes:
            outcome.token = self.find(id=outcome.id).token
        return super().settle(outcomes, **options)


class Merciless(MemoryBackend):
    def rescue(self, *, now: Any = None, **options: Any) -> Any:
        return super().rescue(now=now + timedelta(hours=1), **options)


class Immortal(MemoryBackend):
    def expire(self, **options: Any) -> Any:
        return []

    def prune(self, **options: Any) -> int:
        return 0


@pytest.mark.parametrize(
    ("cls", "fails"),
    [
        (Early, "test_nothing_is_claimed_before_its_time"),
        (Forgetful, "test_what_is_scheduled_comes_back_equal"),
        (Fenceless, "test_only_the_last_token_settles"),
        (Merciless, "test_a_worker_with_a_lease_keeps_what_it_holds"),
        (Immortal, "test_a_message_expires"),
        (Immortal, "test_what_is_past_its_retention_is_pruned"),
    ],
)
def test_a_backend_that_breaks_a_promise_fails(cls: type[MemoryBackend], fails: str) -> None:
    with override_settings(SKED={"default": {"BACKEND": f"{__name__}.{cls.__name__}"}}):
        message_backends.reset()
        with pytest.raises(AssertionError):
            getattr(BackendContract(), fails)()
