"""Any graph, any conditions, any ends, and people at work meanwhile: each store does what `plain.py` says.

SKED_GRAPH_EXAMPLES=1000 is a longer search, another one each time; without it a run is short and always the same.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from django_sked import dependencies
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.memory import MemoryBackend
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import FINISHED, Status
from django_sked.verbs import Cancel, Hold, Redrive, Resume
from tests.contract.conftest import backend
from tests.contract.store import T0, WORKER, after
from tests.workflows.family import ENDS
from tests.workflows.plain import MET, Plain

__all__ = ["backend"]

ASKED = os.environ.get("SKED_GRAPH_EXAMPLES")
EXAMPLES = int(ASKED or 25)
MOST_NODES = 12
FAR = after(days=3650)
#: Each run of this test file has numbers of its own, so that no two graphs share an id or a queue.
_graphs = count(1)

Graph = dict[int, dict[int, str]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Node -> parents among those before it -> condition."""
    found: Graph = {}
    for number in range(draw(st.integers(1, MOST_NODES))):
        parents = draw(st.lists(st.integers(0, number - 1), max_size=3, unique=True)) if number else []
        found[number] = {parent: draw(st.sampled_from(sorted(MET))) for parent in parents}
    return found


#: How each run of a node ends; a failed attempt is tried again, and is no end.
ends = st.lists(st.sampled_from(["deliver", "deliver", "bury", "bury", "expire", "retry"]), min_size=1, max_size=3)
node = st.integers(0, MOST_NODES - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("work"), st.integers(1, 4)),
        st.tuples(st.just("work"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["hold", "resume"]), node),
        st.tuples(st.just("redrive"), node),
        st.tuples(st.just("cancel"), st.sets(node, min_size=1, max_size=3)),
        st.tuples(st.just("late"), st.just(0)),
        st.tuples(st.just("sweep"), st.just(0)),
    ),
    max_size=12,
)


VERBS: dict[str, Any] = {"hold": Hold(), "resume": Resume(), "redrive": Redrive(due_at=T0)}


class Run:
    """One graph in a store and in the model, step by step."""

    def __init__(self, store: BaseBackend, graph: Graph, ends: list[list[str]], late_from: int) -> None:
        self.store = store
        self.plain = Plain()
        self.late = {number: parents for number, parents in graph.items() if number >= late_from}
        self.ends = ends
        self.tries = dict.fromkeys(graph, 0)
        self.base = next(_graphs) * 1_000
        self.queue = f"graph-{self.base}"
        self.add({number: parents for number, parents in graph.items() if number < late_from})

    def id(self, number: int) -> UUID:
        return UUID(int=self.base + number, version=4)

    def add(self, graph: Graph) -> None:
        items: list[dict[str, Any]] = []
        for number, parents in graph.items():
            conditions: dict[str, list[UUID]] = {}
            for parent, condition in parents.items():
                conditions.setdefault(condition, []).append(self.id(parent))
            items.append({"event": f"node.{number}", "id": self.id(number), "queue": self.queue, **conditions})
        if items:
            ScheduledMessage.objects.schedule_many(items, backend=self.store.alias)
        self.plain.add(graph)

    def step(self, name: str, value: Any) -> None:
        if name in VERBS:
            self.use(VERBS[name], value)
        elif name == "cancel":
            known = [number for number in sorted(value) if number in self.plain.nodes]
            self.store.change([self.id(number) for number in known], Cancel())
            self.plain.cancel(known)
        elif name == "work":
            self.work(value)
        elif name == "late":
            self.add(self.late)
            self.late = {}
        else:
            self.store.unblock()
        self.compare(f"{name} {value}")

    def use(self, verb: Any, position: int) -> None:
        """On one of those that it changes, so that few programs do nothing."""
        nodes = self.plain.nodes.items()
        fits = [number for number, node in nodes if node.status in verb.starts]
        if verb.step == "resume":
            fits = self.held()
        if fits:
            number = fits[position % len(fits)]
            assert self.store.change_one(self.id(number), verb) is verb.done
            getattr(self.plain, verb.step)(number)

    def held(self) -> list[int]:
        return [n for n, node in self.plain.nodes.items() if node.is_held and node.status == Status.BLOCKED]

    def work(self, most: int) -> int:
        """Claim so many and settle them in one batch; returns how many there were."""
        outcomes, ended = [], {}
        for message in self.store.claim(WORKER, self.queue, most, now=FAR):
            number = int(message.event.removeprefix("node."))
            assert self.plain.nodes[number].status == Status.SCHEDULED, f"{number} runs, and should not"
            step: Any = self.ends[number][self.tries[number] % len(self.ends[number])]
            self.tries[number] += 1
            if step == "retry" and self.tries[number] > len(self.ends[number]):
                step = "deliver"
            outcomes.append(Outcome(id=message.pk, token=message.token, step=step, at=T0 if step == "retry" else None))
            if step != "retry":
                ended[number] = ENDS[step]
        assert not self.store.settle(outcomes, now=FAR).lost
        self.plain.end(ended)
        return len(outcomes)

    def finish(self) -> None:
        """Nothing is held any more, nothing comes later, and everything that may run does."""
        self.step("late", 0)
        while self.held():
            self.step("resume", 0)
        while self.work(100):
            self.compare("the last work")
        assert set(self.plain.statuses().values()) <= FINISHED

    def compare(self, what: str) -> None:
        found = {int(m.event.removeprefix("node.")): m for m in self.store.find_many(self.ids()).values()}
        statuses = {number: message.status for number, message in found.items()}
        assert statuses == self.plain.statuses(), what
        left = {number: message.parents_left for number, message in found.items() if message.status == Status.BLOCKED}
        assert left == self.plain.left(), what

    def ids(self) -> list[UUID]:
        return [self.id(number) for number in self.plain.nodes]


def check(store: BaseBackend, *, examples: int = EXAMPLES, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    @settings(
        phases=phases,
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=ASKED is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(graphs(), st.lists(ends, min_size=MOST_NODES, max_size=MOST_NODES), st.integers(1, MOST_NODES), steps)
    def agree(graph: Graph, ends: list[list[str]], late_from: int, program: list[tuple[str, Any]]) -> None:
        run = Run(store, graph, ends, late_from)
        for name, value in program:
            run.step(name, value)
        run.finish()

    agree()


def test_any_graph_becomes_what_its_conditions_say_whatever_people_do(backend: BaseBackend) -> None:
    if not backend.supports_workflows:
        pytest.skip("has no workflows")
    check(backend)


def hunt(store: BaseBackend) -> None:
    """In a store that is known to be broken: no search for a shorter program."""
    check(store, examples=200, phases=(Phase.generate,))


@pytest.fixture
def memory() -> MemoryBackend:
    message_backends.reset()
    found = message_backends["memory"]
    assert isinstance(found, MemoryBackend)
    return found


def test_a_wrong_condition_is_found(memory: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**dependencies._HOLDS, dependencies.Condition.FAILURE: frozenset({Status.DEAD, Status.CANCELLED})}
    monkeypatch.setattr(dependencies, "_HOLDS", wrong)

    with pytest.raises(AssertionError):
        hunt(memory)


def test_a_redrive_that_forgets_the_children_is_found(memory: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory._families, "redriven", lambda *args: None)

    with pytest.raises(AssertionError):
        hunt(memory)


def test_a_late_child_that_is_never_decided_is_found(memory: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "FINISHED", frozenset())
    monkeypatch.setattr("django_sked.backends.remembered.FINISHED", frozenset())

    with pytest.raises(AssertionError):
        hunt(memory)
