"""Where the shop keeps its messages: in its database, unless the environment says otherwise.

SHOP_MESSAGES=redis://localhost:6379/0   in Redis or Valkey, except those that are "books"
"""

from __future__ import annotations

import os
from typing import Any

LOCATION = os.environ.get("SHOP_MESSAGES", "")
DATABASE: dict[str, Any] = {"BACKEND": "django_sked.backends.database.DatabaseBackend"}
REDIS: dict[str, Any] = {"BACKEND": "django_sked.backends.redis.RedisBackend", "LOCATION": LOCATION}


def chosen(**settings: Any) -> dict[str, dict[str, Any]]:
    """The SKED setting. What must be one transaction with its receiver stays in the database: the alias "books"."""
    if LOCATION:
        return {"default": REDIS | settings, "books": DATABASE}
    return {"default": DATABASE | settings}
