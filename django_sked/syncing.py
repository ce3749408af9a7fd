"""What the code declares becomes rows; and wall times become instants again, by the rules that zones have now."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, transaction
from django.db.models import QuerySet

from django_sked import civil, relocating, ticking, triggers
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import InvalidMessage, SkedError
from django_sked.models import Recurrence, occurrences
from django_sked.recurring import Declaration, declarations
from django_sked.verbs import Reschedule

logger = logging.getLogger("django_sked")


@dataclass(slots=True)
class Report:
    """The names of recurrences by what was done to them, and the number of messages that were moved.

    What cannot be read, or asked, keeps nothing else waiting: recurrences and messages that were left as they are, and
    aliases whose recurrences or messages were not looked through, and why.
    """

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    moved: int = 0
    unsynchronised: dict[str, str] = field(default_factory=dict)
    unmoved: dict[UUID, str] = field(default_factory=dict)
    unreached: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """What is refused of this recurrence is noted, and ends nothing; nor does a store that is away."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, SkedError | relocating.Unreachable) and not _is_expected(error):
                raise
            logger.error("not_synchronised recurrence=%s reason=%s", name, error)
            self.unsynchronised[name] = str(error)

    @contextmanager
    def reaching(self, backend: BaseBackend) -> Iterator[None]:
        """That the store of this backend, or the database of its recurrences, is away is noted, and ends nothing."""
        try:
            yield
        except Exception as error:
            if not _is_expected(error):
                raise
            logger.error("not_synchronised backend=%s reason=%s", backend.alias, error)
            self.unreached[backend.alias] = str(error)


def _is_expected(error: Exception) -> bool:
    """Is it of a normal day to any of the stores? A recurrence may have to do with two."""
    return any(backend.is_expected(error) for backend in message_backends.all())


def sync(*, prune: bool = False, database: str | None = None) -> Report:
    """Bring the stored recurrences to what the code declares, in all databases or one.

    A declaration that is gone leaves its row paused, and marked orphaned; with `prune` it is deleted. One that comes
    back goes on, and one that has another backend now goes on there. What people have paused stays paused. Recurrences
    that no code has declared are left alone.
    """
    report = Report()
    backends = [
        backend
        for backend in message_backends.all()
        if database is None or Recurrence.objects.database_of(backend) == database
    ]
    # First all that is there, under whatever alias; then what is left of each alias is gone from the code.
    for backend in backends:
        for declaration in _declared(backend):
            with report.noting(declaration.name):
                _bring(backend, declaration, report)
    for backend in backends:
        with report.reaching(backend):
            _leave(backend, report, prune=prune)
            _follow_rules(backend, report)
        if database is None:
            with report.reaching(backend):
                moved, unmoved = move_wall_times(backend)
                report.moved += moved
                report.unmoved |= unmoved
    return report


def is_ready(database: str) -> bool:
    """Is the table there? Not when migrations have been undone, or those of another app only have been applied."""
    return Recurrence._meta.db_table in connections[database].introspection.table_names()


def _declared(backend: BaseBackend) -> list[Declaration]:
    return [each for each in declarations() if each.values["backend"] == backend.alias]


def _bring(backend: BaseBackend, declaration: Declaration, report: Report) -> None:
    rows = Recurrence.objects.using(Recurrence.objects.database_of(backend))
    stored = rows.filter(name=declaration.name).first()
    if stored is None or stored.orphaned_at is not None:
        before = relocating.former(declaration.name, rows.db, stored, is_ready)
        if before is not None:
            # As one change: no worker sees it without what it had come to.
            with transaction.atomic(using=rows.db):
                relocating.take_over(_write(rows, stored, declaration)[0], before)
            report.changed.append(declaration.name)
            return
    _row, is_changed = _write(rows, stored, declaration)
    if stored is None:
        report.created.append(declaration.name)
    elif is_changed:
        report.changed.append(declaration.name)


def _write(rows: QuerySet[Recurrence], stored: Recurrence | None, declaration: Declaration) -> tuple[Recurrence, bool]:
    """The row as it is declared; is anything of it new?"""
    if stored is None:
        made = Recurrence(**declaration.values, is_declared=True)
        try:
            with transaction.atomic(using=rows.db):
                made.save(using=rows.db, force_insert=True)
            return made, True
        except IntegrityError:
            # Another deploy has just written it.
            stored = rows.get(name=declaration.name)
    is_changed = stored.redefine(lambda row: _wanted(row, declaration), is_declared=True, orphaned_at=None)
    # Also where a sync that was killed came no further than the write above.
    if stored.status == Recurrence.Status.PAUSED and stored.reason == ticking.NOT_DECLARED:
        is_changed = stored.resume() or is_changed
    return stored, is_changed


