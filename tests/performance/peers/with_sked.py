"""django-sked, with its default settings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.management import call_command
from django.dispatch import receiver

from tests.performance.peers.program import DATABASE, Program, hit, main, seconds

_url = urlsplit(DATABASE)
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django_sked"],
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _url.path[1:],
            "USER": _url.username,
            "HOST": _url.hostname,
            "PORT": _url.port,
        }
    },
)
django.setup()

from django_sked.models import ScheduledMessage  # noqa: E402
from django_sked.signals import message_due  # noqa: E402


@receiver(message_due, event="peers")
def receive(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    hit(message.payload["i"], message.payload["due"])


class Sked(Program):
    def prepare(self) -> None:
        call_command("migrate", verbosity=0)

    def put(self, number: int, due: datetime | None = None) -> None:
        ScheduledMessage.objects.schedule("peers", {"i": number, "due": seconds(due)}, at=due)

    def put_many(self, numbers: Sequence[int]) -> None:
        ScheduledMessage.objects.schedule_many(
            {"event": "peers", "payload": {"i": number, "due": 0.0}} for number in numbers
        )

    def work(self) -> None:
        call_command("sked_worker", verbosity=0)


if __name__ == "__main__":
    main(Sked())
