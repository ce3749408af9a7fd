"""What both admins are: pages to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

T = TypeVar("T", bound=Model)

if TYPE_CHECKING:

    class BaseAdmin(admin.ModelAdmin[T]): ...
else:

    class BaseAdmin:
        """Stands for the ModelAdmin, of whatever kind, that a mixin is put before."""

        def __class_getitem__(cls, item: Any) -> Any:
            return cls


class ReadOnlyAdmin(BaseAdmin[T]):
    """No add, no change, no delete; whoever may view may look at everything but what needs its own permission."""

    # Counting a large table, or grouping it for facets, takes longer than any page is worth.
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: T | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: T | None = None) -> bool:
        return False
