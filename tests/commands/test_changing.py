"""sked_cancel, sked_hold, sked_release, sked_reschedule and sked_redrive: by id, by key, and by conditions."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest

from django_sked.backends.base import BaseBackend
from django_sked.management.changing import EXIT_DECLINED, EXIT_INTERRUPTED, EXIT_LEFT, EXIT_REFUSED
from django_sked.states import Status
from tests.commands.conftest import Run
from tests.contract.store import T0, Store, after

#: The verb of each command as its options, a status that it changes, and what that becomes.
COMMANDS: dict[str, tuple[list[str], Status, Status]] = {
    "sked_cancel": (["--reason", "paid"], Status.SCHEDULED, Status.CANCELLED),
    "sked_hold": (["--reason", "disputed"], Status.SCHEDULED, Status.BLOCKED),
    "sked_release": ([], Status.BLOCKED, Status.SCHEDULED),
    "sked_reschedule": (["--shift", "1d"], Status.SCHEDULED, Status.SCHEDULED),
    "sked_redrive": (["--at", "2031-01-01T00:00+00:00"], Status.DEAD, Status.SCHEDULED),
}
DONE = {"sked_cancel": "cancelled", "sked_hold": "held", "sked_release": "resumed"}
DONE |= {"sked_reschedule": "rescheduled", "sked_redrive": "redriven"}
each_command = pytest.mark.parametrize("command", COMMANDS)


@each_command
def test_by_ids_each_one_is_answered(command: str, store: Store, run: Run) -> None:
    options, before, becomes = COMMANDS[command]
    messages = [store.in_status(before) for _ in range(2)]

    said = run(command, *(str(message.pk) for message in messages), *options, "--backend", store.alias)

    assert said == ("".join(f"{message.pk}: {DONE[command]}\n" for message in messages), "", 0)
    assert {store.status(message) for message in messages} == {becomes}


@each_command
def test_by_key(command: str, store: Store, run: Run) -> None:
    options, before, becomes = COMMANDS[command]
    message = store.in_status(before, key="invoice-42")

    assert run(command, "--key", "invoice-42", *options, "--backend", store.alias).code == 0
    assert store.status(message) == becomes


@each_command
def test_by_conditions_all_that_meet_them_are_changed_in_chunks(command: str, store: Store, run: Run) -> None:
    options, before, becomes = COMMANDS[command]
    messages = [store.in_status(before, queue="mail") for _ in range(5)]
    other = store.in_status(before, queue="other")
    untouched = store.values(other)
    where = ["--queue", "mail", "--backend", store.alias]

    said = run(command, *where, *options, "--chunk-size", "2", "--yes", "--verbosity", "2")

    assert said.out.startswith(f"5 messages would be {DONE[command]}.\n")
    assert said.out.count("go on with --after") == 3
    assert said.out.endswith(f"5 messages were {DONE[command]}.\n")
    assert (said.err, said.code) == ("", 0)
    assert {store.status(message) for message in messages} == {becomes}
    assert store.values(other) == untouched


@each_command
def test_a_dry_run_counts_and_changes_nothing(command: str, store: Store, run: Run) -> None:
    options, before, _ = COMMANDS[command]
    message = store.in_status(before, queue="mail")
    untouched = store.values(message)
    rest = [*options, "--dry-run", "--backend", store.alias]

    assert run(command, "--queue", "mail", *rest).out == f"1 message would be {DONE[command]}.\n"
    assert f"{before}, would be {DONE[command]}" in run(command, str(message.pk), *rest).out

    assert store.values(message) == untouched


@each_command
def test_a_message_that_cannot_be_changed_any_more_is_told_by_answer_and_exit_code(
    command: str, store: Store, run: Run
) -> None:
    message = store.in_status(Status.DELIVERED)

    said = run(command, str(message.pk), *COMMANDS[command][0], "--backend", store.alias)

    assert f"{message.pk}: " in said.out
    assert (said.err, said.code) == (f"CommandError: 1 of 1 messages were not {DONE[command]}.", EXIT_LEFT)


@each_command
def test_an_unknown_message_is_an_error(command: str, default: Store, run: Run) -> None:
    said = run(command, str(uuid4()), *COMMANDS[command][0])
    assert (": not found\n" in said.out, said.code) == (True, EXIT_REFUSED)

    said = run(command, str(uuid4()), *COMMANDS[command][0], "--dry-run")
    assert (": not found\n" in said.out, said.code) == (True, EXIT_REFUSED)


def test_the_reason_is_kept(store: Store, run: Run) -> None:
    cancelled, held = (store.schedule(queue=queue) for queue in ("a", "b"))

    run("sked_cancel", str(cancelled.pk), "--reason", "paid", "--backend", store.alias)
    run("sked_hold", "--queue", "b", "--reason", "disputed", "--yes", "--backend", store.alias)

    assert store.find(cancelled).reason == "paid"
    assert store.find(held).reason == "disputed"


def test_workers_are_asked_to_stop_what_they_hold(store: Store, run: Run) -> None:
    claimed = store.in_status(Status.CLAIMED)
    pending = store.in_status(Status.SCHEDULED)

    said = run("sked_cancel", "--all", "--yes", "--backend", store.alias)

    assert said.out.endswith("1 messages were cancelled.\n")
    assert "1 were not: the workers that hold claimed ones were asked to stop." in said.err
    assert said.code == EXIT_LEFT
    assert store.find(claimed).cancel_requested
    assert store.status(pending) == Status.CANCELLED


def test_a_redrive_of_many_says_that_a_key_may_be_in_use(store: Store, run: Run) -> None:
    dead = store.in_status(Status.DEAD, key="k")
    store.in_status(Status.SCHEDULED, key="k")

    said = run("sked_redrive", "--all", "--yes", "--backend", store.alias)

    assert said.err == "CommandError: 1 were not: too late, or their keys are in use."
    assert said.code == EXIT_LEFT
    assert store.status(dead) == Status.DEAD


def test_a_release_of_many_says_that_some_may_wait_for_others(store: Store, run: Run) -> None:
    first = store.schedule()
    waiting = store.schedule(on_success=first)

    said = run("sked_release", "--all", "--yes", "--backend", store.alias)

    assert said.err == "CommandError: 1 were not: too late, or not on hold but waiting for others."
    assert said.code == EXIT_LEFT
    assert store.status(waiting) == Status.BLOCKED


@pytest.mark.parametrize(
    ("options", "due_at"),
    [
        (["--shift", "1d2h"], after(days=1, hours=2)),
        (["--shift=-30m"], after(minutes=-30)),
        (["--at", "2030-06-01T12:00:00"], T0.replace(month=6, day=1, hour=10, minute=0, second=0, microsecond=0)),
        (["--at", "2030-06-01T12:00:00+00:00"], T0.replace(month=6, day=1, minute=0, second=0, microsecond=0)),
    ],
)
def test_the_times_of_a_reschedule(options: list[str], due_at: Any, store: Store, run: Run) -> None:
    message = store.schedule()

    assert run("sked_reschedule", str(message.pk), *options, "--backend", store.alias).code == 0

    assert store.find(message).due_at == due_at


def test_a_reschedule_to_now_and_of_queue_and_payload(store: Store, run: Run) -> None:
    first, second = store.schedule(), store.schedule()

    run("sked_reschedule", str(first.pk), "--now", "--backend", store.alias)
    run("sked_reschedule", str(second.pk), "--to-queue", "bulk", "--payload", '{"to": "x"}', "--backend", store.alias)

    assert store.find(first).due_at < T0
    found = store.find(second)
    assert (found.due_at, found.queue, found.payload) == (T0, "bulk", {"to": "x"})


def test_conditions_go_together(store: Store, run: Run) -> None:
    wanted = store.schedule("a", queue="mail", at=after(hours=1))
    for event, queue, at in [("b", "mail", 1), ("a", "x", 1), ("a", "mail", -1), ("a", "mail", 3)]:
        store.schedule(event, queue=queue, at=after(hours=at))
    times = ["--due-from", T0.isoformat(), "--due-until", after(hours=2).isoformat()]

    said = run("sked_cancel", "--event", "a", "--queue", "mail", *times, "--yes", "--backend", store.alias)

    assert said.out.endswith("1 messages were cancelled.\n")
    assert store.status(wanted) == Status.CANCELLED
    assert store.search(status=Status.SCHEDULED).count() == 4


def test_nothing_to_do_is_no_error(store: Store, run: Run) -> None:
    assert run("sked_cancel", "--queue", "none", "--backend", store.alias) == (
        "0 messages would be cancelled.\n",
        "",
        0,
    )


# Asking


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "status"), [("y", "cancelled"), ("YES", "cancelled"), ("", "scheduled")])
def test_on_a_terminal_it_asks_first(
    answer: str, status: str, default: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [default.schedule(f"e{number}") for number in range(7)]
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda question: answer)

    said = run("sked_cancel", "--all")

    assert "7 messages would be cancelled." in said.out
    assert said.out.count("due 2030-01-01") == 5 and "  ..." in said.out
    assert {default.status(message) for message in messages} == {status}
    assert said.code == (EXIT_DECLINED if status == "scheduled" else 0)


def test_the_end_of_the_input_is_no_yes(default: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-D is."""
    message = default.schedule()
    monkeypatch.setattr("sys.stdin", Terminal(""))

    said = run("sked_cancel", "--all")

    assert (said.err, said.code) == ("CommandError: Nothing was changed.", EXIT_DECLINED)
    assert default.status(message) == Status.SCHEDULED