def _wanted(stored: Recurrence, declaration: Declaration) -> dict[str, Any]:
    """What is declared; but where a receiver has said what the next payload is, that is not taken back."""
    kept = {"payload", "stateful"} if stored.has_next_payload else set()
    return {name: value for name, value in declaration.values.items() if name not in kept}


def _leave(backend: BaseBackend, report: Report, *, prune: bool) -> None:
    names = {each.name for each in _declared(backend)}
    elsewhere = {each.name for each in declarations()} - names
    # What could not be brought to another alias goes on here, until it can.
    stays = elsewhere & report.unsynchronised.keys()
    orphans = Recurrence.objects.of(backend).filter(is_declared=True).exclude(name__in=names | stays)
    for orphan in orphans.order_by("name"):
        with report.noting(orphan.name):
            # What it has made ahead is delivered, if the declaration has only got another backend.
            is_gone = orphan.name not in elsewhere
            if prune:
                if is_gone:
                    orphan.cancel_ahead(reason=ticking.NOT_DECLARED)
                orphan.delete()
                report.pruned.append(orphan.name)
            elif orphan.orphaned_at is None and orphan.orphan(cancels=is_gone):
                report.orphaned.append(orphan.name)


def _follow_rules(backend: BaseBackend, report: Report) -> None:
    """The next tick was an instant by the rules that its zone had then, all but that of an interval: find it again."""
    active = Recurrence.objects.of(backend).filter(status=Recurrence.Status.ACTIVE, next_tick_at__isnull=False)
    if not active.exists():
        return  # nothing is asked of a store that may be away
    now = backend.now()
    for stored in active.filter(next_tick_at__gt=now + ticking.AHEAD).order_by("name"):
        with report.noting(stored.name):
            tick = _next_by_the_rules(stored, now)
            if tick is None or tick == stored.next_tick_at:
                continue
            look_at = tick - ticking.AHEAD
            fields = {"next_tick_at": tick, "look_at": min(look_at, stored.look_at or look_at)}
            if stored.since_tick_at == stored.next_tick_at:
                fields["since_tick_at"] = tick
            if stored.write(fields):
                report.changed.append(stored.name)


def _next_by_the_rules(stored: Recurrence, now: datetime) -> datetime | None:
    """The tick that its next one is by the rules of today, which may have passed; None where it has to stay.

    That is the first one after now, or one before it that no message has, if that is nearer to the known one.
    """
    known = stored.next_tick_at
    if known is None or stored.trigger.get("kind") not in triggers.kinds:
        return None
    try:
        if isinstance(triggers.from_json(stored.trigger), triggers.Every):
            return None
        first = stored.first_tick(now)
        if first is None or first <= known:
            return first
        made = (stored.last_tick_at or stored.created_at) + datetime.resolution
        since = max(made, known - (first - known) + datetime.resolution, stored.start_at or made)
        return max(occurrences.ticks_between(stored, since, now), default=first)
    except SkedError:
        raise
    except Exception as error:  # of a class of the project's own
        raise InvalidMessage(f"trigger must say when it comes next, and not {error!r}.") from error


def move_wall_times(backend: BaseBackend) -> tuple[int, dict[UUID, str]]:
    """Reschedule the pending messages whose wall time is another instant by now; not those whose time has come, nor
    those that wait for another attempt.

    Returns how many were moved, and those whose wall time or zone cannot be read, with the reason: they stay where they
    are.
    """
    moved, unmoved, now = 0, {}, backend.now()
    for message in backend.by_wall_time():
        if message.due_at <= now or message.next_at != message.due_at:
            continue
        text = message.local_time
        assert text is not None
        try:
            due_at = civil.instant_of(*civil.from_text(text))
        except InvalidMessage as error:
            logger.error("not_moved event=%s id=%s reason=%s", message.event, message.pk, error)
            unmoved[message.pk] = str(error)
            continue
        if due_at != message.due_at:
            # Not where somebody has moved it since it was read.
            seen = {name: getattr(message, name) for name in ("local_time", "due_at", "next_at")}
            verb = Reschedule(due_at=due_at, fields={"local_time": text}, seen=seen)
            moved += bool(backend.change_one(message.pk, verb))
    return moved, unmoved
