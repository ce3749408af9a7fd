"""What must hold after each step: the store shows what the book says, and each difference breaks a named promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from datetime import datetime
from uuid import UUID

from django_sked.backends.base import BaseBackend
from django_sked.criteria import Criteria
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.model.book import LIVE, Book, Entry
from tests.model.moves import KEYS, QUEUES, WORKERS


class Violation(AssertionError):
    """A store that did what it must not; `invariant` says which promise that breaks."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


LOST = "nothing is lost"
UNEXPECTED = "nothing comes from nowhere"
EARLY = "nothing is claimed early"
ONLY_SCHEDULED = "only what is scheduled is claimed"
ALL_DUE = "what is due is claimed"
ONE_HOLDER = "no token is held twice"
TOKENS = "each claim and each rescue raises the token"
FENCE = "a stale settle changes nothing"
ORDER = "claims come in order"
ATTEMPTS = "attempts are counted once"
ANSWERS = "answers tell the truth"
ONE_KEY = "a key has one live holder, until that has finished"
CANCELLED = "cancelled stays cancelled"
TERMINAL = "only a redrive leads out of a finished status"
LEASES = "only what lapsed workers hold is rescued, and all of it"
SUSPECTS = "what a lost worker held is tried alone, and dies of its third"
EXPIRY = "what has expired ends, and nothing else"
RETENTION = "what is past its retention is deleted, and nothing else"
COUNTS = "counts by status agree"
VIEWS = "what is asked agrees with what is stored"
ROW = "every field is as the steps have left it"

_OF_FIELD = {
    "token": TOKENS,
    "attempt": ATTEMPTS,
    "unroutable": ATTEMPTS,
    "live_key": ONE_KEY,
    "cancel_requested": CANCELLED,
    "claimed_by": ONE_HOLDER,
    "suspect": SUSPECTS,
    "crashes": SUSPECTS,
    "expires_at": EXPIRY,
}
_FIELDS = Entry.__slots__
#: What a finished message keeps of these is nobody's business.
_ONLY_LIVE = {"claimed_by", "claimed_at", "next_at", "held_at", "token", "suspect"}


def check(invariant: str, condition: object, text: object = "") -> None:
    if not condition:
        raise Violation(invariant, str(text))


def agree(book: Book, stored: dict[UUID, ScheduledMessage]) -> None:
    """Every message is there, with every field as the book has it, and no other."""
    check(LOST, not (lost := book.entries.keys() - stored.keys()), lost)
    check(UNEXPECTED, not (strangers := stored.keys() - book.entries.keys()), strangers)
    held = Counter(message.live_key for message in stored.values() if message.live_key is not None)
    check(ONE_KEY, all(count == 1 for count in held.values()), held)
    for id, entry in book.entries.items():
        agree_on_one(entry, stored[id])


def agree_on_one(entry: Entry, message: ScheduledMessage, *, but: Container[str] = ()) -> None:
    for name in _FIELDS:
        known, found = getattr(entry, name), getattr(message, name)
        if name in but or is_moot(entry, name) or known == found:
            continue
        raise Violation(_broken(entry, name), f"{name} of {entry.id} ({entry.status}) is {found!r}, not {known!r}")


def is_moot(entry: Entry, name: str) -> bool:
    return name in _ONLY_LIVE and entry.status not in LIVE


def _broken(entry: Entry, name: str) -> str:
    if name != "status":
        return _OF_FIELD.get(name, ROW)
    return CANCELLED if entry.status == "cancelled" else ROW if entry.status in LIVE else TERMINAL


def counts_agree(book: Book, backend: BaseBackend, now: datetime) -> None:
    for status in Status:
        count = backend.count(Criteria(statuses=frozenset({status})))
        known = len(book.of_status(status))
        check(COUNTS, count == known, f"{count} {status}, not {known}")


def queues_agree(book: Book, backend: BaseBackend, now: datetime) -> None:
    check(VIEWS, backend.queues() == sorted({entry.queue for entry in book.of_status("scheduled")}), "queues()")
    for queue in [None, *QUEUES]:
        first = min(book.next_times(queue), default=None)
        check(VIEWS, backend.next_due_at(queue) == first, f"next_due_at({queue}) is not {first}")
    suspects = bool(book.due(QUEUES[1:], now, suspect=True))
    check(SUSPECTS, backend.has_suspects(QUEUES[1:], now=now) == suspects, f"has_suspects() is not {suspects}")


def holders_agree(book: Book, backend: BaseBackend, now: datetime) -> None:
    check(ONE_KEY, backend.keys() == book.keys(None), f"keys(): {backend.keys()}, not {book.keys(None)}")
    check(ONE_KEY, backend.keys(QUEUES[0]) == book.keys(QUEUES[0]), f"keys({QUEUES[0]}): {backend.keys(QUEUES[0])}")
    for worker in WORKERS:
        check(ONE_HOLDER, backend.held_by(worker) == book.held_by(worker), f"held_by({worker})")
    check(LEASES, backend.has_lapsed(now=now) == bool(book.lapsed(now)), "has_lapsed()")


def searches_agree(book: Book, backend: BaseBackend, now: datetime) -> None:
    for key in KEYS:
        try:
            found = backend.find(key=key).pk
        except ScheduledMessage.DoesNotExist:
            found = None
        check(VIEWS, found == book.found_by_key(key), f"{found} found by {key!r}, not {book.found_by_key(key)}")
    for status in (Status.SCHEDULED, Status.CANCELLED):
        criteria = Criteria(statuses=frozenset({status}), queue=QUEUES[0], due_until=now)
        ids = [message.pk for message in backend.page(criteria, 0, 3)]
        known = book.search(status, QUEUES[0], now)[:3]
        check(VIEWS, ids == known, f"found {ids}, not {known}")


#: What a worker or an administrator asks of the store, against the book.
VIEWS_AGREE = (counts_agree, queues_agree, holders_agree, searches_agree)
