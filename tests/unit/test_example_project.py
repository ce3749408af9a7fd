"""The example shop runs on a store that is no database, by one environment variable."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.servers import empty

ROOT = Path(__file__).parents[2]
STORES = [pytest.param(store, id=alias) for alias, store in settings.SKED_TEST_STORES.items() if store is not None]


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
def test_the_demo_runs_on_it(store: dict[str, Any], tmp_path: Path) -> None:
    empty(store)
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SHOP_MESSAGES": store["LOCATION"],
        "SHOP_SQLITE_FILE": str(tmp_path / "shop.sqlite3"),
    }
    command = [sys.executable, "example_project/manage.py", "demo", "--seconds=6", "--port=8300"]

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    empty(store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Stopped. \d\d+ messages were delivered.", done.stdout)
    both_branches = ("gift_card.ship", "gift_card.refund", "gift_card.notify")
    for event in ("order.placed", "offer.weekend", "order.paid", "customer.welcome", *both_branches):
        assert re.search(rf"delivered +{event}", done.stdout), event
    assert "Traceback" not in done.stdout + done.stderr
