"""The settings of the tests with no server and no file: for mypy, makemigrations and what else only reads models."""

from __future__ import annotations

import os

os.environ.setdefault("SKED_TEST_ONLY", "sqlite")
# mypy ends without running atexit functions: a directory would stay behind each time.
os.environ.setdefault("SKED_TEST_SQLITE", '{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}')

from tests.settings import *  # noqa: F403

# About files that several processes write to.
SILENCED_SYSTEM_CHECKS = ["django_sked.W001"]
