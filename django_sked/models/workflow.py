from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models
from django.db.models import Count
from django.utils.translation import gettext_lazy as _

from django_sked import ids, verbs
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.criteria import Criteria
from django_sked.dependencies import Condition, EdgeState
from django_sked.queries import ScheduledMessageQuerySet
from django_sked.states import FINISHED, Status, known
from django_sked.twins import twin

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend
    from django_sked.backends.query import MessageQuery


class Dependency(models.Model):
    """One message waits for another: an edge from a parent to a child, decided once the parent has ended for good.

    Without foreign keys, as the messages are: see the explanation of the architecture.
    """

    id = models.BigAutoField(primary_key=True)
    parent_id = models.UUIDField(_("parent"))
    child_id = models.UUIDField(_("child"))
    condition = models.CharField(_("condition"), max_length=8, choices=Condition.choices)
    state = models.CharField(_("state"), max_length=8, choices=EdgeState.choices, default=EdgeState.NEW)
    # Whether it was this edge, unmet, that ended the child.
    is_end = models.BooleanField(default=False)

    class Meta:
        verbose_name = _("dependency")
        verbose_name_plural = _("dependencies")
        default_permissions = ("view",)
        constraints = [models.UniqueConstraint(fields=["child_id", "parent_id"], name="sked_dependency_edge")]
        indexes = [
            models.Index(fields=["parent_id", "state"], name="sked_dependency_parent"),
            # The sweep looks each second at what is to be told to a parent: without partial indexes, `state` leads.
            models.Index(fields=["id"], condition=models.Q(state__in=["new"]), name="sked_dependency_new"),
        ]

    def __str__(self) -> str:
        return f"{self.child_id} {self.condition} {self.parent_id}"


class Workflow(models.Model):
    """Messages that were scheduled together under a name, by `workflow()`; what became of them is asked of them."""

    class State(models.TextChoices):
        RUNNING = "running", _("running")
        HELD = "held", _("held")
        FAILED = "failed", _("failed")
        FINISHED = "finished", _("finished")

    id = models.UUIDField(_("id"), primary_key=True, default=ids.uuid7, editable=False)
    name = models.CharField(_("name"), max_length=255)
    backend = models.CharField(_("backend"), max_length=64, default=DEFAULT_ALIAS, editable=False)
    metadata: models.JSONField[Any, Any] = models.JSONField(_("metadata"), default=dict, blank=True)
    created_at = models.DateTimeField(_("created at"), editable=False)

    class Meta:
        verbose_name = _("workflow")
        verbose_name_plural = _("workflows")
        default_permissions = ("view",)
        indexes = [models.Index(fields=["name", "created_at"], name="sked_workflow_name")]

    def __str__(self) -> str:
        return self.name

    # What it says

    @property
    def store(self) -> BaseBackend:
        """The backend that has its messages."""
        return message_backends[self.backend]

    @property
    def messages(self) -> ScheduledMessageQuerySet | MessageQuery:
        """Its messages, by due time; with every bulk verb. Also those that receivers added to it."""
        return self.store.search(Criteria(workflow=self.pk))

    @property
    def counts(self) -> dict[str, int]:
        """How many of its messages there are in each status that some have, also in one of another release."""
        found = self.messages
        if isinstance(found, models.QuerySet):
            counted: Any = found.order_by().values_list("status").annotate(number=Count("pk"))
            return {known(status): number for status, number in counted}
        return dict(Counter(known(message.status) for message in found))

    @property
    def state(self) -> State:
        """Running while a message is live; held when people hold back all that could go on; else failed when a message
        has died or expired, also if others took care of that, or finished."""
        counts = self.counts
        is_held = False
        if {status for status in counts if status not in FINISHED} == {Status.BLOCKED}:
            is_held = any(message.held_at for message in self.store.search(_blocked(self.pk)))
        return self.state_of(counts, is_held=is_held)

    @classmethod
    def state_of(cls, counts: Mapping[str, int], *, is_held: bool) -> State:
        """The state of a workflow with so many messages in each status; `is_held` if a blocked one is on hold.

        Nobody knows what comes of a status of another release: it may be live.
        """
        live = {status for status, number in counts.items() if number and status not in FINISHED}
        if live == {Status.BLOCKED} and is_held:
            return cls.State.HELD
        if live:
            return cls.State.RUNNING
        has_failed = counts.get(Status.DEAD) or counts.get(Status.EXPIRED)
        return cls.State.FAILED if has_failed else cls.State.FINISHED

    # Changes

    def cancel(self, *, reason: str = "") -> int:
        """Cancel all that is pending, and ask the workers of what is claimed to; returns how many were cancelled."""
        return self._change(verbs.Cancel(reason=reason))

    def hold(self, *, reason: str = "") -> int:
        """Keep back all that is pending; what a worker holds goes on."""
        return self._change(verbs.Hold(reason=reason))

    def resume(self) -> int:
        """Let what is held go on."""
        return self._change(verbs.Resume())

    def redrive(self) -> int:
        """Schedule what is dead again; what was cancelled for it waits again, what was released stays so."""
        return self._change(verbs.Redrive())

    def _change(self, verb: verbs.Verb) -> int:
        """All at once: were a part cancelled before the rest, what waits for its end might begin."""
        return self.store.at_once(lambda: self.messages._change(verb))

    acancel = twin(cancel)
    ahold = twin(hold)
    aresume = twin(resume)
    aredrive = twin(redrive)


def _blocked(workflow: UUID) -> Criteria:
    return Criteria(workflow=workflow, statuses=frozenset({Status.BLOCKED}))
