"""Workers and receivers as in the tests of the worker, and a way to ask a port."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from tests.worker.conftest import database, memory, receive, start

__all__ = ["database", "memory", "receive", "start"]

Get = Callable[[int, str], tuple[int, str]]


@pytest.fixture
def get() -> Get:
    """`get(port, path)`: status and text."""

    def ask(port: int, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return ask
