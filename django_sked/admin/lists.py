"""The list of messages without a full count: ordered by due time along its index, in pages, with a capped total."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import DataError
from django.db.models import QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest
from django.utils.translation import gettext as _

from django_sked.admin.stored import StoredMessages, is_stored
from django_sked.models import ScheduledMessage

#: Rows that a total counts at most ...
CAP = 10_000
#: ... and that can be reached by turning pages; who looks further uses a filter.
FURTHEST = 100_000
#: Fields that can be long and that no column shows.
LONG = ("payload", "metadata", "retry_policy", "delivered_to", "errors", "result")


def capped_count(queryset: QuerySet[Any] | StoredMessages, cap: int = CAP) -> int:
    """How many messages, or `cap` + 1 for more than `cap`: reads no more than that."""
    return queryset.order_by()[: cap + 1].count()


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Knows how many pages there are up to a cap, which is a little beyond the page in view."""

    def __init__(self, queryset: QuerySet[Any], per_page: int, *, page: int = 1) -> None:
        super().__init__(queryset, per_page)
        self.queryset = queryset
        self.cap = max(CAP, min((page + 4) * per_page, FURTHEST))

    @cached_property
    def _counted(self) -> int:
        return capped_count(self.queryset, self.cap)

    @cached_property
    def count(self) -> int:
        return min(self._counted, self.cap)

    @property
    def is_capped(self) -> bool:
        """Are there more rows than `count`?"""
        return self._counted > self.cap


class MessageList(ChangeList):
    def url_for_result(self, result: Any) -> str:
        """The page of a message, which says in which backend it is."""
        ours: Any = self.model_admin
        url: str = ours.url("change", result.pk, backend=result.backend)
        return url

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[ScheduledMessage]:
        return super().get_queryset(request, exclude_parameters=exclude_parameters).defer(*LONG)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str | Combinable]:
        """Both columns of the index sked_message_due in one direction, so that a page is read from it."""
        return ["due_at", "id"] if "due_at" in super().get_ordering(request, queryset) else ["-due_at", "-id"]

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """A filter that is sent without a value, as by its button "Show", filters nothing."""
        found: dict[str, Any] = super().get_filters_params(params)
        return {name: value for name, value in found.items() if not _is_blank(value)}

    def get_results(self, request: HttpRequest) -> None:
        try:
            super().get_results(request)
            if is_stored(self.root_queryset):
                self.search_help_text = _("An id, a key or an event.")
        except (DataError, OverflowError, ValueError) as error:
            # A value of a filter that only the database can see is none: NUL in a text, a time before the year 1.
            raise IncorrectLookupParameters(error) from error


def _is_blank(value: str | Sequence[str]) -> bool:
    return not any([value] if isinstance(value, str) else value)
