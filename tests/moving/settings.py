"""The settings of a program that a test starts: the databases that the test itself is in."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403

DATABASES = json.loads(os.environ["SKED_TEST_DATABASES"])
SKED_ALLOW_FAILPOINTS = True
