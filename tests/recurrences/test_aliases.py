"""A declaration that moves from one alias of SKED to another takes with it what it has come to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import override_settings

from django_sked import clock, failpoints, recurring, syncing
from django_sked.backends import message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.signals import message_due
from django_sked.testing import TickedWorker, connected
from django_sked.worker.promoter import Promoter
from tests.recurrences.conftest import T0, at, seconds

ELSEWHERE = [alias for alias in settings.DATABASES if alias != "default"][:1]
#: Aliases that keep their recurrences in the database of `default`, and one that has another, where there is one.
#: "a-memory" comes before "default", and "z-memory" after it, in whatever order they are looked at.
OTHERS = ["a-memory", "z-memory", *ELSEWHERE]

pytestmark = [
    pytest.mark.django_db(transaction=True, databases="__all__", available_apps=["django_sked", "tests.testapp"]),
]


@pytest.fixture(autouse=True)
def _aliases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recurring, "_declared", {})
    memory = {"BACKEND": "django_sked.backends.memory.MemoryBackend"}
    stores = {alias: settings.SKED[alias] for alias in ["default", *ELSEWHERE]}
    with override_settings(SKED={"a-memory": memory, **stores, "z-memory": memory}):
        yield
    message_due.disconnect(dispatch_uid="uid-digest")
    message_backends.reset()


def declare(alias: str, **arguments: Any) -> None:
    recurring._declared.clear()
    message_due.disconnect(dispatch_uid="uid-digest")

    @recurring.recurring("digest", backend=alias, dispatch_uid="uid-digest", **({"every": 60} | arguments))
    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        if isinstance(message.payload, int):
            message.next_payload = message.payload + 1


def sync(now: datetime, **options: Any) -> syncing.Report:
    with clock.pretend(now):
        return syncing.sync(**options)


def run(alias: str, start: int, end: int) -> list[ScheduledMessage]:
    """Promote and deliver each second."""
    delivered = []
    for second in range(start, end + 1):
        with clock.pretend(at(seconds=second)):
            Promoter(message_backends[alias]).step(at(seconds=second))
            delivered += TickedWorker(alias).tick(at(seconds=second))
    return delivered


def row_of(alias: str) -> Recurrence:
    return Recurrence.objects.of(message_backends[alias]).get()


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("prune", [True, False])
@pytest.mark.parametrize("back", [False, True], ids=["from default", "to default"])
def test_it_goes_on_under_the_other_alias_with_its_counts_and_its_next_payload(
    other: str, back: bool, prune: bool
) -> None:
    before, after = (other, "default") if back else ("default", other)
    declare(before, payload=0, stateful=True)
    sync(T0, prune=prune)
    run(before, 1, 62)

    declare(after, payload=0, stateful=True)
    report = sync(at(seconds=63), prune=prune)

    assert report.changed == ["digest"] and report.created == []
    stored = row_of(after)
    assert (stored.status, stored.payload, stored.occurrences, stored.successes) == ("active", 1, 1, 1)
    assert [(seconds(message), message.payload) for message in run(after, 64, 182)] == [(120.0, 1), (180.0, 2)]
    assert run(before, 183, 245) == []


def test_what_the_last_occurrence_said_just_before_is_read(other: str) -> None:
    declare("default", payload=0, stateful=True)
    sync(T0)
    run("default", 1, 59)
    TickedWorker("default").tick(at(seconds=60))  # settled, and no promoter has looked

    declare(other, payload=0, stateful=True)
    sync(at(seconds=61))

    assert (row_of(other).payload, row_of(other).successes) == (1, 1)


def test_a_tick_that_was_made_ahead_is_delivered_where_it_is_and_made_nowhere_else(other: str) -> None:
    declare("default")
    sync(T0)
    run("default", 1, 58)

    declare(other)
    sync(at(seconds=58))

    # In whatever order the workers of both look.
    made = [*run(other, 59, 62), *run("default", 59, 62)]
    assert [seconds(message) for message in made] == [60.0]
    assert [seconds(message) for message in run(other, 63, 121)] == [120.0]
    assert row_of(other).failures == 0


def test_a_tick_between_the_last_look_and_the_move_is_not_lost(other: str) -> None:
    declare("default")
    sync(T0)
    declare(other)
    sync(at(seconds=61))
    assert [seconds(message) for message in run(other, 62, 62)] == [60.0]


def test_a_next_payload_that_was_not_declared_goes_along(other: str) -> None:
    declare("default", payload=0)
    sync(T0)
    run("default", 1, 182)

    declare(other, payload=0)
    sync(at(seconds=183))

    assert (row_of(other).payload, row_of(other).stateful) == (3, True)
    assert sync(at(seconds=184)).changed == []


class Death(BaseException):
    pass


@pytest.mark.parametrize("moment", [58, 61])
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_tick_whose_promoter_was_overtaken_by_a_move_comes_once(
    monkeypatch: pytest.MonkeyPatch, moment: int, is_killed: bool
) -> None:
    declare("a-memory")
    sync(T0)

    def overtaken(name: str) -> None:
        context.undo()
        declare("default")
        sync(at(seconds=moment))
        if is_killed:
            raise Death

    with monkeypatch.context() as context, clock.pretend(at(seconds=moment)), suppress(Death):
        context.setattr(failpoints, "hit", overtaken)
        Promoter(message_backends["a-memory"]).step(at(seconds=moment))

    assert row_of("default").next_tick_at == at(seconds=120)
    made = [*run("a-memory", 59, 64), *run("default", 59, 121)]
    assert [seconds(message) for message in made] == [60.0, 120.0]


def test_what_people_have_paused_or_ended_stays_so(other: str) -> None:
    declare("default")
    sync(T0)
    with clock.pretend(T0):
        row_of("default").pause(reason="holidays")

    declare(other)
    sync(at(seconds=1), prune=True)

    assert (row_of(other).status, row_of(other).reason) == ("paused", "holidays")


def test_a_move_that_is_taken_back_takes_the_state_back(other: str) -> None:
    declare("default", payload=0, stateful=True)
    sync(T0)
    run("default", 1, 62)
    declare(other, payload=0, stateful=True)
    sync(at(seconds=63))
    run(other, 64, 122)

    declare("default", payload=0, stateful=True)
    sync(at(seconds=123))

    stored = row_of("default")
    assert (stored.status, stored.payload, stored.successes, stored.orphaned_at) == ("active", 2, 2, None)
    assert [seconds(message) for message in run("default", 124, 182)] == [180.0]


def test_a_changed_rhythm_moves_too(other: str) -> None:
    declare("default")
    sync(T0)
    run("default", 1, 62)
    declare(other, every=90)
    sync(at(seconds=63))
    assert row_of(other).trigger["interval"] == 90
    assert [seconds(message) for message in run(other, 64, 152)] == [150.0]


@pytest.mark.skipif(not ELSEWHERE, reason="a run with one database")
def test_a_declaration_that_comes_back_goes_on_from_where_it_was_last() -> None:
    (there,) = ELSEWHERE
    declare("default", payload=0, stateful=True)
    sync(T0)
    run("default", 1, 62)
    declare(there, payload=0, stateful=True)
    sync(at(seconds=63))
    run(there, 64, 182)
    recurring._declared.clear()
    assert sync(at(seconds=183)).orphaned == ["digest"]

    declare(there, payload=0, stateful=True)
    report = sync(at(seconds=184))

    stored = row_of(there)
    assert report.changed == ["digest"]
    assert (stored.status, stored.payload, stored.successes, stored.last_tick_at) == ("active", 3, 3, at(seconds=180))


def test_one_that_has_run_out_goes_on_with_a_later_end(other: str) -> None:
    declare("default", end=at(seconds=61))
    sync(T0)
    run("default", 1, 70)
    assert (row_of("default").status, row_of("default").has_run_out) == ("ended", True)

    declare(other, end=at(seconds=1000))
    sync(at(seconds=71))

    assert row_of(other).status == "active"
    assert [seconds(message) for message in run(other, 72, 182)] == [120.0, 180.0]


@pytest.mark.parametrize("arguments", [{"end": at(seconds=61)}, {"max_occurrences": 1}])
def test_one_that_has_run_out_stays_so_with_the_same_end(other: str, arguments: dict[str, Any]) -> None:
    declare("default", **arguments)
    sync(T0)
    run("default", 1, 130)
    reason = row_of("default").reason

    declare(other, **arguments)
    sync(at(seconds=131))

    assert (row_of(other).status, row_of(other).reason) == ("ended", reason)
    assert run(other, 132, 182) == []


@pytest.mark.skipif(not ELSEWHERE, reason="a run with one database")
def test_where_another_database_cannot_be_asked_nothing_begins_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    declare(ELSEWHERE[0], payload=0, stateful=True)
    sync(T0)
    declare("default", payload=0, stateful=True)
    is_ready = syncing.is_ready

    def ask(database: str) -> bool:
        if database == ELSEWHERE[0]:
            raise OperationalError("the server is away")
        return is_ready(database)

    with monkeypatch.context() as context:
        context.setattr(syncing, "is_ready", ask)
        report = sync(at(seconds=1), database="default")

    assert "the server is away" in report.unsynchronised["digest"]
    assert "not_synchronised recurrence=digest" in caplog.text
    assert not Recurrence.objects.exists()
    assert sync(at(seconds=2)).changed == ["digest"]


@pytest.fixture
def away() -> Iterator[str]:
    """The first alias that is looked at: of a server that nobody reaches."""
    pytest.importorskip("redis")
    unreached = {"BACKEND": "django_sked.backends.redis.RedisBackend", "LOCATION": "redis://127.0.0.1:1/0"}
    with override_settings(SKED={"a-away": unreached, **settings.SKED}):
        yield "a-away"


def test_a_server_that_is_away_does_not_end_a_migrate_without_recurrences_of_it(away: str) -> None:
    declare("default")
    report = syncing.sync(database="default")
    assert report.created == ["digest"]
    assert (report.unsynchronised, report.unreached) == ({}, {})


def test_what_needs_a_server_that_is_away_is_named_and_keeps_nothing_else(
    away: str, caplog: pytest.LogCaptureFixture
) -> None:
    declare("default")
    syncing.sync(database="default")
    for name, alias in (("gone", "default"), ("left", away)):
        made = Recurrence.objects.create(name, every=60)
        Recurrence.objects.filter(pk=made.pk).update(backend=alias, is_declared=True)
    declare(away)

    report = syncing.sync()

    assert list(report.unsynchronised) == ["digest", "left"]
    assert list(report.unreached) == [away]
    assert "not_synchronised recurrence=digest reason=" in caplog.text
    assert f"not_synchronised backend={away} reason=" in caplog.text
    assert report.orphaned == ["gone"]
    # What could not be brought there goes on where it is.
    active = Recurrence.objects.filter(status="active").order_by("name")
    assert [(row.name, row.backend, row.orphaned_at) for row in active] == [
        ("digest", "default", None),
        ("left", away, None),
    ]


def test_the_command_ends_with_1_where_a_server_is_away(away: str) -> None:
    errors = StringIO()
    with pytest.raises(CommandError, match="1 backends could not be reached") as raised:
        call_command("sked_sync", stderr=errors)
    assert raised.value.returncode == 1
    assert errors.getvalue().startswith(f"not reached: {away}: ")


def test_a_row_moves_to_an_alias_of_its_database_by_hand_and_to_no_other() -> None:
    with clock.pretend(T0):
        recurrence = Recurrence.objects.create("by.hand", every=60)
        recurrence.backend = "a-memory"
        recurrence.save()
    with connected(lambda **kwargs: None, event="by.hand", dispatch_uid="by-hand"):
        assert [seconds(message) for message in run("a-memory", 1, 61)] == [60.0]
    for alias in ELSEWHERE:
        recurrence.backend = alias
        with pytest.raises(InvalidMessage, match="backend must be an alias whose recurrences are in the database 'def"):
            recurrence.save()
    assert Recurrence.objects.get().backend == "a-memory"
