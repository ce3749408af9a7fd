"""The program that measures others beside django-sked, with django-sked as the only one: nothing is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings

from tests.performance.peers import measuring
from tests.performance.peers.__main__ import OTHERS, main, table
from tests.performance.peers.environments import Peer, Servers, install

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("postgresql" not in settings.SKED_TEST_VENDORS, reason="a run without PostgreSQL"),
]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    servers = Servers()
    yield Peer("sked", install("sked", tmp_path_factory.mktemp("environments")), servers)
    servers.close()


def test_a_drain_tells_the_rates_of_storing_and_of_starting(peer: Peer) -> None:
    figures = measuring.drain(peer, 2_000)

    assert set(figures) == {"drain_1_per_s", "bulk_per_s"}
    assert min(figures.values()) > 0


def test_an_insert_tells_the_rate_of_single_calls(peer: Peer) -> None:
    assert measuring.insert(peer, 50)["single_per_s"] > 0


def test_what_is_planned_is_late_by_what_its_receiver_saw(peer: Peer) -> None:
    figures = measuring.punctual(peer, 50, 1)

    assert figures["early"] == 0
    assert 0 < figures["late_p50_ms"] <= figures["late_max_ms"]


def test_latency_is_counted_from_the_return_of_the_call(peer: Peer) -> None:
    figures = measuring.latency(peer, 10)

    assert figures["latency_p50_ms"] <= figures["latency_p99_ms"]


def test_the_table_has_a_column_for_each_of_them() -> None:
    assert table({"sked": {"per_s": 12_345, "runs": 3}, "other": {"per_s": 0.5, "runs": 3}}).splitlines() == [
        "| | sked | other |",
        "|---|---|---|",
        "| per_s | 12,345 | 0.5 |",
    ]


def test_one_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["kafka"])
    assert f"'kafka' is none of {', '.join(OTHERS)}" in capsys.readouterr().err
