"""sked_status, sked_show and sked_prune."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db.models import QuerySet
from django.utils import translation

from django_sked.backends import backlog
from django_sked.backends.database import backlog as backlog_of_rows
from django_sked.explaining import workers_of
from django_sked.models import QueueControl, ScheduledMessage
from django_sked.standing import standing
from django_sked.states import Status
from tests.commands.conftest import Run
from tests.contract.store import T0, Store, after
from tests.worker.conftest import eventually

ERROR = {
    "attempt": 1,
    "at": "2029-03-29T00:30:00.123456+00:00",
    "receiver": "shop.mail",
    "type": "SMTPError",
    "text": "no luck",
    "traceback": 'Traceback:\n  File "mail.py"',
    "worker": "w1",
}


def several(store: Store) -> None:
    """In the queue mail: two due, of two priorities, one of them a suspect's, and one each of the others."""
    now = store.backend.read_now()
    store.schedule(queue="mail", at=now - timedelta(minutes=10), priority=5)
    store.schedule(queue="mail", at=now - timedelta(minutes=5))
    store.schedule(queue="mail", delay=3600)
    store.in_status(Status.CLAIMED, queue="mail2", due_at=now - timedelta(hours=1))
    store.in_status(Status.DEAD, queue="mail2", due_at=now - timedelta(hours=1))


def test_the_status_as_json(store: Store, run: Run) -> None:
    several(store)

    said = run("sked_status", "--json", "--backend", store.alias)

    (found,) = json.loads(said.out).values()
    mail, other = found["queues"]["mail"], found["queues"]["mail2"]
    assert [mail[name] for name in ("due", "future", "claimed", "dead")] == [2, 1, 0, 0]
    assert mail["capped"] == []
    assert [other[name] for name in ("due", "future", "claimed", "dead")] == [0, 0, 1, 1]
    assert 600 <= mail["late_seconds"] < 660
    assert mail["oldest_due_at"] is not None
    assert (other["oldest_due_at"], other["late_seconds"]) == (None, 0)
    assert found["workers"] == []


def test_the_status_as_a_table(store: Store, run: Run) -> None:
    several(store)

    said = run("sked_status", "--backend", store.alias, "--queue", "mail")

    header, row, nobody = said.out.splitlines()[1:]
    assert header.split() == ["queue", "due", "future", "claimed", "dead", "oldest", "due", "late", "workers"]
    assert row.split()[:5] == ["mail", "2", "1", "0", "0"]
    assert "  0:10:" in row
    assert nobody == "No worker is alive."
    assert "mail2" not in said.out


def test_the_status_names_the_queues_that_are_paused(store: Store, run: Run) -> None:
    store.schedule(queue="mail")
    QueueControl.objects.pause("mail", backend=store.alias)

    assert "\nmail (paused)" in run("sked_status", "--backend", store.alias).out
    (found,) = json.loads(run("sked_status", "--json", "--backend", store.alias).out).values()
    assert found["queues"]["mail"]["is_paused"] is True
    assert not any(queue["is_paused"] for name, queue in found["queues"].items() if name != "mail")


def test_the_status_names_the_workers_that_are_alive(store: Store, run: Run) -> None:
    worker = store.worker(now=store.backend.now())
    worker.queues = {"mail": 2}
    worker.in_flight = 3
    store.backend.beat(worker)
    assert eventually(lambda: [row.in_flight for row in workers_of(store.backend) or ()] == [3])

    said = run("sked_status", "--backend", store.alias)

    assert "worker here:1  1  3 in flight  mail=2\n" in said.out
    row = next(line for line in said.out.splitlines() if line.startswith("mail"))
    assert row.split()[-1] == "1"


