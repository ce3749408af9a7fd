from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class SkedConfig(AppConfig):
    name = "django_sked"
    verbose_name = _("Scheduled messages")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django_sked import log
        from django_sked.checks import check_backends, check_deployment

        checks.register(check_backends)
        checks.register(check_deployment, deploy=True)
        log.connect()
        autodiscover_modules("receivers")
