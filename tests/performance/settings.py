"""The tests' databases and nothing else that costs time."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403
from tests.settings import SKED

if store := os.environ.get("SKED_PERFORMANCE_STORE"):
    SKED = {"default": SKED[store]}
if lookahead := os.environ.get("SKED_PERFORMANCE_LOOKAHEAD"):
    SKED["default"]["QUEUES"] = {"default": {"lookahead": float(lookahead)}}

INSTALLED_APPS = ["django.contrib.contenttypes", "django_sked", "tests.performance"]
DATABASE_ROUTERS = []
ROOT_URLCONF = "tests.performance.urls"
