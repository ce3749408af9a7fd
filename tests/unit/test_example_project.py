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
from tests.servers.base import free_port

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
    said = ""
    for seconds in (6, 30):  # a busy machine gets on more slowly
        command = [sys.executable, "example_project/manage.py", "demo", f"--seconds={seconds}", f"--port={free_port()}"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        said += done.stdout + done.stderr
        assert done.returncode == 0, said
        if not missing(done.stdout):
            break

    empty(store)
    assert missing(done.stdout) == []
    assert re.search(r"Stopped. \d\d+ messages were delivered.", done.stdout)
    assert "Traceback" not in said


def missing(said: str) -> list[str]:
    both_branches = ("gift_card.ship", "gift_card.refund", "gift_card.notify")
    wanted = ("order.placed", "offer.weekend", "order.paid", "customer.welcome", *both_branches)
    return [event for event in wanted if not re.search(rf"delivered +{event}", said)]
