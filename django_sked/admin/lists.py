"""The list of messages without a full count: along an index, from the place where the last page ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.db import DataError
from django.db.models import QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.translation import gettext as _

from django_sked.admin import times, walks
from django_sked.admin.cursors import Cursor, InvalidCursor
from django_sked.admin.stored import StoredMessages, is_stored
from django_sked.admin.walks import Edge, Walk
from django_sked.models import ScheduledMessage

#: Rows that a total counts at most ...
CAP = 10_000
#: ... and that can be reached by turning pages by their numbers; who looks further uses a filter.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """A page of a walk, and those beside it."""

    found: list[ScheduledMessage]
    previous: Cursor | None = None
    next: Cursor | None = None
    #: Where the look ended with less than a page found; the walk goes on.
    edge: Edge | None = None
    #: How many there are, as far as it is known, and are there more?
    total: int | None = None
    is_capped: bool = False


def turn(walk: Walk, cursor: Cursor | None, size: int) -> Turned:
    """The page that the cursor leads to; without one, the first."""
    if cursor is not None and cursor.backwards:
        found, edge = walk.stretch(cursor.place, size + 1, backwards=True)
        if len(found) <= size and edge is None:
            return turn(walk, None, size)  # there is less than a page before it: a whole one is the first
        page = list(reversed(found[:size]))
        before = Cursor.of(walk, page[0] if len(found) > size else _end(edge, found), backwards=True)
        after = Cursor.of(walk, page[-1]) if page else cursor.turned()
        return Turned(found=page, previous=before, next=after, is_capped=True)
    found, edge = walk.stretch(cursor.place if cursor else None, size + 1)
    page = found[:size]
    is_full = len(found) > size
    beyond = page[-1] if is_full else edge
    total, is_capped = _total(walk, cursor, found, size, edge)
    previous = None if cursor is None else Cursor.of(walk, page[0], backwards=True) if page else cursor.turned()
    return Turned(
        found=page,
        previous=previous,
        next=None if beyond is None else Cursor.of(walk, beyond),
        edge=None if is_full else edge,
        total=total,
        is_capped=is_capped,
    )


def glimpse(queryset: QuerySet[Any] | StoredMessages, size: int) -> Turned:
    """The first of them, and how many there are, at a cost that does not grow with the table."""
    if is_stored(queryset):
        counted = capped_count(queryset)
        return Turned(found=list(queryset[:size]), total=min(counted, CAP), is_capped=counted > CAP)
    return turn(walks.walk(queryset, descending=True), None, size)  # type: ignore[arg-type]


def _end(edge: Edge | None, found: list[ScheduledMessage]) -> Edge | ScheduledMessage:
    return found[-1] if edge is None else edge


def _total(
    walk: Walk, cursor: Cursor | None, found: list[ScheduledMessage], size: int, edge: Edge | None
) -> tuple[int | None, bool]:
    """How many there are, as far as it costs little to know, and whether there may be more."""
    if cursor is not None and walk.looks:
        return None, True
    if cursor is None and len(found) <= size:
        return len(found), edge is not None
    counted = walk.count(CAP, edge)
    return min(counted, CAP), counted > CAP or edge is not None


class MessageList(ChangeList):
    #: Addresses of the first page and of those beside this one; None where there is none.
    first: str | None = None
    previous: str | None = None
    next: str | None = None
    #: What was looked through where that is not all.
    note = ""
    #: How many there are; None where nobody has counted.
    total: int | None = None
    is_capped = False
    _descending = True

    def url_for_result(self, result: Any) -> str:
        """The page of a message, which says in which backend it is."""
        ours: Any = self.model_admin
        url: str = ours.url("change", result.pk, backend=result.backend)
        return url

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[ScheduledMessage]:
        found: Any = super().get_queryset(request, exclude_parameters=exclude_parameters).defer(*LONG)
        if not is_stored(found) and walks.field_of(found) == "finished_at":
            self._show_finished()
        ordering = self.get_ordering(request, found)
        self._descending = ordering[0] != self._field
        return found.order_by(*ordering)  # type: ignore[no-any-return]

    def _show_finished(self) -> None:
        """The list is in the order in which the messages ended, which has an index, and that of due times has none."""
        self.sortable_by = ("finished",)
        if "finished" not in self.list_display:
            self.list_display = [*self.list_display, "finished"]

    @property
    def _field(self) -> str:
        return "finished_at" if "finished" in (self.sortable_by or ()) else "due_at"

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str | Combinable]:
        """Both columns of an index in one direction, so that a page is read from it."""
        is_asked = self._field in super().get_ordering(request, queryset.order_by())
        return [self._field, "id"] if is_asked else [f"-{self._field}", "-id"]

    def get_ordering_field_columns(self) -> dict[int, Literal["asc", "desc"]]:
        """The column with the arrow, and its direction."""
        for number, name in enumerate(self.list_display):
            if self.get_ordering_field(name) == self._field:
                return {number: "desc" if self._descending else "asc"}
        return {}

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """A filter that is sent without a value, as by its button "Show", filters nothing."""
        found: dict[str, Any] = super().get_filters_params(params)
        return {name: value for name, value in found.items() if not _is_blank(value)}

    def get_results(self, request: HttpRequest) -> None:
        try:
            if is_stored(self.root_queryset):
                super().get_results(request)
                self._number(request)
            else:
                self._turn(request)
        except (DataError, OverflowError, ValueError) as error:
            # A value of a filter that only the database can see is none: NUL in a text, a time before the year 1.
            raise IncorrectLookupParameters(error) from error

    def _turn(self, request: HttpRequest) -> None:
        """What Django's does by numbers, by cursors."""
        walk = walks.walk(self.queryset, descending=self._descending)
        turned = turn(walk, self._cursor(request, walk), self.list_per_page)
        self.result_list = turned.found
        self.total, self.is_capped = turned.total, turned.is_capped
        self.result_count = len(turned.found) if turned.total is None else turned.total
        self.show_full_result_count, self.full_result_count = False, None
        self.show_admin_actions = True
        self.can_show_all = self.multi_page = False
        self.paginator = Paginator(turned.found, self.list_per_page)
        if turned.previous is not None:
            self.first = self.get_query_string(remove=[PAGE_VAR])
            self.previous = self.get_query_string({PAGE_VAR: str(turned.previous)})
        if turned.next is not None:
            self.next = self.get_query_string({PAGE_VAR: str(turned.next)})
        if turned.edge is not None:
            text = _("%(count)s messages were looked through, as far as %(time)s.")
            self.note = text % {
                "count": number_format(walks.LOOKED, force_grouping=True),
                "time": times.absolute(turned.edge.at),
            }

    def _cursor(self, request: HttpRequest, walk: Walk) -> Cursor | None:
        text = request.GET.get(PAGE_VAR, "")
        if text in ("", "1"):
            return None
        try:
            return Cursor.read(text, walk)
        except InvalidCursor:
            if request.method == "GET":
                text = _("The address of this page is not one that the list has given out: this is the first page.")
                messages.warning(request, text)
            return None

    def _number(self, request: HttpRequest) -> None:
        """The same links for messages that are no rows."""
        self.search_help_text = _("An id, a key or an event.")
        self.total, self.is_capped = self.result_count, self.paginator.is_capped
        if not self.multi_page:
            return
        if self.page_num > 1:
            self.first = self.get_query_string(remove=[PAGE_VAR])
            self.previous = self.get_query_string({PAGE_VAR: self.page_num - 1})
        if self.page_num < self.paginator.num_pages:
            self.next = self.get_query_string({PAGE_VAR: self.page_num + 1})


def _is_blank(value: str | Sequence[str]) -> bool:
    return not any([value] if isinstance(value, str) else value)
