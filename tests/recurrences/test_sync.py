"""What the code declares becomes rows, and stays what the code says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from io import StringIO
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.models.signals import post_migrate

from django_sked import civil, clock, recurring, syncing, ticking, triggers
from django_sked.apps import SkedConfig
from django_sked.backends import message_backends
from django_sked.exceptions import Misconfigured
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.signals import message_due
from django_sked.verbs import Reschedule
from tests.recurrences.conftest import T0, Clockwork, at


@pytest.fixture(autouse=True)
def _nothing_declared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recurring, "_declared", {})
    yield
    for declaration in recurring.declarations():
        message_due.disconnect(dispatch_uid=declaration.function)


Declare = Callable[..., Any]
Sync = Callable[..., syncing.Report]


@pytest.fixture
def declare(clockwork: Clockwork) -> Iterator[Declare]:
    def declare(name: str = "digest", **arguments: Any) -> Any:
        """As a fresh import of the code would."""
        recurring._declared.pop(name, None)
        message_due.disconnect(dispatch_uid=f"uid-{name}")
        if not arguments.keys() & {"cron", "every", "trigger"}:
            arguments["every"] = 60

        @recurring.recurring(name, backend=clockwork.backend.alias, dispatch_uid=f"uid-{name}", **arguments)
        def receive(**kwargs: Any) -> None:
            received.append(kwargs["message"])

        return receive

    received.clear()
    yield declare
    message_due.disconnect(dispatch_uid="uid-digest")


received: list[Any] = []


@pytest.fixture
def sync(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch) -> Sync:
    """Synchronise the database of this backend, which is the only one then: a test may use no other."""
    monkeypatch.setattr(message_backends, "all", lambda: [clockwork.backend])

    def sync(now: datetime = T0, **options: Any) -> syncing.Report:
        with clock.pretend(now):
            return syncing.sync(database=Recurrence.objects.database_of(clockwork.backend), **options)

    return sync


def test_a_declaration_becomes_a_row_and_its_function_the_receiver(
    clockwork: Clockwork, declare: Declare, sync: Sync
) -> None:
    declare(cron="0 13 * * *", payload={"to": "all"})
    assert sync().created == ["digest"]
    stored = clockwork.rows.get()
    assert (stored.name, stored.event, stored.is_declared) == ("digest", "digest", True)
    clockwork.promote(at(hours=1))
    clockwork.deliver(at(hours=1))
    assert [message.payload for message in received] == [{"to": "all"}]


def test_a_second_sync_changes_nothing(clockwork: Clockwork, declare: Declare, sync: Sync) -> None:
    declare()
    sync()
    version = clockwork.rows.get().version
    assert sync() == syncing.Report()
    assert clockwork.rows.get().version == version


def test_a_changed_declaration_reaches_the_stored_row(clockwork: Clockwork, declare: Declare, sync: Sync) -> None:
    declare(every=3600)
    sync()
    declare(every=60, queue="mail")
    assert sync(at(seconds=10)).changed == ["digest"]
    stored = clockwork.rows.get()
    assert (stored.queue, stored.trigger["interval"]) == ("mail", 60)
    assert stored.next_tick_at <= at(seconds=70)


def test_what_people_have_paused_stays_paused(clockwork: Clockwork, declare: Declare, sync: Sync) -> None:
    declare()
    sync()
    clockwork.rows.get().pause(reason="holidays")
    declare(every=90)
    sync()
    stored = clockwork.rows.get()
    assert (stored.status, stored.trigger["interval"]) == ("paused", 90)
    assert clockwork.promote(at(days=1)) == []


def test_a_declaration_that_is_gone_is_paused_and_one_that_comes_back_goes_on(
    clockwork: Clockwork, declare: Declare, sync: Sync
) -> None:
    declare()
    sync()
    recurring._declared.clear()
    assert sync().orphaned == ["digest"]
    assert sync().orphaned == []
    stored = clockwork.rows.get()
    assert (stored.status, stored.reason, stored.orphaned_at) == ("paused", "no longer declared", T0)
    declare()
    sync(at(seconds=5))
    assert (clockwork.rows.get().status, clockwork.rows.get().orphaned_at) == ("active", None)


def test_a_sync_that_was_killed_as_a_declaration_came_back_is_made_good_by_the_next(
    clockwork: Clockwork, declare: Declare, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare()
    sync()
    recurring._declared.clear()
    sync(at(seconds=1))
    declare()

    def killed(self: Recurrence) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(Recurrence, "resume", killed)
        sync(at(seconds=2))

    assert sync(at(seconds=3)).changed == ["digest"]
    assert (clockwork.rows.get().status, clockwork.rows.get().orphaned_at) == ("active", None)


@dataclass(frozen=True)
class Hours:
    """Each full hour of the day that can be divided by one."""

    hours: Any

    def next_after(self, previous: datetime) -> datetime:
        tick = previous.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return tick if tick.hour % self.hours[0] == 0 else self.next_after(tick)


def test_a_trigger_whose_arguments_json_knows_by_another_type_begins_no_new_rhythm(
    clockwork: Clockwork, declare: Declare, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(triggers.kinds, "hours", Hours)
    declare(trigger=Hours((1,)))
    sync(T0)

    assert sync(at(minutes=30)).changed == []
    assert clockwork.rows.get().next_tick_at == at(hours=1)


@pytest.mark.parametrize("value", [{1}, float("nan")])
def test_a_trigger_with_arguments_that_json_does_not_know_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    monkeypatch.setitem(triggers.kinds, "hours", Hours)
    with pytest.raises(Misconfigured, match=r"trigger must have arguments that are JSON, not \{'hours': .*\}"):
        recurring.recurring("digest", trigger=Hours(value))


def test_a_pause_by_a_person_outlives_a_declaration_that_goes_and_comes_back(
    clockwork: Clockwork, declare: Declare, sync: Sync
) -> None:
    declare()
    sync(T0)
    with clock.pretend(T0):
        clockwork.rows.get().pause(reason="holidays")
    recurring._declared.clear()
    sync(at(seconds=1))
    declare()

    sync(at(seconds=2))

    stored = clockwork.rows.get()
    assert (stored.status, stored.reason, stored.orphaned_at) == (Recurrence.Status.PAUSED, "holidays", None)


def test_a_sync_takes_no_payload_back_that_a_receiver_has_left(
    clockwork: Clockwork, declare: Declare, sync: Sync
) -> None:
    declare(every=5, payload={"cursor": 0}, stateful=True)
    sync(T0)
    clockwork.receive(count_on, "digest")
    clockwork.run(T0, at(seconds=17))
    reached = clockwork.rows.get().payload
    assert reached["cursor"] > 1

    report = sync(at(seconds=18))

    assert (report.changed, clockwork.rows.get().payload) == ([], reached)


def test_a_sync_takes_no_payload_back_where_nothing_has_declared_that_there_would_be_one(
    clockwork: Clockwork, declare: Declare, sync: Sync
) -> None:
    declare(every=5, payload={"cursor": 0})
    sync(T0)
    clockwork.receive(count_on, "digest")
    clockwork.run(T0, at(seconds=17))
    reached = clockwork.rows.get().payload
    assert reached["cursor"] > 1

    report = sync(at(seconds=18))

    stored = clockwork.rows.get()
    assert (report.changed, stored.payload, stored.stateful) == ([], reached, True)


def test_a_changed_payload_reaches_a_stateful_row_whose_receiver_has_said_nothing(
    clockwork: Clockwork, declare: Declare, sync: Sync
) -> None:
    declare(every=5, payload={"v": 1}, stateful=True)
    sync(T0)
    clockwork.run(T0, at(seconds=17))
    assert clockwork.rows.get().successes > 1

    declare(every=5, payload={"v": 2}, stateful=True)
    report = sync(at(seconds=18))

    assert (report.changed, clockwork.rows.get().payload) == (["digest"], {"v": 2})


def test_a_payload_that_a_receiver_leaves_during_a_sync_is_not_taken_back(
    clockwork: Clockwork, declare: Declare, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(payload={"cursor": 0}, stateful=True)
    sync(T0)
    declare(payload={"cursor": 7}, stateful=True)
    redefine = Recurrence.redefine

    def late(self: Recurrence, *args: Any, **state: Any) -> bool:
        clockwork.receive(count_on, "digest")
        clockwork.run(at(seconds=60), at(seconds=62))
        return redefine(self, *args, **state)

    monkeypatch.setattr(Recurrence, "redefine", late)
    sync(at(seconds=63))

    assert clockwork.rows.get().payload == {"cursor": 1}
    assert clockwork.rows.get().has_next_payload


def test_what_a_receiver_has_said_before_the_upgrade_is_believed(clockwork: Clockwork) -> None:
    for name, stateful, successes in (("a", True, 1), ("b", True, 0), ("c", False, 1)):
        clockwork.create(name, stateful=stateful)
        clockwork.rows.filter(name=name).update(successes=successes)
    migration = import_module("django_sked.migrations.0007_next_payload")

    migration.believe_what_is_stored(apps, SimpleNamespace(connection=connections[clockwork.rows.db]))

    assert [row.name for row in clockwork.rows.filter(has_next_payload=True)] == ["a"]


def count_on(message: Any, **kwargs: Any) -> None:
    message.next_payload = {"cursor": message.payload["cursor"] + 1}


@pytest.mark.parametrize(("reason", "status"), [("over", "ended"), (ticking.NO_MORE_TICKS, "active")])
def test_another_rhythm_goes_on_after_want_of_ticks_and_not_after_an_end_by_a_person(
    clockwork: Clockwork, declare: Declare, sync: Sync, reason: str, status: str
) -> None:
    declare(every=60)
    sync(T0)
    with clock.pretend(T0):
        clockwork.rows.get().end(reason=reason)
    declare(every=90)

    sync(at(seconds=1))

    assert clockwork.rows.get().status == status


def test_a_sync_finds_the_next_tick_again_when_the_rules_of_its_zone_have_changed(
    clockwork: Clockwork, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    summer = datetime(2030, 7, 1, 12, tzinfo=UTC)
    clockwork.create(cron="0 9 * * *", timezone="Europe/Berlin", now=summer)
    assert clockwork.rows.get().next_tick_at == datetime(2030, 7, 2, 7, tzinfo=UTC)
    # No summer time any more.
    monkeypatch.setattr(civil, "zone", lambda name: ZoneInfo("Etc/GMT-1"))

    report = sync(summer)

    assert report.changed == ["digest"]
    assert clockwork.rows.get().next_tick_at == datetime(2030, 7, 2, 8, tzinfo=UTC)
    assert sync(summer).changed == []
    assert [each.due_at for each in clockwork.promote(datetime(2030, 7, 2, 8, 30, tzinfo=UTC))] == [
        datetime(2030, 7, 2, 8, tzinfo=UTC)
    ]


def test_only_a_prune_deletes_and_only_what_code_has_declared(
    clockwork: Clockwork, declare: Declare, sync: Sync
) -> None:
    declare()
    sync()
    clockwork.create("by.hand")
    recurring._declared.clear()
    assert sync(prune=True).pruned == ["digest"]
    assert [row.name for row in clockwork.rows] == ["by.hand"]


def test_two_declarations_of_one_name_are_refused(clockwork: Clockwork) -> None:
    @recurring.recurring("twice", every=60)
    def first(**kwargs: Any) -> None: ...

    with pytest.raises(Misconfigured, match=r"Two functions declare the recurrence 'twice': .*first and .*second"):

        @recurring.recurring("twice", every=60)
        def second(**kwargs: Any) -> None: ...


def test_two_declarations_of_one_name_above_one_function_are_refused_where_they_differ(clockwork: Clockwork) -> None:
    same = recurring.recurring("twice", every=60)
    with pytest.raises(
        Misconfigured, match=r"Two declarations of the recurrence 'twice' stand above .*first, and differ"
    ):

        @recurring.recurring("twice", every=3600)
        @same
        @same
        def first(**kwargs: Any) -> None: ...

    (declared,) = recurring.declarations()
    assert declared.values["trigger"]["interval"] == 60


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({}, "exactly one of cron="), ({"cron": "nonsense"}, "cron must have"), ({"crom": "* * * * *"}, "'cron'")],
)
def test_a_wrong_declaration_is_refused_at_start(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(Misconfigured, match=text):
        recurring.recurring("digest", **arguments)


def test_nothing_is_synchronised_while_tests_make_their_databases(clockwork: Clockwork, declare: Declare) -> None:
    declare()
    using = Recurrence.objects.database_of(clockwork.backend)
    config = SkedConfig.create("django_sked")
    post_migrate.send(sender=config, app_config=config, verbosity=0, interactive=False, using=using)
    assert not clockwork.rows.exists()


@pytest.mark.usefixtures("sync")
def test_after_migrate_the_code_becomes_rows(
    clockwork: Clockwork, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.test import utils

    declare()
    using = Recurrence.objects.database_of(clockwork.backend)
    # As outside of tests.
    monkeypatch.delattr(utils._TestState, "saved_data")
    config = apps.get_app_config("django_sked")
    post_migrate.send(sender=config, app_config=config, verbosity=0, interactive=False, using=using)
    assert [row.name for row in clockwork.rows] == ["digest"]


def test_a_database_without_the_table_is_not_ready(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    using = Recurrence.objects.database_of(clockwork.backend)
    assert syncing.is_ready(using)
    monkeypatch.setattr(connections[using].introspection, "table_names", lambda: ["auth_user"])
    assert not syncing.is_ready(using)


@pytest.mark.django_db(databases="__all__")
def test_the_commands_say_what_is_done_and_stored() -> None:
    @recurring.recurring("digest", cron="0 9 * * mon-fri", timezone="Europe/Berlin", dispatch_uid="uid-digest")
    def receive(**kwargs: Any) -> None: ...

    output = StringIO()
    call_command("sked_sync", stdout=output)
    call_command("sked_list", recurrences=True, stdout=output)
    message_due.disconnect(dispatch_uid="uid-digest")
    first, second = output.getvalue().splitlines()[:2]
    assert first == "created digest"
    assert second.startswith("digest  active  At 09:00 on Monday through Friday, Europe/Berlin  next ")


def test_the_list_wants_to_know_of_what() -> None:
    with pytest.raises(CommandError, match="--recurrences"):
        call_command("sked_list")


# What cannot be read


def test_a_recurrence_that_cannot_be_read_keeps_no_other_from_being_synchronised(
    clockwork: Clockwork, sync: Sync, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    summer = datetime(2030, 7, 1, 12, tzinfo=UTC)
    for name in ("a", "b", "c"):
        clockwork.create(name, cron="0 9 * * *", timezone="Europe/Berlin", now=summer)
    clockwork.rows.filter(name="b").update(trigger={"kind": "cron", "expression": "at nine"})
    monkeypatch.setattr(civil, "zone", lambda name: ZoneInfo("Etc/GMT-1"))

    report = sync(summer)

    assert report.changed == ["a", "c"]
    assert list(report.unsynchronised) == ["b"]
    assert "not_synchronised recurrence=b reason=" in caplog.text


@pytest.mark.django_db(databases="__all__")
def test_the_command_says_what_it_could_not_do_and_ends_with_1() -> None:
    good, bad = (
        ScheduledMessage.objects.schedule("reminder", at_local=datetime(2030, 7, 1, 9), timezone="Europe/Berlin")
        for _ in range(2)
    )
    for message, text in ((good, good.local_time), (bad, "nine")):
        message.backend.change_one(message.pk, Reschedule(due_at=T0, fields={"local_time": text}))
    strange = Recurrence.objects.create("strange", cron="0 9 * * *")
    Recurrence.objects.filter(pk=strange.pk).update(timezone="Mars/Olympus")
    output, errors = StringIO(), StringIO()

    with pytest.raises(CommandError, match="1 recurrences and 1 messages are as they were") as raised:
        call_command("sked_sync", stdout=output, stderr=errors)

    assert raised.value.returncode == 1
    assert "moved 1 messages" in output.getvalue()
    lines = errors.getvalue().splitlines()
    assert lines[0].startswith("not synchronised: strange: timezone must be the name of a time zone")
    assert lines[1].startswith(f"not moved: {bad.pk}: local_time must be like")
