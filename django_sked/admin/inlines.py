"""The messages about an object, on the page of that object in its own admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.checks import InlineModelAdminChecks
from django.core.checks import CheckMessage
from django.db.models import Model, QuerySet
from django.forms.models import BaseModelFormSet, ModelForm, modelformset_factory
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_sked import subjects
from django_sked.admin.columns import Columns
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage

#: Messages that are listed at most.
MOST = 50


class SubjectFormSet(BaseModelFormSet):  # type: ignore[type-arg]
    """The messages about one object: there is no foreign key. To look at: nothing is saved."""

    def __init__(
        self,
        data: Any = None,
        files: Any = None,
        instance: Model | None = None,
        save_as_new: bool = False,
        prefix: str | None = None,
        queryset: QuerySet[ScheduledMessage] | None = None,
        **kwargs: Any,
    ) -> None:
        self.instance = instance
        rows = ScheduledMessage.objects.none() if queryset is None else queryset
        # Not bound: whatever is posted of them is not read.
        super().__init__(queryset=_about(instance, rows), prefix=prefix)
        # What the admin reads after a save.
        self.new_objects, self.changed_objects, self.deleted_objects = [], [], []

    @classmethod
    def get_default_prefix(cls) -> str:
        return "sked-messages"

    def is_valid(self) -> bool:
        return True

    def save(self, commit: bool = True) -> list[Any]:
        return []

    def save_m2m(self) -> None:
        """There is none."""


def _about(subject: Model | None, rows: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
    if subject is None or subject.pk is None:
        return rows.none()
    try:
        kind, id = subjects.identity(subject)
    except InvalidMessage:  # no message can be about it
        return rows.none()
    return rows.filter(subject_type=kind, subject_id=id).order_by("-due_at", "-id")[:MOST]


class _Checks(InlineModelAdminChecks):
    def _check_exclude_of_parent_model(self, obj: Any, parent_model: Any) -> list[CheckMessage]:
        return []

    def _check_relation(self, obj: Any, parent_model: Any) -> list[CheckMessage]:
        """There is no foreign key."""
        return []


class ScheduledMessageInline(Columns, admin.TabularInline):  # type: ignore[type-arg]
    """Put it into `inlines` of the admin of any model. The messages are those of the default backend's database."""

    model = ScheduledMessage
    formset = SubjectFormSet  # type: ignore[assignment]
    checks_class = _Checks
    fields = ("event", "queue", "state", "due", "attempts", "key")
    readonly_fields = fields
    verbose_name_plural = _("scheduled messages")
    show_change_link = True
    can_delete = False
    extra = 0
    max_num = 0

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScheduledMessage]:
        """None where the messages are no rows."""
        database = message_backends[DEFAULT_ALIAS].database
        rows = super().get_queryset(request)
        return rows.none() if database is None else rows.using(database)

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        return modelformset_factory(
            ScheduledMessage, form=ModelForm, formset=SubjectFormSet, fields=(), extra=0, max_num=0, can_delete=False
        )
