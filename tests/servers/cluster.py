"""A private Valkey cluster of three nodes without replicas."""

from __future__ import annotations

import atexit
import time
from typing import Any, Self

from tests.servers.base import START_TIMEOUT, Entry, ServerError, free_port
from tests.servers.redis import BACKEND, Valkey

SLOTS = 16384


class ValkeyCluster:
    """Each node is a `Valkey` of its own, and may `crash()` alone."""

    def __init__(self, *, nodes: int = 3, **options: object) -> None:
        self.nodes: list[Valkey] = []
        atexit.register(self.close)
        for _ in range(nodes):
            settings = {"cluster_enabled": "yes", "cluster_port": free_port(), "cluster_node_timeout": 2000}
            self.nodes.append(Valkey(tcp=True, **settings, **options))  # type: ignore[arg-type]
        self._join()

    @property
    def entry(self) -> Entry:
        """What to put into SKED."""
        return {"BACKEND": BACKEND, "LOCATION": f"redis+cluster://{','.join(node.address for node in self.nodes)}"}

    def _join(self) -> None:
        share, first = SLOTS // len(self.nodes), self.nodes[0]
        for number, node in enumerate(self.nodes):
            last = SLOTS - 1 if node is self.nodes[-1] else (number + 1) * share - 1
            with node.connect() as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", number * share, last)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER MEET", "127.0.0.1", first.port, first.options["cluster-port"])
        self._wait()

    def _wait(self) -> None:
        """Until each node finds that all slots are served."""
        deadline = time.monotonic() + START_TIMEOUT
        while not all(_is_complete(node, len(self.nodes)) for node in self.nodes):
            if time.monotonic() > deadline:
                raise ServerError("The nodes of the cluster did not find each other.")
            time.sleep(0.02)

    def owner(self, key: str) -> Valkey:
        """The node that serves the slot of this key."""
        with self.nodes[0].connect() as client:
            slot = client.execute_command("CLUSTER KEYSLOT", key)
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS"):
                if first <= slot <= last:
                    return next(node for node in self.nodes if node.port == port)
        raise ServerError(f"No node serves the slot {slot}.")

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        self._wait()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def crash(self) -> None:
        """All nodes at once."""
        for node in self.nodes:
            node.crash()

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _is_complete(node: Valkey, nodes: int) -> bool:
    with node.connect() as client:
        found: dict[str, Any] = client.cluster("info")
    return found["cluster_state"] == "ok" and int(found["cluster_known_nodes"]) == nodes
