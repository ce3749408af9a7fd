"""A verb on all that a filter leaves: a step at a time, for as long as a page may take, then on from where it stopped.

What a run has done is written into its entry in the history, in the transaction of each step. So a request that is
killed has done whole steps only, and when the same page is sent again, by "Go on" or by reloading it, the run goes on
behind the last of them: what is moved by an hour is never moved by two. That holds where the history is in the database
of the messages; in another one, and of messages that are no rows (`strides.py`), the last step may be done twice.

What is done at once, be it to a few messages or to those that were selected, is a run that is done: each of its entries
says so, and the same page sent again does nothing.

A run is one page and what was asked for on it: with another verb, filter, reason or anything else that was entered, the
page is another run, with an entry of its own.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Self
from uuid import UUID

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.db import router, transaction
from django.db.models.functions import Coalesce
from django.forms import BooleanField
from django.http import HttpRequest
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from django_sked.admin import applying, walks
from django_sked.admin.actions import Action
from django_sked.admin.applying import Applied
from django_sked.admin.forms import VerbForm, canonical
from django_sked.admin.lists import capped_count
from django_sked.admin.stored import backend_of
from django_sked.admin.walks import Rows

#: Seconds after which a page stops and offers to go on; less than proxies wait for an answer.
SECONDS = 10.0
#: Messages that one step changes, in one transaction.
STEP = 1000
#: The field of the page that asks, which names it: the same page sent again with the same in it is the same run.
RUN = "_run"
#: Entries of a user among which a run is looked for: those for many messages, and those for one each.
_RECENT, _RECENT_EACH = 100, 1000
_MARK = re.compile(
    r" \[run (?P<run>[0-9a-f]{12}): (?P<changed>\d+) of (?P<seen>\d+), "
    r"(?:(?P<done>done)|after (?P<after>[0-9a-f-]{36})(?:, by (?P<by>[0-9a-f]{6}) since (?P<since>\d+))?)\]$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How far it has come: of the messages seen so far, up to this id, so many were changed."""

    id: str
    changed: int = 0
    seen: int = 0
    after: UUID = UUID(int=0)
    is_done: bool = False
    entry: int = 0
    #: Which request is at it, and since which second: of messages that are no rows (`strides.py`).
    by: str = ""
    since: int = 0

    @classmethod
    def read(cls, entry: LogEntry) -> Self | None:
        """As the entry says; None where it is about something else."""
        found = _MARK.search(entry.change_message)
        if found is None:
            return None
        after, numbers = found["after"], {name: int(found[name] or 0) for name in ("changed", "seen", "since")}
        is_done, by = found["done"] is not None, found["by"] or ""
        return cls(id=found["run"], after=UUID(after or "0" * 32), is_done=is_done, entry=entry.pk, by=by, **numbers)

    @property
    def mark(self) -> str:
        """What is put behind the text of the entry."""
        rest = "done" if self.is_done else f"after {self.after}"
        if self.by and not self.is_done:
            rest += f", by {self.by} since {self.since}"
        return f" [run {self.id}: {self.changed} of {self.seen}, {rest}]"

    def applied(self, action: Action) -> Applied:
        return Applied(action=action, changed=self.changed, unchanged=self.seen - self.changed)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A page that asks, as it was sent: which verb, on what, with what."""

    request: HttpRequest
    #: `Messages`; what goes on in steps are rows.
    rows: Any
    action: Action
    form: VerbForm

    @property
    def is_known(self) -> bool:
        """Can it be sent again?"""
        return RUN in self.request.POST

    @cached_property
    def page(self) -> str:
        return page(self.request)

    @cached_property
    def run(self) -> str:
        """The id of its run, by which nothing of what it is about can be guessed."""
        chosen = [] if is_across(self.request) else sorted(self.request.POST.getlist(ACTION_CHECKBOX_NAME))
        where = [backend_of(self.rows).alias, self.request.path, self.request.GET.urlencode(), chosen]
        asked = canonical([self.page, self.action.name, *where, self.form.entered])
        return salted_hmac("django_sked.run", asked, algorithm="sha256").hexdigest()[:12]


def page(request: HttpRequest) -> str:
    """What names the page that was sent, or the one that is to be shown."""
    given = request.POST.get(RUN, "")
    return given if re.fullmatch("[0-9a-f]{12}", given) else uuid.uuid4().hex[:12]


def is_across(request: HttpRequest) -> bool:
    """Is it for everything that the filters leave? Read as Django's own form reads it."""
    return BooleanField(required=False).to_python(request.POST.get("select_across")) or False