def test_with_nobody_to_ask_it_changes_nothing(default: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    message = default.schedule()
    monkeypatch.setattr("sys.stdin", StringIO("y\n"))

    said = run("sked_cancel", "--all")

    assert said.err == "CommandError: Nothing was changed: there is nobody to ask. Say --yes to do it."
    assert (said.code, default.status(message)) == (1, Status.SCHEDULED)


def test_progress_is_shown_on_a_terminal_only(default: Store, run: Run) -> None:
    for _ in range(3):
        default.schedule()
    plain = run("sked_hold", "--all", "--yes", "--chunk-size", "1")
    shown = run("sked_release", "--all", "--yes", "--chunk-size", "1", out=Terminal())

    assert "\r" not in plain.out
    assert "\r1 of 3 (33%)" in shown.out


# Interrupted


class Broken(BaseException):
    """As when the process is killed, or Ctrl-C is pressed."""


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, Broken])
def test_one_that_was_interrupted_says_how_to_go_on_and_then_moves_nothing_twice(
    interruption: type[BaseException], store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = store.schedule_many({"event": "e", "at": after(seconds=n)} for n in range(6))
    change, calls = type(store.backend).change, []

    def fails_third(self: BaseBackend, ids: Any, verb: Any, **kwargs: Any) -> int:
        calls.append(ids)
        if len(calls) == 3:
            raise interruption
        return change(self, ids, verb, **kwargs)

    monkeypatch.setattr(type(store.backend), "change", fails_third)
    command = ["sked_reschedule", "--all", "--shift", "1d", "--yes", "--chunk-size", "2", "--backend", store.alias]
    if interruption is KeyboardInterrupt:
        said = run(*command)
        assert said.code == EXIT_INTERRUPTED
        text = said.err
        assert "4 messages were rescheduled before that. Go on with the same options and --after " in text
        last = text.rpartition("--after ")[2].rstrip(".")
    else:
        with pytest.raises(Broken):
            run(*command)
        last = str(sorted(message.pk for message in messages)[3])

    assert run(*command, "--after", last).code == 0

    assert [store.find(message).due_at - message.due_at for message in messages] == [timedelta(days=1)] * 6
    assert UUID(last)


# Refusals


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Say which messages: by their ids, by --key, or by conditions"),
        (["--all", "--queue", "mail"], "--all means no conditions, but there is --queue."),
        (["--key", "k", "--queue", "mail"], "Say which messages"),
        ([str(uuid4()), "--all"], "Say which messages"),
        (["not-an-id"], "not-an-id"),
        (["--all", "--after", "x", "--yes"], "x"),
        (["--key", " "], "key must be"),
        (["--queue", "a b"], "queue must be"),
        (["--event", ""], "event must be"),
        (["--status", "asleep"], "status must be any of"),
        (["--status", "delivered"], "--status must name some of blocked, claimed, scheduled"),
        (["--due-from", "yesterday"], "'yesterday' is no time: write 2027-01-31T09:00"),
        (["--due-from", "9999999d"], "leads out of the years"),
        (["--due-from", "999999999d 24h"], "'999999999d 24h' leads out of the years"),
        (["--key", "k", "--after", str(uuid4())], "--after goes on with what conditions have chosen"),
        ([str(uuid4()), "--after", str(uuid4())], "--after goes on with what conditions have chosen"),
        (["--all", "--chunk-size", "0"], "must be a whole number from 1 to 10000"),
        (["--all", "--backend", "nowhere"], "There is no SKED backend 'nowhere'"),
        (["--all", "--backend", "memory"], "in the memory of the program that schedules them"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(arguments: list[str], text: str, default: Store, run: Run) -> None:
    said = run("sked_cancel", *arguments)

    assert text in said.err
    assert said.code == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Say what to change: --at, --shift, --now, --to-queue or --payload."),
        (["--shift", "soon"], "'soon' is no length of time: write 30m"),
        (["--shift", "999999999d 24h"], "'999999999d 24h' is longer than any time is away"),
        (["--at", "999999999d 24h"], "'999999999d 24h' leads out of the years"),
        (["--at", "1h", "--shift", "1h"], "not allowed with argument"),
        (["--payload", "{"], "'{' is no JSON"),
        (["--payload", "[" * 100_000], "[[[... is no JSON"),
        (["--to-queue", "a b"], "queue must be"),
    ],
)
def test_a_wrong_reschedule_is_refused_in_a_sentence(arguments: list[str], text: str, default: Store, run: Run) -> None:
    assert text in run("sked_reschedule", "--all", "--yes", *arguments).err
