"""What the shop tells other systems. Its accounts are such a system, though they live here: see `shop/webhooks.py`.

SHOP_URL=http://127.0.0.1:8000   where the shop is served; without it, the accounts are told nothing. `demo` sets it.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

#: Keys that everybody knows, for the example only: the new one, and the one that it replaces.
KEYS = ["whsec_c2hvcCBrZXkgbnVtYmVyIHR3byAoZXhhbXBsZSk=", "whsec_c2hvcCBrZXkgbnVtYmVyIG9uZSAoZXhhbXBsZSk="]


def chosen() -> dict[str, dict[str, Any]]:
    """The SKED_SINKS setting."""
    url = os.environ.get("SHOP_URL", "")
    # Webhooks need httpx, which the shop does not need otherwise.
    return accounts(url) if url and find_spec("httpx") else {}


def accounts(url: str) -> dict[str, dict[str, Any]]:
    """Tell the accounts of orders that were not paid. They are on this very machine, which has to be said."""
    return {
        "accounts": {
            "SINK": "django_sked.contrib.sinks.webhook.WebhookSink",
            "EVENTS": "order.payment_expired",
            "OPTIONS": {
                "url": f"{url}/accounts/webhook/",
                "hosts": [urlsplit(url).hostname],
                "ports": [urlsplit(url).port or 80],
                "keys": KEYS,
                "allow_http": True,
                "allowed_networks": ["127.0.0.0/8", "::1/128"],
            },
        }
    }
