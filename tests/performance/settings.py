"""The tests' databases and nothing else that costs time."""

from __future__ import annotations

from tests.settings import *  # noqa: F403

INSTALLED_APPS = ["django.contrib.contenttypes", "django_sked", "tests.performance"]
DATABASE_ROUTERS = []
ROOT_URLCONF = "tests.performance.urls"
