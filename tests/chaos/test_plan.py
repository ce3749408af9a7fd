"""The arguments of a run: what cannot be done is refused in a sentence, before anything is started."""

from __future__ import annotations

import pytest

from tests.chaos.plan import Plan


@pytest.mark.parametrize(
    ("argument", "value", "sentence"),
    [
        ("--messages", "-1", "must be a whole number from 1, not '-1'"),
        ("--messages", "many", "must be a whole number from 1, not 'many'"),
        ("--workers", "0", "must be a whole number from 1, not '0'"),
        ("--concurrency", "0", "must be a whole number from 1 to 1000, not '0'"),
        ("--concurrency", "1001", "must be a whole number from 1 to 1000, not '1001'"),
        ("--kill", "-3", "must be a whole number from 0, not '-3'"),
        ("--term", "1.5", "must be a whole number from 0, not '1.5'"),
        ("--poison", "-1", "must be a whole number from 0, not '-1'"),
        ("--lease", "nan", "must be seconds from 0.5 to 3600, not 'nan'"),
        ("--lease", "0", "must be seconds from 0.5 to 3600, not '0'"),
        ("--down", "-1", "must be seconds from 0 to 3600, not '-1'"),
        ("--seconds", "inf", "must be seconds from 1 to 86400, not 'inf'"),
        ("--seconds", "soon", "must be seconds from 1 to 86400, not 'soon'"),
        ("--fail", "nan", "must be a share such as 5% or 0.05, not 'nan'"),
        ("--cancel", "some", "must be a share such as 5% or 0.05, not 'some'"),
        ("--seed", "x", "must be a whole number, not 'x'"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(
    argument: str, value: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refusal:
        Plan.from_arguments([f"{argument}={value}"])

    assert refusal.value.code == 2
    assert f"argument {argument}: {sentence}" in capsys.readouterr().err


def test_what_can_be_done_is_taken_as_it_is_written() -> None:
    faults = ["--kill", "0", "--lease", "0.5", "--fail", "5%", "--cancel", "0.5"]

    plan = Plan.from_arguments(["--messages", "1", "--workers", "1", "--seconds", "1", "--seed", "-3", *faults])

    assert (plan.messages, plan.workers, plan.kill, plan.lease, plan.seconds) == (1, 1, 0, 0.5, 1.0)
    assert (plan.fail, plan.cancel, plan.seed) == (0.05, 0.5, -3)
