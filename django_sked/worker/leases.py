"""The worker's one lease: kept by beats, trusted only while this host's own clock says it is fresh."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from django_sked import clock, failpoints
from django_sked.backends.base import BaseBackend
from django_sked.models import WorkerProcess

#: The part of a lease during which receivers may be started, counted from before the beat was sent.
TRUSTED = 0.8
#: Seconds after an outage within which every worker has beaten again, however long its lease is and its waits between
#: two tries (see `Loop`) have become.
RETURN = 12.0


class Leases:
    """Renews the lease, and answers whether work may be started and whether others' work may be taken back."""

    def __init__(self, backend: BaseBackend, process: WorkerProcess) -> None:
        self._backend = backend
        self._process = process
        self._good_until = float("-inf")
        self._unbroken_since: float | None = None
        self._was_away = False
        self._asked = False
        #: Raised whenever the lease is there again after it may have run out. What was claimed in an earlier term may
        #: have been rescued since: nothing of it is started any more.
        self.term = 0
        #: Messages held here whose cancel was requested, as of the last beat, and the tokens of those claims.
        self.cancel_requested: Mapping[UUID, int] = {}

    @property
    def interval(self) -> float:
        return self._process.lease / 3

    def register(self) -> None:
        """Make the worker known. May be tried again: a try that failed may have reached the store all the same."""
        if self._asked:
            self.beat()
            return
        self._asked = True
        sent = clock.monotonic()
        self._backend.register(self._process)
        self._renewed(sent)

    def beat(self) -> None:
        """Renew the lease; a failure leaves it to run out, and starts the whole-lease wait of `may_rescue` again."""
        sent = clock.monotonic()
        failpoints.hit("beat")
        try:
            self.cancel_requested = self._backend.beat(self._process)
        except Exception:
            self._unbroken_since = None
            self._was_away = True
            raise
        self._renewed(sent)

    def _renewed(self, sent: float) -> None:
        if not self.may_start():
            self.term += 1  # first, because who looks at the lease looks at the term after that
            self._unbroken_since = sent
        elif self._unbroken_since is None:
            self._unbroken_since = sent
        self._good_until = sent + TRUSTED * self._process.lease

    def may_start(self) -> bool:
        """Is the lease surely ours? Judged by the local monotonic clock, without asking anybody."""
        return clock.monotonic() < self._good_until

    def may_rescue(self) -> bool:
        """Have we had the store for one whole lease without a break? Else it may be the store that was away, and
        others, whose leases may be longer, are about to renew theirs."""
        since = self._unbroken_since
        enough = max(self._process.lease, RETURN) if self._was_away else self._process.lease
        return since is not None and self.may_start() and clock.monotonic() - since >= enough

    def retire(self) -> None:
        self._backend.retire(self._process)
