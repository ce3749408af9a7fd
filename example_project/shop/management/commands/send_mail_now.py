from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from django_sked.worker import Worker


class Command(BaseCommand):
    help = "Deliver the e-mails that are due, with a worker inside this very program."

    def handle(self, **options: Any) -> None:
        with Worker(queues={"mail": 2}, burst=True) as worker:
            worker.wait()
        self.stdout.write("No e-mail is due any more.")
