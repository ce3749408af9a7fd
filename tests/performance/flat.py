"""What must cost the same however much is stored: in a small store, then with a long future, and once more while an old
snapshot keeps the dead rows of what has been settled and pruned since. Times are milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from uuid import UUID, uuid4

from django.contrib.auth import get_user_model
from django.test import Client

from django_sked.backends import message_backends
from django_sked.backends.database.store import messages as rows_of
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import Status
from django_sked.worker import Worker
from tests.performance.figures import Figures, spread, timed
from tests.performance.standing import looks, pinned_snapshot
from tests.performance.store import FUTURE, add_future, copy, empty, schedule, tidy

#: Messages of the small store: more than what the admin counts, or looks through.
SMALL = 20_000
#: Finished messages past their retention, for batches of so many to be pruned.
BATCH, BATCHES = 1_000, 40
#: How often each is asked.
TIMES = 100
PAGE = "/admin/django_sked/scheduledmessage/"

#: What is asked by name, and how often.
Asked = dict[str, tuple[int, Callable[[], object]]]


def flat(future: int, settled: int) -> Figures:
    """Looks, claims, verbs, sweeps and pages. Ratios are of medians, to those of the small store.

    While the snapshot is open, so many messages are claimed, settled and pruned by this process, which thus knows what
    a worker knows. Without a number of these that part is left out.
    """
    worker = Worker()
    small = _measured(_filled(worker, SMALL, BATCHES))
    asked = _filled(worker, future, settled // BATCH + 2 * BATCHES)
    large = _measured(asked)
    found: Figures = {"future": future, "settled": settled, **_beside("", large, small)}
    if settled:
        with pinned_snapshot():
            _settle(worker, settled)
            _prune(settled)
            worker._leases.beat()
            found |= _beside("bloated_", _measured(asked), small)
    return found


def _filled(worker: Worker, future: int, batches: int) -> Asked:
    empty()
    worker._leases.beat()
    add_future(future, key="k0")
    old = ScheduledMessage.objects.schedule("performance", {"i": -1, "t0": 0.0})
    finished_at = worker.backend.now() - timedelta(days=30)
    rows_of("default").filter(pk=old.pk).update(status=Status.DELIVERED, finished_at=finished_at)
    copy(ScheduledMessage.objects.get(pk=old.pk), batches * BATCH - 1)
    tidy()
    worker._leases.beat()
    newest = rows_of("default").filter(status=Status.SCHEDULED).order_by("-due_at")
    return _asked(worker, iter(list(newest.values_list("pk", flat=True)[: 3 * TIMES])))


def _asked(worker: Worker, ids: Iterator[UUID]) -> Asked:
    objects, backend = ScheduledMessage.objects, worker.backend
    keys = map("k{}".format, count(1))
    client = Client()
    client.force_login(get_user_model().objects.create_superuser(f"admin-{uuid4()}", password="admin"))
    return {
        # One of each kind at least, so that there is a queue to be looked at.
        "schedule": (TIMES, lambda: objects.schedule("performance", {"i": 1}, delay=FUTURE)),
        "schedule_claim_settle_10": (TIMES, lambda: _settle(worker, 10)),
        **{f"idle_{name}": (TIMES, ask) for name, ask in looks(worker).items() if name != "prune"},
        "find_by_key": (TIMES, lambda: objects.find(key=next(keys))),
        "cancel_by_id": (TIMES, lambda: objects.cancel(id=next(ids))),
        "cancel_by_key": (TIMES, lambda: objects.cancel(key=next(keys))),
        "reschedule_by_key": (TIMES, lambda: objects.reschedule(key=next(keys), delay=FUTURE)),
        f"prune_{BATCH}": (BATCHES // 2, lambda: backend.prune(limit=BATCH)),
        "admin_page": (5, lambda: client.get(PAGE)),
        "admin_search": (5, lambda: client.get(PAGE, {"q": next(keys)})),
        "admin_by_status": (5, lambda: client.get(PAGE, {"status__exact": "delivered"})),
    }


def _settle(worker: Worker, messages: int) -> None:
    """Schedule so many for now, claim them, and deliver them."""
    backend = worker.backend
    schedule(messages)
    while messages > 0:
        claimed = backend.claim(worker.id, "default", 500, ahead=0.2, quick=True)
        backend.settle([Outcome(id=one.pk, token=one.token, step="deliver") for one in claimed])
        messages -= len(claimed)


def _prune(messages: int) -> None:
    while messages > 0 and (gone := message_backends["default"].prune(limit=BATCH)):
        messages -= gone


def _measured(asked: Asked) -> Figures:
    return {name: spread(timed(times, ask)) for name, (times, ask) in asked.items()}


def _beside(prefix: str, measured: Figures, small: Figures) -> Figures:
    found: Figures = {}
    for name, took in measured.items():
        found |= {f"{prefix}{name}_p50_ms": took["p50_ms"], f"{prefix}{name}_max_ms": took["max_ms"]}
        found[f"{prefix}{name}_to_small"] = round(took["p50_ms"] / small[name]["p50_ms"], 2)
    return found
