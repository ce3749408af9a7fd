"""The table of what happens when the clocks are changed says what happens."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from django_sked import civil
from django_sked.triggers import Cron, Every, Trigger, next_tick
from tests.docs.pages import codes, tables

PAGE = "explanation/civil-time.md"
BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = {"28 March": datetime(2027, 3, 28), "31 October": datetime(2027, 10, 31)}
UNTIL = time(5)

((_heading, ROWS),) = tables(PAGE)
CELLS = [(row["trigger"], column, text) for row in ROWS for column, text in row.items() if column != "trigger"]


def ticks(trigger: str, night: datetime) -> list[datetime]:
    """In UTC, from midnight on."""
    midnight = night.replace(tzinfo=BERLIN).astimezone(UTC)
    end = datetime.combine(night, UNTIL, tzinfo=BERLIN).astimezone(UTC)
    name = codes(trigger)[0]
    if name == "at_local":
        found = civil.instant_of(datetime.combine(night, time.fromisoformat(trigger.split()[-1])), BERLIN)
        return [found]
    seconds = re.fullmatch(r"every=(\d+)", name)
    asked: Trigger = Every(int(seconds[1])) if seconds else Cron(name)
    # An interval is in the rhythm of full hours.
    tick = next_tick(asked, midnight - (timedelta(hours=1) if seconds else timedelta.resolution), BERLIN)
    found_ticks = []
    while tick is not None and tick < end:
        found_ticks.append(tick)
        tick = next_tick(asked, tick, BERLIN)
    return found_ticks


def shown(tick: datetime) -> str:
    local = tick.astimezone(BERLIN)
    text = f"{local:%H:%M:%S}".removesuffix(":00")
    return f"{text} again" if local.fold else text


def test_the_table_has_triggers_of_every_kind_on_both_nights() -> None:
    names = [codes(row["trigger"])[0] for row in ROWS]
    assert {"at_local", "every=3600", "30 2 * * *"} <= set(names)
    assert len(names) == len(set(names)) >= 7
    assert {night for _trigger, column, _text in CELLS for night in NIGHTS if night in column} == set(NIGHTS)


@pytest.mark.parametrize(("trigger", "column", "text"), CELLS)
def test_a_row_says_what_happens(trigger: str, column: str, text: str) -> None:
    (night,) = [start for name, start in NIGHTS.items() if name in column]
    assert ", ".join(map(shown, ticks(trigger, night))) == ("" if text == "none" else text)