def test_the_numbers_of_a_status_are_capped(store: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (backlog, backlog_of_rows):
        monkeypatch.setattr(room, "CAP", 1)
    monkeypatch.setattr(backlog_of_rows, "LEAST", 1)
    several(store)
    store.schedule(queue="mail", at=store.backend.read_now() - timedelta(minutes=1))

    (mail, _) = (queue for queue in standing(store.backend).queues if queue.queue.startswith("mail"))
    (found,) = json.loads(run("sked_status", "--json", "--backend", store.alias).out).values()

    assert mail.backlog.due.is_capped and str(mail.backlog.future) == "1"
    assert found["queues"]["mail"]["capped"] == ["due"]
    assert mail.late >= timedelta(minutes=10)


def test_every_backend_is_told_of_without_naming_one(default: Store, run: Run) -> None:
    default.schedule(queue="mail")

    assert "default" in json.loads(run("sked_status", "--json", "--backend", "default").out)
    assert "memory" not in run("sked_status", "--backend", "default").out


# One message


def test_a_message_is_shown_with_why_it_has_not_run_and_its_timeline(store: Store, run: Run) -> None:
    message = store.schedule(queue="mail", key="invoice-42", payload={"secret": "x"}, metadata={"tenant": "acme"})
    claimed = store.claim_one(queue="mail")
    store.settle(claimed, "retry", delay=60, errors=[ERROR])

    said = run("sked_show", str(message.pk), "--backend", store.alias)

    assert said.code == 0
    for text in (
        "queue         mail\n",
        "key           invoice-42\n",
        "Why it has not run:\n  Attempt 1 of 5 failed: SMTPError: no luck. It is tried again at ",
        "29 Mar 2029 02:30:00 CEST Attempt 1 failed in shop.mail: SMTPError: no luck",
        "Tried again.",
    ):
        assert text in said.out
    assert "secret" not in said.out and "acme" not in said.out and "mail.py" not in said.out
    assert "\xa0" not in said.out

    full = run("sked_show", "--key", "invoice-42", "--full", "--backend", store.alias).out
    assert all(text in full for text in ('"secret": "x"', '"tenant": "acme"', 'File "mail.py"'))


def test_a_message_as_json(store: Store, run: Run) -> None:
    message = store.schedule(payload={"secret": "x"})

    found = json.loads(run("sked_show", str(message.pk), "--json", "--backend", store.alias).out)

    assert (found["id"], found["status"], found["backend"]) == (str(message.pk), "scheduled", store.alias)
    assert [reason["code"] for reason in found["why"]] == ["future"]
    assert [moment["code"] for moment in found["timeline"]] == ["scheduled", "next"]
    assert "payload" not in found
    full = json.loads(run("sked_show", str(message.pk), "--json", "--full", "--backend", store.alias).out)
    assert full["payload"] == {"secret": "x"}


@pytest.mark.parametrize("status", [Status.DELIVERED, Status.DEAD, Status.CANCELLED, Status.EXPIRED])
def test_of_a_finished_one_it_is_told_what_became_of_it(status: Status, default: Store, run: Run) -> None:
    said = run("sked_show", str(default.in_status(status).pk), "--backend", "default")

    assert "What has become of it:" in said.out
    assert str(status) in said.out.lower()


def test_a_status_of_another_release_is_shown_as_it_is(default: Store, run: Run) -> None:
    parent = default.schedule("pay")
    child = default.schedule("ship", on_success=parent)
    QuerySet(ScheduledMessage, using=default.database).filter(pk=parent.pk).update(status="parked")

    assert f"It waits for 1 other message: pay {parent.pk} (parked)." in run("sked_show", str(child.pk)).out
    assert "It has the status parked, which this release does not know." in run("sked_show", str(parent.pk)).out
    (reason,) = json.loads(run("sked_show", str(parent.pk), "--json").out)["why"]
    assert reason["code"] == "unknown_status"


def test_an_unknown_message_is_an_error_that_names_where_was_looked(default: Store, run: Run) -> None:
    id = uuid4()

    said = run("sked_show", str(id), "--backend", "default")

    assert (said.err, said.code) == (f"CommandError: There is no message with the id '{id}' in default.", 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Give either an id or --key."),
        (["x", "--key", "k"], "Give either an id or --key."),
        (["x"], "x"),
        (["--key", " ", "--backend", "default"], "key must be"),
        (["--key", "k", "--backend", "memory"], "in the memory of the program"),
    ],
)
def test_a_wrong_sked_show_is_refused_in_a_sentence(arguments: list[str], text: str, default: Store, run: Run) -> None:
    said = run("sked_show", *arguments)

    assert text in said.err
    assert said.code == 1


