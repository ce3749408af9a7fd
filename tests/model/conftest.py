"""The stores of the contract suite, one after the other."""

from __future__ import annotations

import logging

import pytest

from tests.contract.conftest import backend

__all__ = ["backend"]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of messages die in these tests."""
    caplog.set_level(logging.CRITICAL, "django_sked")
