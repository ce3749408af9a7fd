"""Wake-ups: idle workers are told of messages that are due before they would look. Hints only: whoever polls misses
nothing.

Workers in this process are told directly, on PostgreSQL all others by NOTIFY; never before the commit, and on other
databases workers in other processes poll.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Min

from django_sked.backends import hint as hints
from django_sked.backends.attention import Attention
from django_sked.backends.base import BaseBackend
from django_sked.backends.database.listening import Listener
from django_sked.backends.database.store import messages as rows_of
from django_sked.backends.hint import Hint, parsed
from django_sked.backends.quiet import Quiet
from django_sked.clock import monotonic
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.verbs import Verb

logger = logging.getLogger("django_sked.backends.database")

CHANNEL = "django_sked"
#: Seconds after a NOTIFY for which this process sends no other for that queue: `attention.AGAIN` is longer.
WINDOW = 0.005
#: A message may become due while the transaction that writes it is still open: looked at again after the commit.
LONGEST_TRANSACTION = timedelta(minutes=1)
#: Claims never overlook a message that was due so short a time ago (bands.MARGIN, less what clocks are apart).
RECENT = timedelta(milliseconds=200)
#: The most messages whose time is looked up: among more, one is surely due.
MOST_ASKED = 2000
#: Of so many it is known when they were last announced; to forget one costs a NOTIFY.
MOST_QUEUES = 1000

#: See `BaseBackend.listen`.
Wake = Callable[[str | None], bool]


@dataclass(slots=True)
class _Pending:
    """What is to be told after a commit; `ask` are messages whose time is looked up then."""

    hint: Hint | None
    ask: list[UUID] = field(default_factory=list)
    #: The commit hooks among which the telling is.
    hooks: list[Any] | None = None

    def add(self, other: _Pending) -> None:
        self.hint = self.hint.merged(other.hint) if self.hint and other.hint else self.hint or other.hint
        self.ask += other.ask


class _Thread(threading.local):
    pending: _Pending | None = None


class Wakeups:
    """What one backend tells, and who in this process listens to it."""

    def __init__(self, backend: BaseBackend, *, enabled: bool) -> None:
        assert backend.database is not None
        self._id = uuid.uuid4().hex
        self._backend = backend
        self._using = backend.database
        self._enabled = enabled
        self._horizon = timedelta(seconds=backend.options.poll_interval)
        self._wakers: list[Wake] = []
        self._attentions: list[Attention] = []
        self._thread = _Thread()
        #: Queue -> when this process has last sent a NOTIFY, and what.
        self._sent: dict[str | None, tuple[float, Hint]] = {}
        self._quiet = Quiet()

    @property
    def reach_other_processes(self) -> bool:
        return self._enabled and connections[self._using].vendor == "postgresql"

    @property
    def _sender(self) -> str:
        """Another one in each process, also if they were forked from one."""
        return f"{self._id}-{os.getpid()}"

    # Listen

    def listen(self, wake: Wake) -> Callable[[], None]:
        """Have `wake` called, from whatever thread, until the function that is returned is called."""
        if not self._enabled:
            return lambda: None
        self._wakers.append(wake)
        attention = Attention(lambda hint, again: self._look(hint, again, wake))
        listener = None
        if self.reach_other_processes:
            self._attentions.append(attention)
            listener = Listener(self._using, CHANNEL, attention, lambda payload: self._hear(payload, attention))
            listener.start()

        def stop() -> None:
            if wake in self._wakers:
                self._wakers.remove(wake)
            if listener is not None:
                listener.stop()
            if attention in self._attentions:
                self._attentions.remove(attention)

        return stop

    def _hear(self, payload: str, attention: Attention) -> None:
        sender, hint = parsed(payload)
        if sender != self._sender:  # whose workers have been told directly
            attention.hear(hint)

    def _look(self, hint: Hint, again: bool, wake: Wake) -> bool:
        # What was not announced by itself is of the same queue, and of any priority.
        self._look_back(replace(hint, priority=None) if again else hint)
        return wake(hint.queue)

    def found(self) -> None:
        """A worker of this process has claimed something."""
        for attention in self._attentions:
            attention.found()

    def _look_back(self, hint: Hint) -> None:
        self._backend.look_back(hint.at, queue=hint.queue, priority=hint.priority)

    # Tell

    def added(self, messages: Sequence[ScheduledMessage], now: datetime) -> None:
        """These messages have been written, in a transaction that may be open still."""
        if self._enabled:
            self._tell_later(_Pending(hints.of_new(messages)), now)

    def changed(self, ids: Sequence[UUID], verb: Verb, now: datetime) -> None:
        """So have these changes."""
        if self._enabled:
            self._tell_later(_Pending(hints.of_change(verb, now), list(ids) if hints.must_be_asked(verb) else []), now)

    def released(self, ids: Sequence[UUID], now: datetime) -> None:
        """These wait for nothing any more."""
        if self._enabled:
            self._tell_later(_Pending(None, list(ids)), now)

    def _tell_later(self, news: _Pending, now: datetime) -> None:
        """After the commit; nothing for messages of a future that is too far."""
        if not news.ask and (news.hint is None or news.hint.at > now + self._horizon + LONGEST_TRANSACTION):
            return
        connection = connections[self._using]
        if not connection.in_atomic_block:
            # Where autocommit is off the commit is the caller's, and nobody tells us of it.
            if connection.get_autocommit():
                self._tell(news)
        elif (pending := self._thread.pending) and pending.hooks is connection.run_on_commit:
            # The hook is still among them: a commit, a rollback, also one to a savepoint, make a new list.
            pending.add(news)
        else:
            self._thread.pending = news
            transaction.on_commit(lambda: self._tell(news), using=self._using, robust=True)
            news.hooks = connection.run_on_commit

    def _tell(self, news: _Pending) -> None:
        """Wake those who would look too late. What goes wrong here does not concern the caller, who has committed."""
        connection = connections[self._using]
        if connection.in_atomic_block:
            return  # not committed: a test that runs the hooks by itself
        try:
            if news.ask:
                news.add(_Pending(self._ask(news.ask)))
            now = self._backend.now()
            if news.hint is None or news.hint.at > now + self._horizon:
                return
            if self._wakers:
                self._look_back(news.hint)
            for wake in list(self._wakers):
                wake(news.hint.queue)
            if self.reach_other_processes and not self._is_told(news.hint, now):
                self._notify(connection, news.hint)
        except Exception as error:
            if self._quiet.is_over():
                logger.info("wakeup_failed database=%s error=%s", self._using, type(error).__name__)

    def _ask(self, ids: list[UUID]) -> Hint | None:
        if len(ids) > MOST_ASKED:
            return Hint(at=self._backend.now())
        scheduled = rows_of(self._using).filter(pk__in=ids, status=Status.SCHEDULED)
        at: datetime | None = scheduled.aggregate(at=Min("next_at"))["at"]
        return None if at is None else Hint(at=at)

    def _is_told(self, hint: Hint, now: datetime) -> bool:
        """Whoever heard the last NOTIFY looks again after the window, and then also finds this one."""
        sent_at, sent = self._sent.get(hint.queue, (float("-inf"), hint))
        return monotonic() - sent_at < WINDOW and hint.at >= min(sent.at, now - RECENT)

    def _notify(self, connection: Any, hint: Hint) -> None:
        # Noted first: nobody hears of it before that. Two threads at once may send one too many.
        if len(self._sent) > MOST_QUEUES:
            self._sent.clear()
        self._sent[hint.queue] = (monotonic(), hint)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, hint.payload(self._sender)])
