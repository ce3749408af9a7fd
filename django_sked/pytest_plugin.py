"""Fixtures for pytest, where pytest-django is installed; without it there are none.

Imports nothing that needs settings: pytest loads this before there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_sked.testing import FrozenTime

if find_spec("pytest_django") is not None:
    import pytest

    @pytest.fixture
    def sked_memory() -> Iterator[None]:
        """The messages of every alias are in memory, empty at first: no database is needed."""
        from django_sked.testing import in_memory

        with in_memory():
            yield

    @pytest.fixture
    def sked_time() -> Iterator[FrozenTime]:
        """Time stands still, until `sked_time.advance(days=3)` lets it pass and delivers what becomes due."""
        from django_sked.testing import freeze

        with freeze() as frozen:
            yield frozen

    @pytest.fixture
    def sked_receiver() -> Iterator[Callable[..., None]]:
        """`sked_receiver(function, event=...)` connects a receiver until the test ends."""
        from django_sked.testing import connected

        with ExitStack() as stack:

            def connect(receiver: Callable[..., Any], event: str | list[str] | None = None, **options: Any) -> None:
                stack.enter_context(connected(receiver, event, **options))

            yield connect
