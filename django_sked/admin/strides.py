"""A verb on all that a filter leaves of messages that are no rows: in steps, too, in the order of their ids.

No transaction holds both a step and the entry that says how far the run has come. So the entry is written after each
step: a request that is killed in the midst of one leaves that in doubt, and whoever goes on does it once more. Until
then the entry says who is at it and since when, and the same page sent twice at once is not done twice.
"""

from __future__ import annotations

import heapq
import time
import uuid
from dataclasses import replace
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.db import transaction

from django_sked.admin import runs
from django_sked.admin.runs import Run, Sent
from django_sked.admin.stored import backend_of, is_stored

#: Ids that one look for the next messages keeps: what it finds is read no further.
MOST = 50_000
#: Seconds after which a request that has not been heard of is taken for killed.
LEASE = 60.0


def fits(sent: Sent) -> bool:
    """Can it be done in steps? Not where writes wait for the commit of this request, so that no step ends before that;
    nor to a workflow, of which children are changed before their parents."""
    if not is_stored(sent.rows) or sent.rows.workflow is not None:
        return False
    return not backend_of(sent.rows).postpone(sent.action.name, lambda: None)


def go_on(sent: Sent) -> Run:
    """Begin it, or go on with it, until it is done or `runs.SECONDS` have passed; not while another request does."""
    until = time.monotonic() + runs.SECONDS
    me = uuid.uuid4().hex[:6]
    run = _take(runs.begun(sent), me)
    if run.by != me:
        return run
    ids: list[UUID] = []
    is_all = False
    try:
        while not run.is_done and run.by == me:
            if not ids:
                ids = _beyond(sent, run.after)
                is_all = len(ids) < MOST
            run = _step(run, sent, ids[: runs.STEP], is_last=is_all and len(ids) <= runs.STEP)
            ids = ids[runs.STEP :]
            if time.monotonic() >= until:
                break
    finally:
        _take(run, "", of=me)
    return replace(run, by="", since=0)


def _beyond(sent: Sent, after: UUID) -> list[UUID]:
    """The first ids beyond this one in their order, which no verb changes."""
    return heapq.nsmallest(MOST, (id for id in sent.rows.ids() if id > after))


def _step(run: Run, sent: Sent, ids: list[UUID], *, is_last: bool) -> Run:
    """One more; the entry says so behind it, unless somebody else has taken the run over."""
    changed: int = getattr(sent.rows.filter(pk__in=ids), sent.action.name)(**sent.form.arguments()) if ids else 0
    with transaction.atomic(using=runs.log()):
        entry = _entry(run)
        known = Run.read(entry) or run
        if known.by != run.by:
            return known
        run = replace(
            known,
            changed=known.changed + changed,
            seen=known.seen + len(ids),
            after=ids[-1] if ids else known.after,
            is_done=is_last,
            since=int(time.time()),
        )
        runs.write(entry, run, sent)
    return run


def _take(run: Run, by: str, *, of: str = "") -> Run:
    """Say who is at it, if nobody is, or nobody has been heard of for long; or, by nobody's name, give up what is
    `of` somebody."""
    with transaction.atomic(using=runs.log()):
        entry = _entry(run)
        known = Run.read(entry)
        if known is None or known.is_done:
            return known or run
        if known.by not in ("", of) and time.time() - known.since < LEASE:
            return known
        if not by and known.by != of:
            return known
        taken = replace(known, by=by, since=int(time.time()) if by else 0)
        entry.change_message = entry.change_message.removesuffix(known.mark) + taken.mark
        entry.save(update_fields=["change_message"])
    return taken


def _entry(run: Run) -> LogEntry:
    return LogEntry.objects.using(runs.log()).select_for_update().get(pk=run.entry)
