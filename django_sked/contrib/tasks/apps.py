from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class SkedTasksConfig(AppConfig):
    name = "django_sked.contrib.tasks"
    label = "sked_tasks"
    verbose_name = _("Scheduled tasks")

    def ready(self) -> None:
        from django_sked.contrib.tasks import receivers

        receivers.connect_facts()
        autodiscover_modules("tasks")
        receivers.discover()
