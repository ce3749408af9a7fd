"""A store between a caller and a real one."""

from __future__ import annotations

from typing import Any

from django_sked.backends.base import BaseBackend


class Wrapper:
    """Answers everything as the store inside does, save what a subclass does otherwise."""

    def __init__(self, store: BaseBackend) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)
