from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class SkedConfig(AppConfig):
    name = "django_sked"
    verbose_name = _("Scheduled messages")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django_sked import failpoints, log
        from django_sked.checks import (
            check_backends,
            check_deployment,
            check_recurrences,
            check_stored_recurrences,
            check_types,
        )
        from django_sked.contrib.sinks import routing
        from django_sked.contrib.sinks.checks import check_open_sinks, check_sinks

        checks.register(check_backends)
        checks.register(check_deployment, deploy=True)
        checks.register(check_recurrences)
        checks.register(check_types)
        checks.register(check_stored_recurrences, checks.Tags.database)
        checks.register(check_sinks)
        checks.register(check_open_sinks, deploy=True)
        routing.routes.connect()
        log.connect()
        failpoints.set_from_environment()
        post_migrate.connect(_after_migrate, sender=self, dispatch_uid="django_sked.sync")
        autodiscover_modules("receivers")


def _after_migrate(using: str, **kwargs: Any) -> None:
    """What the code declares becomes rows. Not while tests make or empty their databases: they call `sked_sync`."""
    from django.test import utils

    from django_sked import syncing

    if not hasattr(utils._TestState, "saved_data") and syncing.is_ready(using):
        syncing.sync(database=using)
