"""The shop's database: SQLite, unless the environment says otherwise.

SHOP_DATABASE=postgresql   PostgreSQL, found through the usual PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE
SHOP_SQLITE_FILE=path      another SQLite file
SHOP_SQLITE_PLAIN=1        SQLite as `startproject` leaves it, without the OPTIONS that we recommend
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parents[2]

SQLITE_PLAIN: dict[str, Any] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": os.environ.get("SHOP_SQLITE_FILE", BASE_DIR / "db.sqlite3"),
}

# A writer waits for the other writer, up to 20 seconds, and readers wait for nobody.
SQLITE = SQLITE_PLAIN | {
    "OPTIONS": {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    },
}

POSTGRESQL: dict[str, Any] = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": os.environ.get("PGDATABASE", "shop"),
    "USER": os.environ.get("PGUSER", ""),
    "PASSWORD": os.environ.get("PGPASSWORD", ""),
    "HOST": os.environ.get("PGHOST", ""),
    "PORT": os.environ.get("PGPORT", ""),
}


def chosen() -> dict[str, Any]:
    """The database that the environment asks for."""
    if os.environ.get("SHOP_DATABASE", "sqlite") == "postgresql":
        return POSTGRESQL
    return SQLITE_PLAIN if os.environ.get("SHOP_SQLITE_PLAIN") == "1" else SQLITE
