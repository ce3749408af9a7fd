"""What a ledger proves, in one pass over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import quantiles

from tests.chaos.record import Start


@dataclass
class Verdict:
    """The counts of a run. Every list of ids names the messages that break a promise."""

    messages: int = 0
    starts: int = 0
    lost: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    #: (message, token) pairs that were started twice: two holders of one claim.
    twice_claimed: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    #: Duplicates that no fault explains: the message was not in flight when a process was killed.
    unexplained: list[str] = field(default_factory=list)
    lateness_ms: list[float] = field(default_factory=list)

    @property
    def good(self) -> bool:
        broken = self.lost + self.early + self.unexpected + self.unfinished + self.twice_claimed + self.unexplained
        return not broken

    def lines(self) -> list[str]:
        cuts = quantiles(self.lateness_ms, n=100) if len(self.lateness_ms) > 1 else [0.0] * 99
        return [
            f"messages {self.messages}, starts {self.starts}",
            f"lost {len(self.lost)}, early {len(self.early)}, unexpected {len(self.unexpected)}, "
            f"not delivered at the end {len(self.unfinished)}, one claim started twice {len(self.twice_claimed)}",
            f"duplicates {len(self.duplicates)}, of these not in flight at a kill {len(self.unexplained)}",
            f"first start after due: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, "
            f"max {max(self.lateness_ms, default=0.0):.1f} ms",
        ]


def check(statuses: Mapping[str, str], ledger: Iterable[Start], in_flight_at_kill: set[str]) -> Verdict:
    """`statuses` are the final statuses of every message that was scheduled, by id."""
    verdict = Verdict(messages=len(statuses))
    seen: dict[str, list[Start]] = {}
    for start in ledger:
        verdict.starts += 1
        seen.setdefault(start.id, []).append(start)
        if start.at < start.due:
            verdict.early.append(start.id)
    for id, started in seen.items():
        if id not in statuses:
            verdict.unexpected.append(id)
        if len({start.token for start in started}) < len(started):
            verdict.twice_claimed.append(id)
        if len(started) > 1:
            verdict.duplicates.append(id)
            if id not in in_flight_at_kill:
                verdict.unexplained.append(id)
        verdict.lateness_ms.append((min(start.at for start in started) - started[0].due) * 1000)
    verdict.lost = [id for id in statuses if id not in seen]
    verdict.unfinished = [id for id, status in statuses.items() if status != "delivered"]
    return verdict
