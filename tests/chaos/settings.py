"""Settings of the processes of a run: one store, reached as the run says, and receivers that write the ledger."""

from __future__ import annotations

import json
import os

from tests.servers import use_mysql_driver

DATABASES = json.loads(os.environ["SKED_CHAOS_DATABASES"])
if any("mysql" in entry["ENGINE"] for entry in DATABASES.values()):
    use_mysql_driver()
_ROWS = "django_sked.backends.database.DatabaseBackend"
SKED = {
    alias: {
        # Where the messages are, if they are no rows.
        **(entry.pop("SKED", None) or {"BACKEND": _ROWS, "OPTIONS": {"database": alias}}),
        # Claimed when it is due, and not ahead of it.
        "QUEUES": {"punctual": {"lookahead": 0}},
    }
    for alias, entry in DATABASES.items()
}
SKED_ALLOW_FAILPOINTS = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django_sked", "tests.chaos"]
SECRET_KEY = "only for tests"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