# Lists


def test_messages_are_listed_by_due_time_and_conditions(store: Store, run: Run) -> None:
    later, first = store.schedule("b", key="k", at=after(hours=1)), store.schedule("a", queue="mail")
    store.schedule("a", at=after(days=9))

    said = run("sked_list", "--messages", "--due-until", after(hours=2).isoformat(), "--backend", store.alias)

    assert said.out == (
        f"{first.pk}  scheduled  {T0.isoformat()}  mail  a  0/5\n"
        f"{later.pk}  scheduled  {after(hours=1).isoformat()}  default  b  0/5  k\n"
    )
    assert run("sked_list", "--messages", "--queue", "mail", "--backend", store.alias).out.count("\n") == 1
    assert run("sked_list", "--messages", "--status", "dead", "--backend", store.alias).out == ""


def test_a_list_ends_at_a_number_and_says_so(store: Store, run: Run) -> None:
    store.schedule_many({"event": "e", "delay": n} for n in range(4))

    said = run("sked_list", "--messages", "--most", "3", "--backend", store.alias)

    assert (said.out.count("\n"), said.err) == (3, "There are more than 3.\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Say what to list: --recurrences or --messages."),
        (["--messages", "--recurrences"], "not allowed with argument"),
        (["--messages", "--most", "0"], "must be a whole number from 1"),
        (["--messages", "--status", "asleep"], "status must be any of"),
        (["--recurrences", "--backend", "nope"], "--backend is for --messages only."),
        (["--recurrences", "--event", "x"], "--event is for --messages only."),
        (["--recurrences", "--due-until", "2h"], "--due-until is for --messages only."),
        (["--recurrences", "--most", "5"], "--most is for --messages only."),
    ],
)
def test_a_wrong_sked_list_is_refused_in_a_sentence(arguments: list[str], text: str, default: Store, run: Run) -> None:
    assert text in run("sked_list", *arguments).err


# Prune


def test_what_is_past_its_retention_is_deleted(store: Store, run: Run) -> None:
    old = store.backend.read_now() - timedelta(days=30)
    gone = [store.in_status(Status.DELIVERED, due_at=old) for _ in range(5)]
    kept = [store.in_status(Status.DEAD, due_at=old), store.in_status(Status.CANCELLED), store.schedule()]
    command = ["sked_prune", "--backend", store.alias, "--chunk-size", "2"]

    assert run(*command, "--most", "3").out == f"{store.alias}: 3 messages were deleted.\n"
    assert run(*command).out == f"{store.alias}: 2 messages were deleted.\n"
    assert run(*command).out == f"{store.alias}: 0 messages were deleted.\n"

    assert all(store.status(message) for message in kept)
    assert store.search().count() == len(kept)
    assert gone


def test_what_is_said_is_english_whatever_the_language_of_the_project(default: Store, run: Run) -> None:
    message = ScheduledMessage.objects.schedule("invoice.reminder", delay=timedelta(days=2, minutes=30))
    commands = [("sked_show", str(message.pk)), ("sked_list",), ("sked_cancel", str(message.pk), "--dry-run")]
    english = [run(*command).out for command in commands]

    with translation.override("de"):
        assert [run(*command).out for command in commands] == english
        assert run("sked_cancel", str(message.pk)).out == f"{message.pk}: cancelled\n"
        assert "cancelled" in run("sked_show", str(message.pk)).out
