from __future__ import annotations

from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self) -> None:
        # `receivers.py` needs no line here: django-sked imports it, as the admin imports `admin.py`.
        from shop import facts  # noqa: F401
