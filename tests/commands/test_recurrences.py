"""`sked_pause --recurrence` and `sked_resume --recurrence`."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from django_sked import clock
from django_sked.models import Recurrence

pytestmark = pytest.mark.django_db(databases="__all__")


def run(*arguments: str) -> str:
    output = StringIO()
    call_command(*arguments, stdout=output)
    return output.getvalue().strip()


def test_a_recurrence_is_paused_and_resumed_each_with_its_reason() -> None:
    Recurrence.objects.create("digest", every=60)
    assert run("sked_pause", "--recurrence", "digest", "--reason", "no paper") == "The recurrence digest is paused."
    stored = Recurrence.objects.get()
    assert (stored.status, stored.reason) == ("paused", "no paper")
    assert run("sked_pause", "--recurrence", "digest") == "The recurrence digest was not active."
    assert run("sked_resume", "--recurrence", "digest", "--reason", "paper") == "The recurrence digest goes on."
    stored = Recurrence.objects.get()
    assert (stored.status, stored.reason) == ("active", "paper")
    assert run("sked_resume", "--recurrence", "digest") == "The recurrence digest is active."


def test_a_recurrence_without_more_ticks_does_not_go_on() -> None:
    recurrence = Recurrence.objects.create("digest", cron="0 9 * * *")
    recurrence.pause()
    Recurrence.objects.filter(pk=recurrence.pk).update(end_at=clock.now())
    assert run("sked_resume", "--recurrence", "digest") == "The recurrence digest has no more ticks."


@pytest.mark.parametrize("command", ["sked_pause", "sked_resume"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--recurrence", "other"), "The backend 'default' has no recurrence 'other'"),
        (("--recurrence", "digest", "--backend", "nowhere"), "nowhere"),
        (("mail", "--recurrence", "digest"), "not allowed with argument"),
        ((), "one of the arguments"),
    ],
)
def test_what_a_command_cannot_do_is_refused(command: str, arguments: tuple[str, ...], text: str) -> None:
    Recurrence.objects.create("digest", every=60)
    with pytest.raises(CommandError, match=text):
        call_command(command, *arguments)
    assert Recurrence.objects.get().status == "active"


def test_options_of_queues_and_of_recurrences_are_kept_apart() -> None:
    Recurrence.objects.create("digest", every=60)
    with pytest.raises(CommandError, match="--until is for queues"):
        run("sked_pause", "--recurrence", "digest", "--until", "2h")
    with pytest.raises(CommandError, match="--reason is for recurrences"):
        run("sked_resume", "mail", "--reason", "paper")
