"""What a save of a recurrence writes, and what a new rhythm takes back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_sked import clock
from django_sked.exceptions import InvalidMessage
from django_sked.models import Recurrence
from tests.recurrences.conftest import Clockwork, at, seconds
from tests.recurrences.test_again import late_by
from tests.recurrences.test_promote import Death, dying_once_it_has_stored


def nobody(**kwargs: Any) -> None:
    """Receives."""


def two(clockwork: Clockwork, **arguments: Any) -> tuple[Recurrence, Recurrence]:
    """The same row, read twice."""
    recurrence = clockwork.create(**arguments)
    return clockwork.read(recurrence), clockwork.read(recurrence)


def test_only_the_named_fields_are_written(clockwork: Clockwork) -> None:
    mine, other = two(clockwork, payload={"v": 1})
    other.payload = {"v": 2}
    other.save(update_fields=["payload"])
    mine.payload, mine.queue = {"v": 3}, "mail"
    mine.save(update_fields=["queue"])
    stored = clockwork.read(mine)
    assert (stored.payload, stored.queue) == ({"v": 2}, "mail")


def test_what_was_not_named_is_still_to_be_saved(clockwork: Clockwork) -> None:
    recurrence, _ = two(clockwork)
    recurrence.queue, recurrence.priority = "mail", 7
    recurrence.save(update_fields=["queue"])
    assert recurrence.priority == 7
    recurrence.save(update_fields=["priority"])
    stored = clockwork.read(recurrence)
    assert (stored.queue, stored.priority) == ("mail", 7)


def test_a_save_of_some_fields_keeps_the_ticks_that_were_made_meanwhile(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence, _ = two(clockwork, every=60)
    delivered = clockwork.run(at(seconds=57), at(seconds=122))
    recurrence.queue = "default"
    recurrence.metadata = {"tenant": "a"}
    with clock.pretend(at(seconds=123)):
        recurrence.save(update_fields={"metadata", "queue"})
    delivered += clockwork.run(at(seconds=124), at(seconds=182))
    stored = clockwork.read(recurrence)
    assert [seconds(message) for message in delivered] == [60.0, 120.0, 180.0]
    assert (stored.occurrences, stored.metadata) == (3, {"tenant": "a"})


def test_a_rhythm_that_is_not_named_is_not_begun_anew(clockwork: Clockwork) -> None:
    recurrence, _ = two(clockwork, every=60)
    recurrence.trigger, recurrence.queue = {"kind": "every", "interval": 5}, "mail"
    recurrence.save(update_fields=["queue"])
    assert clockwork.read(recurrence).next_tick_at == at(seconds=60)
    with clock.pretend(at(seconds=1)):
        recurrence.save(update_fields=["trigger"])
    assert clockwork.read(recurrence).trigger == {"kind": "every", "interval": 5.0}


def test_a_save_of_no_fields_writes_nothing(clockwork: Clockwork) -> None:
    recurrence, _ = two(clockwork)
    version = recurrence.version
    recurrence.queue = "mail"
    recurrence.save(update_fields=[])
    assert clockwork.read(recurrence).version == version


@pytest.mark.parametrize(
    ("name", "value"), [("status", "paused"), ("next_tick_at", at(days=1)), ("version", 9), ("colour", "red")]
)
def test_what_is_no_part_of_the_definition_is_not_saved(clockwork: Clockwork, name: str, value: Any) -> None:
    recurrence, _ = two(clockwork)
    recurrence.queue = "mail"
    setattr(recurrence, name, value)
    with pytest.raises(InvalidMessage, match=f"update_fields must be fields of the definition .*, not '{name}'"):
        recurrence.save(update_fields=["queue", name])
    assert recurrence.queue == "mail"
    assert clockwork.read(recurrence).queue == "default"


def test_a_wrong_value_is_refused_and_one_that_is_not_named_is_not_looked_at(clockwork: Clockwork) -> None:
    recurrence, _ = two(clockwork)
    recurrence.queue, recurrence.priority = "two words", 3
    recurrence.save(update_fields=["priority"])
    with pytest.raises(InvalidMessage, match="queue must be"):
        recurrence.save(update_fields=["queue"])
    assert clockwork.read(recurrence).priority == 3


def test_a_named_end_is_checked_beside_the_stored_start(clockwork: Clockwork) -> None:
    recurrence, _ = two(clockwork, start=at(hours=2))
    recurrence.end_at = at(hours=1)
    with pytest.raises(InvalidMessage, match="end must not lie before start"):
        recurrence.save(update_fields=["end_at"])


def test_update_or_create_changes_what_it_names(clockwork: Clockwork) -> None:
    recurrence, _ = two(clockwork, payload={"v": 1})
    rows = Recurrence.objects.using(recurrence._state.db)
    changed, created = rows.update_or_create(name="digest", defaults={"queue": "mail"})
    stored = clockwork.read(recurrence)
    assert (created, changed.pk, stored.queue, stored.payload) == (False, recurrence.pk, "mail", {"v": 1})


# What the rhythm before has made ahead


def change(clockwork: Clockwork, recurrence: Recurrence, second: float, **fields: Any) -> None:
    with clock.pretend(at(seconds=second)):
        stored = clockwork.read(recurrence)
        for name, value in fields.items():
            setattr(stored, name, value)
        stored.save()


def cron(expression: str) -> dict[str, str]:
    return {"kind": "cron", "expression": expression}


def delivered(clockwork: Clockwork, start: float, end: float) -> list[float]:
    return [seconds(message) for message in clockwork.run(at(seconds=start), at(seconds=end))]


def test_a_changed_rhythm_takes_back_what_the_old_one_has_made_ahead(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(cron="1 12 * * *")
    assert clockwork.ticks(at(seconds=58)) == [60.0]
    change(clockwork, recurrence, 58.5, trigger=cron("3 12 * * *"))
    (message,) = clockwork.messages()
    assert (message.status, message.reason) == ("cancelled", "of no tick any more")
    assert delivered(clockwork, 59, 200) == [180.0]


def test_a_tick_that_is_one_of_both_rhythms_stays(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(cron="1 12 * * *")
    assert clockwork.ticks(at(seconds=58)) == [60.0]
    change(clockwork, recurrence, 58.5, trigger=cron("1,2 12 * * *"))
    assert delivered(clockwork, 59, 200) == [60.0, 120.0]
    assert clockwork.read(recurrence).occurrences == 2


def test_a_rhythm_that_is_changed_back_in_time_brings_its_tick_again_and_once(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(cron="1 12 * * *")
    assert clockwork.ticks(at(seconds=58)) == [60.0]
    change(clockwork, recurrence, 58.2, trigger=cron("3 12 * * *"))
    change(clockwork, recurrence, 58.4, trigger=cron("1 12 * * *"))
    assert delivered(clockwork, 59, 200) == [60.0]


@pytest.mark.parametrize("change_of", ["start_at", "end_at"])
def test_a_tick_before_a_new_start_or_after_a_new_end_is_taken_back(clockwork: Clockwork, change_of: str) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=60)
    assert clockwork.ticks(at(seconds=58)) == [60.0]
    change(clockwork, recurrence, 58.5, **{change_of: at(seconds=150 if change_of == "start_at" else 59.5)})
    if change_of == "end_at":
        assert clockwork.read(recurrence).status == "ended"
    assert delivered(clockwork, 59, 160) == ([150.0] if change_of == "start_at" else [])


def test_a_tick_that_has_passed_is_still_of_the_old_rhythm_however_late_by_jitter(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = late_by(clockwork, timedelta(minutes=10))
    assert clockwork.ticks(at(seconds=60)) == [60.0]
    change(clockwork, recurrence, 61, trigger=cron("0 9 * * *"))
    assert clockwork.messages()[0].status == "scheduled"


def test_a_changed_payload_takes_nothing_back(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(cron="1 12 * * *", payload="first")
    assert clockwork.ticks(at(seconds=58)) == [60.0]
    change(clockwork, recurrence, 58.5, payload="second")
    assert delivered(clockwork, 59, 62) == [60.0]


@pytest.mark.parametrize("change_of", ["rhythm", "end"])
def test_what_a_promoter_had_stored_as_it_died_is_taken_back_too(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, change_of: str
) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(cron="1 12 * * *")
    with monkeypatch.context() as context:
        dying_once_it_has_stored(clockwork, context)
        with pytest.raises(Death):
            clockwork.promote(at(seconds=58))
    wanted = {"trigger": cron("3 12 * * *")} if change_of == "rhythm" else {"end_at": at(seconds=59)}
    change(clockwork, recurrence, 58.5, **wanted)
    assert delivered(clockwork, 59, 200) == ([180.0] if change_of == "rhythm" else [])


def test_a_message_that_cannot_be_taken_back_leaves_the_old_rhythm(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both, or neither."""
    recurrence = clockwork.create(cron="1 12 * * *")
    assert clockwork.ticks(at(seconds=58)) == [60.0]

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as context, pytest.raises(ZeroDivisionError):
        context.setattr(clockwork.backend, "change_one", fail)
        change(clockwork, recurrence, 58.5, trigger=cron("3 12 * * *"))
    assert clockwork.read(recurrence).trigger == cron("1 12 * * *")


# Reasons


def test_a_resume_keeps_its_reason(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60)
    with clock.pretend(at(seconds=1)):
        assert recurrence.pause(reason="stocktaking")
        assert recurrence.resume(reason="all counted")
    stored = clockwork.read(recurrence)
    assert (stored.status, stored.reason) == ("active", "all counted")


def test_a_resume_without_more_ticks_says_that(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60, end=at(seconds=90))
    with clock.pretend(at(seconds=1)):
        recurrence.pause()
    with clock.pretend(at(seconds=100)):
        assert not recurrence.resume(reason="all counted")
    stored = clockwork.read(recurrence)
    assert (stored.status, stored.reason) == ("ended", "There are no more ticks.")


def test_a_reason_that_is_no_text_is_refused(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60)
    with pytest.raises(InvalidMessage, match="reason must be"):
        recurrence.resume(reason=7)  # type: ignore[arg-type]
