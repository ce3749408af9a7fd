"""Nothing that the tests started outlives them, however they end."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Redis, Valkey, ValkeyCluster, Watched, empty
from tests.servers.base import _has_pdeathsig
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, sys
from tests import servers
# Whoever runs these tests in the background of a shell has them ignore it, and so would this.
signal.signal(signal.SIGINT, signal.default_int_handler)
server = servers.PostgreSQL()
if os.fork() == 0:
    sys.exit()  # with all atexit functions: must not stop the parent's server
os.wait()
assert server._answers()
print(server.socket, flush=True)
sys.stdin.readline()
"""


def answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


@pytest.mark.parametrize("end", [None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_with_the_process_that_started_it(end: signal.Signals | None) -> None:
    if end in {signal.SIGTERM, signal.SIGKILL} and not _has_pdeathsig():
        pytest.skip("needs setpriv --pdeathsig")
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        path = program.stdout.readline().strip()
        assert answers(path)

        if end is None:
            program.communicate("\n")
        else:
            program.send_signal(end)
            program.wait()

    until(lambda: not answers(path))
    if end in {None, signal.SIGINT}:
        assert not Path(path).parent.exists()
    shutil.rmtree(Path(path).parent, ignore_errors=True)


@pytest.mark.parametrize("kind", [Redis, Valkey])
def test_what_was_acknowledged_survives_a_crash_where_the_server_syncs_always(kind: type[Redis]) -> None:
    if kind.find() is None:
        pytest.skip(f"{kind.__name__} is not installed")
    with kind(durability="always") as server:
        with server.connect() as client:
            client.set("a", "1")
        server.crash()
        server.start()
        with server.connect() as client:
            assert client.get("a") == b"1"


def test_a_cluster_has_its_keys_after_a_restart_and_none_once_it_is_emptied() -> None:
    with ValkeyCluster() as cluster:
        with cluster.owner("a").connect() as client:
            client.set("a", "1")
        cluster.restart()
        with cluster.owner("a").connect() as client:
            assert client.get("a") == b"1"
            empty(cluster.entry)
            assert client.get("a") is None


def test_the_replica_takes_the_place_of_a_primary_that_crashed() -> None:
    with Watched() as watched:
        watched.fail_over()
        assert watched.present is watched.replica
