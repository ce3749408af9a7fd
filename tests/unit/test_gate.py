"""What keeps later work from losing what was measured: a gate that fails when a figure is out of its limits."""

from __future__ import annotations

import pytest

from tests.performance import gate
from tests.performance.figures import Figures
from tests.performance.gate import GATES, TRIES, Limit

LIMITS = (Limit("ratio", least=0.5), Limit("early", most=0))


def measured_by(monkeypatch: pytest.MonkeyPatch, *runs: Figures) -> list[Figures]:
    """The only gate there is measures these, one after the other; returns what has not been asked for."""
    left = list(runs)
    monkeypatch.setattr(gate, "GATES", {"drain": (lambda: left.pop(0), LIMITS)})
    return left


@pytest.mark.parametrize("figures", [{"ratio": 0.5, "early": 0}, {"ratio": 9.0, "early": -1}])
def test_what_is_within_its_limits_passes_at_once(monkeypatch: pytest.MonkeyPatch, figures: Figures) -> None:
    left = measured_by(monkeypatch, figures, figures)

    assert gate.run() == []
    assert len(left) == 1


@pytest.mark.parametrize("figures", [{"ratio": 0.49, "early": 0}, {"ratio": 0.5, "early": 1}])
def test_what_is_not_is_measured_again_and_then_told(monkeypatch: pytest.MonkeyPatch, figures: Figures) -> None:
    left = measured_by(monkeypatch, *[figures] * TRIES)

    (line,) = gate.run()

    assert left == []
    (name,) = [limit.figure for limit in LIMITS if not limit.is_kept(figures)]
    assert line.startswith("Slower than it may be: drain: ")
    assert f"{name}={figures[name]} (" in line


def test_one_disturbed_measurement_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_by(monkeypatch, {"ratio": 0.1, "early": 0}, {"ratio": 0.6, "early": 0})

    assert gate.run() == []


def test_each_gate_has_limits_and_each_limit_an_end() -> None:
    limits = [limit for _, own in GATES.values() for limit in own]

    assert all(own for _, own in GATES.values())
    assert all((limit.least is None) != (limit.most is None) for limit in limits)