def of(sent: Sent) -> Run | None:
    """The run that this page has begun before, if it has."""
    if not sent.is_known:
        return None
    entries = LogEntry.objects.using(log()).filter(user=sent.request.user.pk).order_by("-pk")
    batches, each = entries.filter(object_id=None)[:_RECENT], entries.exclude(object_id=None)[:_RECENT_EACH]
    return next((run for run in map(Run.read, chain(batches, each)) if run is not None and run.id == sent.run), None)


def at_once(sent: Sent) -> Applied:
    """All of it, if this page has not done it before.

    Up to `MOST_ENTRIES` rows change together with what says so, and two requests for them wait for each other.
    """
    backend = backend_of(sent.rows)
    few = sent.is_known and backend.joins_transactions and capped_count(sent.rows) <= applying.MOST_ENTRIES
    if not few:
        return _apply(sent)
    with transaction.atomic(using=log()), transaction.atomic(using=backend.database):
        backend.begin_change()
        _lock(sent.request)
        run = of(sent)
        return _apply(sent) if run is None else run.applied(sent.action)


def _apply(sent: Sent) -> Applied:
    def mark(changed: int, seen: int) -> str:
        return Run(id=sent.run, changed=changed, seen=seen, is_done=True).mark if sent.is_known else ""

    return applying.apply(sent.request, sent.rows, sent.action, sent.form, mark)


def go_on(sent: Sent) -> Run:
    """Begin it, or go on with it, until it is done or `SECONDS` have passed."""
    until = time.monotonic() + SECONDS
    run = begun(sent)
    while not run.is_done:
        run = _step(run, sent)
        if time.monotonic() >= until:
            break
    return run


def begun(sent: Sent) -> Run:
    """As far as it has come; with an entry that says that it began, if there was none."""
    with transaction.atomic(using=log()):
        _lock(sent.request)
        run = of(sent)
        if run is not None:
            return run
        entry = applying.start_batch(sent.request, sent.action, sent.form)
        run = Run(id=sent.run, entry=entry.pk)
        entry.change_message += run.mark
        entry.save(update_fields=["change_message"])
    return run


def _lock(request: HttpRequest) -> None:
    """The same page sent twice at once begins one run."""
    get_user_model()._default_manager.using(log()).select_for_update().filter(pk__in=[request.user.pk]).first()


def _step(run: Run, sent: Sent) -> Run:
    """One more, and the entry says so, or neither."""
    action, form = sent.action, sent.form
    rows: Rows = sent.rows
    backend = backend_of(rows)  # type: ignore[arg-type]
    with transaction.atomic(using=log()), transaction.atomic(using=backend.database):
        backend.begin_change()
        entry = LogEntry.objects.using(log()).select_for_update().get(pk=run.entry)
        run = Run.read(entry) or run
        if run.is_done:  # another request has gone on with it
            return run
        ids, after = _next(rows, run.after)
        found = rows.model.objects.using(rows.db).filter(pk__in=ids)
        changed: int = getattr(found, action.name)(**form.arguments()) if ids else 0
        run = replace(
            run,
            changed=run.changed + changed,
            seen=run.seen + len(ids),
            after=after or run.after,
            is_done=after is None,
        )
        write(entry, run, sent)
    return run


def write(entry: LogEntry, run: Run, sent: Sent) -> None:
    """What was done so far. The mark of a run that is done stays where the page may be sent again."""
    text = applying.batch_text(sent.action, sent.form, run.changed)
    if not run.is_done:
        text = _("%(text)s That is not all yet.") % {"text": text}
    mark = "" if run.is_done and not sent.is_known else run.mark
    entry.change_message = text + applying.reason_text(sent.form) + mark
    entry.save(update_fields=["change_message"])


def _next(rows: Rows, after: UUID) -> tuple[Sequence[UUID], UUID | None]:
    """Ids of the next step in their order, and up to which id it has looked; None when there is nothing beyond."""
    rest = rows.order_by().filter(pk__gt=after)
    walk = walks.walk(rows, descending=True)
    if walk.few:
        # By an expression, so that the index of what leaves few is used, and not that of ids.
        ids = list(rest.order_by(Coalesce("pk", "origin")).values_list("pk", flat=True)[:STEP])
        return ids, ids[-1] if len(ids) == STEP else None
    everything = rows.model.objects.using(rows.db).filter(pk__gt=after).order_by("pk").values_list("pk", flat=True)
    edge = next(iter(everything[walks.LOOKED - 1 : walks.LOOKED]), None)
    if edge is not None:
        rest = rest.filter(pk__lte=edge)
    ids = list(rest.order_by("pk").values_list("pk", flat=True)[:STEP])
    return ids, ids[-1] if len(ids) == STEP else edge


def log() -> str:
    """Which database has the history."""
    return router.db_for_write(LogEntry)
