"""What the code declares becomes rows; and wall times become instants again, by the rules that zones have now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, connections, transaction

from django_sked import civil, ticking
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import Recurrence
from django_sked.recurring import Declaration, declarations
from django_sked.verbs import Reschedule


@dataclass(slots=True)
class Report:
    """The names of recurrences by what was done to them, and the number of messages that were moved."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    moved: int = 0


def sync(*, prune: bool = False, database: str | None = None) -> Report:
    """Bring the stored recurrences to what the code declares, in all databases or one.

    A declaration that is gone leaves its row paused, and marked orphaned; with `prune` it is deleted. One that comes
    back goes on. What people have paused stays paused. Recurrences that no code has declared are left alone.
    """
    report = Report()
    for backend in message_backends.all():
        if database is None or Recurrence.objects.database_of(backend) == database:
            wanted = [each for each in declarations() if each.values["backend"] == backend.alias]
            for declaration in wanted:
                _bring(backend, declaration, report)
            _leave(backend, {each.name for each in wanted}, report, prune=prune)
            _follow_rules(backend, report)
            if database is None:
                report.moved += move_wall_times(backend)
    return report


def is_ready(database: str) -> bool:
    """Is the table there? Not when migrations have been undone, or those of another app only have been applied."""
    return Recurrence._meta.db_table in connections[database].introspection.table_names()


def _bring(backend: BaseBackend, declaration: Declaration, report: Report) -> None:
    rows = Recurrence.objects.using(Recurrence.objects.database_of(backend))
    stored = rows.filter(name=declaration.name).first()
    if stored is None:
        try:
            with transaction.atomic(using=rows.db):
                Recurrence(**declaration.values, is_declared=True).save(using=rows.db, force_insert=True)
            report.created.append(declaration.name)
            return
        except IntegrityError:
            # Another deploy has just written it.
            stored = rows.get(name=declaration.name)
    came_back = stored.orphaned_at is not None
    is_changed = stored.redefine(_wanted(stored, declaration), is_declared=True, orphaned_at=None)
    if came_back and stored.status == Recurrence.Status.PAUSED and stored.reason == ticking.NOT_DECLARED:
        stored.resume()
    if is_changed:
        report.changed.append(declaration.name)


def _wanted(stored: Recurrence, declaration: Declaration) -> dict[str, Any]:
    """What is declared; but where a receiver has said what the next payload is, that is not taken back."""
    values = dict(declaration.values)
    if stored.stateful and values["stateful"] and stored.successes:
        del values["payload"]
    return values


def _leave(backend: BaseBackend, names: Iterable[str], report: Report, *, prune: bool) -> None:
    for orphan in Recurrence.objects.of(backend).filter(is_declared=True).exclude(name__in=names):
        if prune:
            orphan.cancel_ahead(reason=ticking.NOT_DECLARED)
            orphan.delete()
            report.pruned.append(orphan.name)
        elif orphan.orphaned_at is None and orphan.orphan():
            report.orphaned.append(orphan.name)


def _follow_rules(backend: BaseBackend, report: Report) -> None:
    """The next tick of a cron expression was an instant by the rules that its zone had then: find it again."""
    now = backend.now()
    ahead = Recurrence.objects.of(backend).filter(status=Recurrence.Status.ACTIVE, next_tick_at__gt=now + ticking.AHEAD)
    for stored in ahead:
        tick = stored.first_tick(now) if stored.trigger.get("kind") == "cron" else None
        if tick is None or tick == stored.next_tick_at:
            continue
        look_at = tick - ticking.AHEAD
        if stored.write({"next_tick_at": tick, "look_at": min(look_at, stored.look_at or look_at)}):
            report.changed.append(stored.name)


def move_wall_times(backend: BaseBackend) -> int:
    """Reschedule the pending messages whose wall time is another instant by now; returns how many were."""
    moved = 0
    for message in backend.by_wall_time():
        assert message.local_time is not None
        due_at = civil.instant_of(*civil.from_text(message.local_time))
        if due_at != message.due_at:
            fields: dict[str, Any] = {"local_time": message.local_time}
            moved += bool(backend.change_one(message.pk, Reschedule(due_at=due_at, fields=fields)))
    return moved
