"""Where the tests' tables are made."""

from __future__ import annotations

from typing import Any


class OnlyOurs:
    """Our own apps have tables in every database, contrib's in `default`: that saves seconds at each start."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return None if db == "default" or app_label in {"django_sked", "testapp"} else False
