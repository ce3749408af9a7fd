"""The same, with the admin: for what is measured through its pages."""

from __future__ import annotations

from tests.performance import settings
from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as _ALL

INSTALLED_APPS = [*_ALL, "tests.performance"]
DATABASE_ROUTERS = settings.DATABASE_ROUTERS
