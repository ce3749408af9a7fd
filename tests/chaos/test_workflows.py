"""A small graph of messages that wait for each other, with workers that are killed; and that its judge finds fault."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings

from tests.chaos.graphs import ATTEMPTS, Became, Node, drawn, expected, judged

BACKENDS = [name for name in ("sqlite", "postgresql", "redis") if name in settings.SKED_TEST_VENDORS]


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_becomes_what_its_conditions_say_while_workers_are_killed(backend: str) -> None:
    command = [sys.executable, "-m", "tests.chaos.workflows", f"--backend={backend}", "--nodes=60", "--kills=4"]

    done = subprocess.run([*command, "--workers=2", "--seed=3"], capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "every node ended as its conditions say, each once" in done.stdout
    killed = int(done.stdout.split(" workers killed")[0].split()[-1])
    assert killed >= 4


class Tale:
    """A graph that has become what it should, until somebody changes what is told of it."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.became: dict[str, Became] = {}
        self.events: list[dict[str, Any]] = []
        for number, (node, status) in enumerate(zip(nodes, expected(nodes, ()), strict=True)):
            ran = status != "cancelled"
            self.became[node.id] = Became(status, ATTEMPTS[node.step] if ran else 0, 0, 10.0 * number + 5)
            for attempt in range(ATTEMPTS[node.step] if ran else 0):
                self.start(number, attempt=attempt + 1)

    def start(self, number: int, *, attempt: int = 1, pid: int = 1, at: float | None = None) -> None:
        at = 10.0 * number + attempt if at is None else at
        self.events.append({"ev": "start", "id": self.nodes[number].id, "pid": pid, "at": at, "attempt": attempt})

    def set(self, number: int, **changes: Any) -> None:
        one = self.became[self.nodes[number].id]
        values = {name: getattr(one, name) for name in ("status", "attempt", "crashes", "finished_at")}
        self.became[self.nodes[number].id] = Became(**values | changes)

    def broken(self, *killed: int) -> list[str]:
        return judged(self.nodes, self.became, self.events, killed, 3)


def node(number: int, step: str = "deliver", **parents: str) -> Node:
    return Node(str(number), {int(name[1:]): condition for name, condition in parents.items()}, step, 0)


@pytest.fixture
def tale() -> Tale:
    """0 succeeds, 1 comes after it, 2 is cancelled for it, and 3 comes after both."""
    success, failure = node(1, p0="on_success"), node(2, p0="on_failure")
    return Tale([node(0), success, failure, node(3, p1="on_success", p2="on_finish")])


@pytest.mark.parametrize("seed", range(5))
def test_what_is_as_it_should_be_is_not_blamed(seed: int) -> None:
    assert Tale(drawn(300, seed)).broken() == []


def test_a_node_that_is_still_blocked_is_found(tale: Tale) -> None:
    tale.set(3, status="blocked")

    assert tale.broken() == ["node 3 is blocked, and not delivered"]


def test_a_node_that_is_gone_is_found(tale: Tale) -> None:
    del tale.became["1"]

    assert "node 1 is None, and not delivered" in tale.broken()


def test_a_branch_that_was_begun_though_it_was_cancelled_is_found(tale: Tale) -> None:
    tale.start(2)

    assert tale.broken() == ["node 2 was begun, though it was to be cancelled"]


def test_a_child_that_was_begun_before_its_parent_had_ended_is_found(tale: Tale) -> None:
    tale.start(1, at=4.0, pid=2)

    assert "node 1 was begun before its parent 0 had ended" in tale.broken(2)


def test_a_node_that_was_released_twice_is_found(tale: Tale) -> None:
    tale.set(1, attempt=2)
    tale.start(1, attempt=2, at=30.0)

    assert tale.broken() == ["node 1 has taken 2 attempts, and not 1: it was released more than once"]


def test_a_second_call_must_follow_the_kill_of_the_first(tale: Tale) -> None:
    tale.start(1, at=30.0, pid=2)

    assert tale.broken() == ["node 1 was begun again after process 1, which nobody had killed, had begun it"]
    assert tale.broken(1) == []


def test_a_node_that_was_ended_by_kills_takes_the_other_branch(tale: Tale) -> None:
    tale.set(0, status="dead", crashes=3, attempt=0)

    assert tale.broken()[:2] == ["node 1 is delivered, and not cancelled", "node 2 is cancelled, and not delivered"]


def test_the_same_seed_draws_the_same_graph() -> None:
    assert drawn(50, 4) == drawn(50, 4) != drawn(50, 5)
