"""The workloads of `tests.performance`, of any peer. Rates are messages a second, times milliseconds."""

from __future__ import annotations

from tests.performance import sink
from tests.performance.figures import Figures, spread
from tests.performance.peers.environments import Peer
from tests.performance.waiting import wait_for


def drain(peer: Peer, messages: int, processes: int = 1) -> Figures:
    """Due messages are stored, then workers start; from the first start of a receiver to the last."""
    peer.begin_anew()
    stored = peer.call("fill", messages)
    peer.servers.tidy()
    with peer.workers(processes) as (directory, running):
        wait_for(lambda: sink.count(directory) >= messages, running)
        hits = sink.hits(directory)
    took = hits[messages - 1].start - hits[0].start
    return {f"drain_{processes}_per_s": round((messages - 1) / took), "bulk_per_s": round(stored["per_s"])}


def insert(peer: Peer, messages: int) -> Figures:
    """Stored one by one, each by a call and a commit of its own."""
    peer.begin_anew()
    return {"single_per_s": round(peer.call("singly", messages)["per_s"])}


def punctual(peer: Peer, messages: int, seconds: int) -> Figures:
    """Messages at random instants, planned while a worker is up; start of the receiver less due time."""
    peer.begin_anew()
    with peer.workers() as (directory, running):
        planned = peer.call("plan", messages, seconds)
        wait_for(lambda: sink.count(directory) >= messages, running)
        late = [(hit.start - hit.due) * 1000 for hit in sink.hits(directory)]
    if planned["spare_s"] < 0:
        raise SystemExit(f"{peer.name} had not stored them before the first was due.")
    return {"early": sum(1 for each in late if each < 0), **spread(late, "late_")}


def latency(peer: Peer, samples: int) -> Figures:
    """Stored for now while the worker idles; from the return of the call to the start of the receiver."""
    peer.begin_anew()
    with peer.workers() as (directory, running):
        # The worker is up when it has done something; the number is one that comes again.
        peer.call("singly", 1)
        wait_for(lambda: sink.count(directory) >= 2, running)
        returned = peer.call("latency", samples)["returned"]
        wait_for(lambda: sink.count(directory) >= samples + 2, running)
        hits = sink.hits(directory)[2:]
    return spread([(hit.start - returned[hit.number]) * 1000 for hit in hits], "latency_")
