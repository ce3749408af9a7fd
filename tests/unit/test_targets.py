"""The program that measures every target: what it calls missed, and that each of its workloads is one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.performance.__main__ import WORKLOADS, _parser
from tests.performance.targets import ROWS, Row, Target, report

ROW = Row("drain", (Target("per_s", least=100, unit="/s"), Target("twice", most=0)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.arguments)
def test_a_row_is_a_workload_that_can_be_measured(row: Row) -> None:
    assert _parser().parse_args(row.arguments.split()).workload


def test_each_workload_is_described_on_the_page_on_performance() -> None:
    page = (Path(__file__).parents[2] / "docs/explanation/performance.md").read_text()
    table = page.partition("## The workloads")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(WORKLOADS)


def test_a_target_is_judged_by_the_median(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [{"per_s": per_s, "twice": 0} for per_s in (50, 101, 3000)]

    code = report([ROW], lambda row: runs)

    assert code == 0
    assert "| `drain` | per_s | ≥ 100/s | 101 | 50 | 3,000 |  |" in capsys.readouterr().out


def test_a_workload_that_fails_is_a_target_missed_and_the_others_are_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(row: Row) -> list[dict[str, int]]:
        if row is broken:
            raise subprocess.CalledProcessError(1, "measure")
        return [{"per_s": 101, "twice": 0}]

    broken = Row("idle", ROW.targets)

    assert report([broken, ROW], measure) == 1
    printed = capsys.readouterr().out
    assert "| `idle` | | | | | | CalledProcessError |" in printed
    assert "| 101 |" in printed


@pytest.mark.parametrize("figures", [{"per_s": 99, "twice": 0}, {"per_s": 100, "twice": 1}])
def test_one_that_is_not_reached_is_told_and_is_the_exit_code(
    figures: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report([ROW], lambda row: [figures]) == 1
    assert capsys.readouterr().out.count("missed") == 1
