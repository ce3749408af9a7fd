"""Workers in processes of their own, killed in the middle of a graph: every node ends as its conditions say."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connections

from django_sked.models import Dependency
from django_sked.states import LIVE
from tests.worker.programs import Project
from tests.workflows.family import Family
from tests.workflows.test_large import expected, graph

RECEIVERS = """
from django.dispatch import receiver
from django_sked.exceptions import Bury
from django_sked.signals import message_due

@receiver(message_due, event="node.deliver")
def deliver(message, **kwargs): ...

@receiver(message_due, event="node.bury")
def bury(message, **kwargs):
    raise Bury("as it was told")
"""
WORK = """
from django.conf import settings
from django_sked import failpoints
from django_sked.worker import Worker
settings.SKED_ALLOW_FAILPOINTS = True
failpoints.set({kill!r})
raise SystemExit(Worker({alias!r}, burst=True, lease=1.0, poll_interval=0.05, concurrency=4).run())
"""
KILLS = [
    "settle.before_release=kill:3",
    "settle.before_commit=kill:4",
    "settle.before_release=kill:5",
    "claim.after=kill:3",
    "settle.before_release=kill:6",
    "settle.after=kill:4",
]


@pytest.mark.slow
def test_every_node_of_a_graph_ends_as_its_conditions_say_whoever_is_killed(store: Family, tmp_path: Path) -> None:
    if not store.backend.reaches_other_processes:
        pytest.skip("what is in memory ends with its process")
    rng = random.Random(27)
    nodes = graph(rng, 150)
    steps = [rng.choice(["deliver", "deliver", "bury"]) for _ in nodes]
    own = [UUID(int=rng.getrandbits(128), version=4) for _ in nodes]
    items = []
    for number, parents in enumerate(nodes):
        conditions: dict[str, list[UUID]] = {}
        for parent, condition in parents.items():
            conditions.setdefault(condition, []).append(own[parent])
        items.append({"event": f"node.{steps[number]}", "id": own[number], **conditions})
    store.schedule_many(items)

    project = Project(tmp_path, connections[store.backend.database or "default"].settings_dict)
    project.receivers.write_text(RECEIVERS)
    with (tmp_path / "sked_command_settings.py").open("a") as file:
        file.write("from tests.servers import use_mysql_driver\nuse_mysql_driver()\n")
        if store.backend.database is None:
            file.write(f"SKED[{store.alias!r}] = {settings.SKED[store.alias]!r}\n")
    alias = "default" if store.backend.database else store.alias
    # Where one call does all of a settle, there is no commit to be killed before.
    kills = (
        KILLS if store.backend.database else [kill.replace("settle.before_commit", "settle.before") for kill in KILLS]
    )
    try:
        doomed = [project.script(WORK.format(alias=alias, kill=kill)).end() for kill in kills]
        # A burst does not wait for what is held by a worker whose lease is still good, though it has just been killed.
        for _burst in range(5):
            whole = project.script(WORK.format(alias=alias, kill=""))
            assert whole.end() == 0, whole.output
            if not any(store.status(id) in LIVE for id in own):
                break
    finally:
        project.close()

    assert doomed.count(-signal.SIGKILL) >= 3
    assert [store.status(id) for id in own] == expected(nodes, steps)
    if store.backend.database is not None:
        undecided = Dependency.objects.using(store.database).filter(state__in=["new", "open"])
        assert not undecided.exists()
