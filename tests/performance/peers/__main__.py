"""django-sked beside others, on the same servers in one run; needs a package index.

    python -m tests.performance.peers --repeat 3
    python -m tests.performance.peers pgqueuer --messages 100000

The others are set up as they are fastest, django-sked as it is by default. Prints a table of medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.performance import priority
from tests.performance.figures import Figures, median, shown
from tests.performance.peers import measuring
from tests.performance.peers.environments import REQUIREMENTS, Peer, Servers, install

OTHERS = tuple(name for name in REQUIREMENTS if name != "sked")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.performance.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(OTHERS)}; without one, all")
    parser.add_argument("--messages", type=int, default=50_000, metavar="N", help="of a drain of the fast ones")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="show the medians of N rounds")
    parser.add_argument("--nice", type=int, help="as root, on a machine that is busy with other work: -10")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.peers) - set(OTHERS)):
        parser.error(f"{unknown[0]!r} is none of {', '.join(OTHERS)}")
    if options.nice:
        os.environ[priority.VARIABLE] = str(options.nice)
        priority.put_forward(os.getpid())
    servers = Servers()
    try:
        with tempfile.TemporaryDirectory(prefix="sked-peers-") as directory:
            names = ["sked", *(options.peers or OTHERS)]
            peers = [Peer(name, install(name, Path(directory)), servers) for name in names]
            print(table(_rounds(peers, options.messages, options.repeat)), flush=True)
    finally:
        servers.close()
    print(f"\npython={platform.python_version()} cores={os.cpu_count()} load={os.getloadavg()[0]:.1f}")
    return 0


def _rounds(peers: Sequence[Peer], messages: int, repeat: int) -> dict[str, Figures]:
    """The medians of each peer. They take turns at each workload, so that one stretch of time is as fair as another."""
    runs: dict[str, list[Figures]] = {peer.name: [{} for _ in range(repeat)] for peer in peers}
    for number in range(repeat):
        for workload in _workloads(messages):
            for peer in peers:
                found = workload(peer)
                runs[peer.name][number] |= found
                print(f"{number + 1}/{repeat} {peer.name}: {found}", file=sys.stderr, flush=True)
    return {name: median(each) for name, each in runs.items()}


def _workloads(messages: int) -> tuple[Callable[[Peer], Figures], ...]:
    def of(peer: Peer) -> int:
        # A tenth for those that would take minutes.
        return messages if peer.name in ("sked", "pgqueuer") else messages // 10

    return (
        lambda peer: measuring.drain(peer, of(peer), 2),
        lambda peer: measuring.drain(peer, of(peer)),
        lambda peer: measuring.insert(peer, 5_000),
        lambda peer: measuring.punctual(peer, 2_000, 20),
        lambda peer: measuring.latency(peer, 200),
    )


def table(found: dict[str, Figures]) -> str:
    """A line for each figure, a column for each peer."""
    names = list(found)
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for figure in found[names[0]]:
        if figure != "runs":
            lines.append(f"| {figure} | {' | '.join(shown(found[name][figure]) for name in names)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
