"""The admin of workflows: what became of their messages, and a picture of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.exceptions import PermissionDenied
from django.db import DataError, router
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import URLPattern, path
from django.utils.cache import get_conditional_response
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_sked import ids
from django_sked.admin import tallies, times, wholes
from django_sked.admin.details import as_text
from django_sked.admin.graph import MOST_EDGES, MOST_NODES, Graph, graph
from django_sked.admin.lists import CappedPaginator
from django_sked.admin.messages import LONGEST_SEARCH
from django_sked.admin.places import address, chosen
from django_sked.admin.readonly import ReadOnlyAdmin
from django_sked.admin.tallies import Tally
from django_sked.admin.wholes import Wholes
from django_sked.admin.workflow_filters import CreatedFilter, StateFilter, WorkflowBackendFilter
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage, Workflow

LOOKUP_FIELDS = {"id", "name", "backend", "created_at"}
#: Milliseconds between two looks of the page at what goes on; seldom once nothing does.
LIVELY, QUIET = 2_000, 15_000


class WorkflowList(ChangeList):
    def url_for_result(self, result: Any) -> str:
        ours: Any = self.model_admin
        url: str = ours.url("change", result.pk, backend=result.store)
        return url

    def get_results(self, request: HttpRequest) -> None:
        try:
            super().get_results(request)
            self.result_list = list(self.result_list)
        except (DataError, OverflowError, ValueError) as error:
            raise IncorrectLookupParameters(error) from error
        backend = message_backends[chosen(request) or DEFAULT_ALIAS]
        counted = tallies.of_workflows(backend, [workflow.pk for workflow in self.result_list])
        for workflow in self.result_list:
            workflow.tally = counted[workflow.pk]


class WorkflowAdminMixin(Wholes, ReadOnlyAdmin[Workflow]):
    """Everything but the ModelAdmin: put it before yours, on any AdminSite."""

    change_form_template = "admin/django_sked/workflow.html"
    list_display: tuple[Any, ...] = ("name", "state", "counted", "created")
    #: The state comes last: it is looked for among what the others leave.
    list_filter: ClassVar[tuple[Any, ...]] = (WorkflowBackendFilter, CreatedFilter, StateFilter)
    list_per_page = 50
    sortable_by: ClassVar[tuple[str, ...]] = ()
    #: Ids are made of the time, so the newest is the first.
    ordering: ClassVar[tuple[str, ...]] = ("-id",)
    search_fields: ClassVar[tuple[str, ...]] = ("id", "name")
    search_help_text = gettext_lazy("An id, or the beginning of a name.")

    @property
    def media(self) -> forms.Media:
        ours = forms.Media(
            css={"all": ["django_sked/admin.css", "django_sked/workflow.css"]},
            js=["django_sked/filters.js", "django_sked/workflow.js"],
        )
        return super().media + ours

    # List

    def get_queryset(self, request: HttpRequest) -> QuerySet[Workflow]:
        """The workflows of one backend: beside its messages, where these are rows."""
        backend = message_backends[chosen(request) or DEFAULT_ALIAS]
        using = backend.database or router.db_for_read(Workflow)
        return super().get_queryset(request).using(using).filter(backend=backend.alias)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return WorkflowList

    def get_paginator(
        self, request: HttpRequest, queryset: QuerySet[Any], per_page: int, *args: Any, **kwargs: Any
    ) -> CappedPaginator:
        page = request.GET.get("p", "")
        return CappedPaginator(queryset, per_page, page=int(page) if page.isdecimal() else 1)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Workflow], search_term: str
    ) -> tuple[QuerySet[Workflow], bool]:
        term = request.GET.get(SEARCH_VAR, search_term).strip()
        if len(term) > LONGEST_SEARCH or "\x00" in term:
            text = _("Search for at most %(count)d printable characters.") % {"count": LONGEST_SEARCH}
            self.message_user(request, text, messages.WARNING)
            return queryset.none(), False
        found = Q(name__startswith=term)
        try:
            found |= Q(pk=ids.parse(term))
        except InvalidMessage:
            pass
        return (queryset.filter(found) if term else queryset), False

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Nothing confidential: what is in the metadata could be guessed by it."""
        is_ours = lookup.split("__")[0] not in {field.name for field in self.opts.fields} - LOOKUP_FIELDS
        return is_ours and super().lookup_allowed(lookup, value, request)

    @admin.display(description=gettext_lazy("state"))
    def state(self, workflow: Workflow) -> str:
        return str(_tally(workflow).state.label)

    @admin.display(description=gettext_lazy("messages"))
    def counted(self, workflow: Workflow) -> str:
        return str(_tally(workflow))

    @admin.display(description=gettext_lazy("created"))
    def created(self, workflow: Workflow) -> str:
        return times.shown(workflow.created_at, workflow.store.now())

    @admin.display(description=gettext_lazy("metadata"))
    def metadata_text(self, workflow: Workflow) -> str:
        return as_text(workflow.store.redaction.shown(workflow.metadata))

    # One workflow

    def get_fields(self, request: HttpRequest, obj: Workflow | None = None) -> tuple[str, ...]:
        """Its metadata is as confidential as that of its messages."""
        fields = ("id", "name", "created", "backend")
        return (*fields, "metadata_text") if request.user.has_perm("django_sked.view_payload") else fields

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.graph_view)
        return [path("<uuid:id>/graph/", view, name=self.url_name("graph")), *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        workflow: Workflow = context["original"]
        backend = workflow.store
        drawn = self._graph(request, workflow)
        context |= _shown(drawn)
        context["graph_url"] = self.url("graph", workflow.pk, backend=backend)
        context["verbs"] = [
            {"label": action.label, "url": self.url("verb", workflow.pk, action.name, backend=backend)}
            for action in wholes.offered(request, drawn.tally)
        ]
        if self.admin_site.is_registered(ScheduledMessage) and request.user.has_perm(wholes.VIEW_MESSAGES):
            query = {"workflow_id": str(workflow.pk)}
            context["messages_url"] = address(self.admin_site, "scheduledmessage_changelist", backend=backend, **query)
        return super().render_change_form(request, context, *args, **kwargs)

    def graph_view(self, request: HttpRequest, id: UUID) -> HttpResponse:
        """What of the page changes: the state, and the picture. Not sent again while it is the same."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        workflow = self.get_object(request, str(id))
        if workflow is None:
            raise Http404
        found = self._graph(request, workflow)
        etag = f'"{found.key}"'
        response = get_conditional_response(request, etag=etag)
        if response is None:
            response = HttpResponse(render_to_string("admin/django_sked/graph.html", _shown(found), request))
        response["ETag"] = etag
        return response

    def _graph(self, request: HttpRequest, workflow: Workflow) -> Graph:
        return graph(workflow, site=self.admin_site, with_links=request.user.has_perm(wholes.VIEW_MESSAGES))


def _tally(workflow: Workflow) -> Tally:
    """As the list has read it."""
    found: Tally = getattr(workflow, "tally", Tally())
    return found


def _shown(drawn: Graph) -> dict[str, Any]:
    return {
        "tally": drawn.tally,
        "state": drawn.tally.state,
        "picture": drawn.picture(),
        "most": MOST_NODES,
        "has_too_many_edges": drawn.has_too_many_edges,
        "most_edges": MOST_EDGES,
        "pause": LIVELY if drawn.tally.live else QUIET,
    }


if TYPE_CHECKING:

    class WorkflowAdmin(WorkflowAdminMixin): ...
else:

    class WorkflowAdmin(WorkflowAdminMixin, admin.ModelAdmin):
        """The admin of workflows as it is registered."""
