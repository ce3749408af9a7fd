"""Workflows in the admin: their list, and the page of one, on every backend that has them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core import checks
from django.db import connection
from django.db.models import QuerySet
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import graph, workflow_filters
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage, Workflow
from django_sked.workflows import workflow
from tests.admin.conftest import LIST as MESSAGES
from tests.admin.conftest import Login, change_url
from tests.admin.flows import Pages, backend, nodes, pages

__all__ = ["backend", "pages"]

LIST = "admin:django_sked_workflow_changelist"
#: The reading of a page beyond the session, the user, permissions and content types.
MOST_QUERIES = 14


def test_its_admin_passes_djangos_checks() -> None:
    assert checks.run_checks(tags=["admin"]) == []


# List


def test_the_list_shows_each_one_with_its_state_and_its_counts(pages: Pages) -> None:
    pages.order("first")
    _, messages = pages.order("second")
    pages.end(messages["pay"], "bury")

    response = pages.client.get(pages.address("workflow_changelist"))

    text = re.sub(r"<[^>]+>|\s+", " ", response.content.decode())
    assert pages.listed() == ["second", "first"]
    assert "1 blocked, 1 scheduled, 1 dead, 1 cancelled" in text
    assert "3 blocked, 1 scheduled" in text


def test_a_row_leads_to_the_page_of_its_workflow(pages: Pages) -> None:
    flow, _ = pages.order()

    html = pages.client.get(pages.address("workflow_changelist")).content.decode()

    page = reverse("admin:django_sked_workflow_change", args=[flow.id])
    (link,) = re.findall(rf'href="({page}[^"]*)"', html)
    assert ("backend=" in link) is (pages.backend.alias != "default")


@pytest.mark.parametrize("state", Workflow.State.values)
def test_the_list_is_filtered_by_state(state: str, pages: Pages) -> None:
    pages.order("running")
    held, _ = pages.order("held")
    assert held.workflow is not None
    held.workflow.hold()
    for name, step in (("failed", "bury"), ("finished", "deliver")):
        with workflow(name, backend=pages.backend.alias) as flow:
            only = flow.schedule("only", queue=name)
        pages.end(only, step)

    assert pages.listed(state=state) == [state]


def test_what_waits_for_others_only_is_running(pages: Pages) -> None:
    parent = ScheduledMessage.objects.schedule("parent", delay=60, backend=pages.backend.alias)
    with workflow("waits", backend=pages.backend.alias) as flow:
        flow.schedule("child", on_success=parent)
    assert flow.workflow is not None

    assert flow.workflow.state == "running"
    assert pages.listed(state="running") == ["waits"]


def test_a_status_of_another_release_is_shown_as_it_is_on_every_page(pages: Pages) -> None:
    if (database := pages.backend.database) is None and pages.backend.alias != "memory":
        pytest.skip("the status cannot be written past the backend here")
    flow, messages = pages.order("order")
    if database is None:
        stored: Any = pages.backend
        stored._shelf[messages["pay"].pk].status = "parked"
    else:
        QuerySet(ScheduledMessage, using=database).filter(pk=messages["pay"].pk).update(status="parked")

    for address in (
        pages.address("workflow_changelist"),
        pages.address("workflow_change", flow.id),
        pages.address("workflow_graph", flow.id),
        pages.address("scheduledmessage_changelist"),
        *(pages.address("scheduledmessage_change", messages[name].pk) for name in ("pay", "ship", "refund")),
    ):
        response = pages.client.get(address)
        assert (response.status_code, "parked" in response.content.decode()) == (200, True), address
    assert pages.client.get(pages.address("overview_changelist")).status_code == 200
    assert nodes(pages.page(flow))[0] == "order.pay: parked"
    assert flow.workflow is not None
    assert flow.workflow.counts == {"parked": 1, "blocked": 3}
    assert flow.workflow.state == "running"
    assert [pages.listed(state=state) for state in Workflow.State.values] == [["order"], [], [], []]


def test_the_list_is_filtered_by_age_and_searched_by_name_and_id(pages: Pages) -> None:
    flow, _ = pages.order("order-1")
    pages.order("invoice-1")
    rows = Workflow.objects.using(pages.backend.database or "default")
    rows.filter(pk=flow.id).update(created_at=timezone.now() - timedelta(days=3))

    assert pages.listed(created="day") == ["invoice-1"]
    assert pages.listed(created="week") == ["invoice-1", "order-1"]
    assert pages.listed(created="earlier") == []
    assert pages.listed(q="order") == pages.listed(q=str(flow.id)) == ["order-1"]
    assert pages.listed(q="x" * 201) == pages.listed(q="rder") == []


@pytest.mark.parametrize("query", [{"state": "odd"}, {"created": "never"}, {"metadata__tenant": "north"}])
def test_a_filter_that_does_not_exist_shows_nothing(query: dict[str, str], pages: Pages) -> None:
    pages.order(metadata={"tenant": "north"})

    response = pages.client.get(pages.address("workflow_changelist", **query))

    assert response.status_code in (302, 400)


def test_only_backends_with_workflows_are_offered(pages: Pages) -> None:
    html = pages.client.get(reverse(LIST)).content.decode()

    for alias in message_backends:
        assert (f'value="{alias}"' in html) is message_backends[alias].supports_workflows


@pytest.mark.django_db
def test_the_list_takes_one_statement_for_all_counts(boss: Client) -> None:
    pages = Pages(boss, message_backends["default"])
    for number in range(12):
        pages.order(f"order-{number}")
    pages.listed()

    with CaptureQueriesContext(connection) as queries:
        pages.listed()

    assert len(queries) <= MOST_QUERIES
    assert sum("django_sked_scheduledmessage" in query["sql"] for query in queries) == 1


def test_the_state_is_looked_for_among_the_newest_of_what_the_other_filters_leave(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_filters, "MOST_LOOKED_AT", 2)
    monkeypatch.setattr(workflow_filters, "MOST_READ", 2)
    flows = [pages.order(f"order-{number}")[0] for number in range(4)]
    rows = Workflow.objects.using(pages.backend.database or "default")
    rows.filter(pk__in=[flow.id for flow in flows[:2]]).update(created_at=timezone.now() - timedelta(days=9))
    said = "Among the newest 2 workflows only"

    assert pages.listed(state="running") == ["order-3", "order-2"]
    assert said in pages.client.get(pages.address("workflow_changelist", state="held")).content.decode()
    assert pages.listed(state="running", created="earlier") == ["order-1", "order-0"]
    assert (
        said
        not in pages.client.get(
            pages.address("workflow_changelist", state="running", created="earlier")
        ).content.decode()
    )


# The page of one


def test_the_page_draws_its_messages_and_what_they_wait_for(pages: Pages) -> None:
    flow, messages = pages.order()
    pages.end(messages["pay"])

    html = pages.page(flow)

    assert nodes(html) == [
        "order.pay: delivered",
        "order.ship: scheduled; on success: order.pay",
        "order.refund: cancelled; on failure: order.pay",
        "order.notify: blocked, waits for others; on finish: order.ship; on finish: order.refund",
    ]
    edges = re.findall(r'<path class="sked-edge ([^"]*)"[^>]*><title>([^<]*)</title>', html)
    assert sorted(edges) == [
        ("sked-failure sked-unmet", "order.pay → order.refund: on failure, unmet"),
        ("sked-finish sked-met", "order.refund → order.notify: on finish, met"),
        ("sked-finish sked-open", "order.ship → order.notify: on finish, open"),
        ("sked-success sked-met", "order.pay → order.ship: on success, met"),
    ]
    assert "<strong>running</strong>: 1 blocked, 1 scheduled, 1 delivered, 1 cancelled" in html
    assert "<style" not in html and "style=" not in html.split("<svg")[1].split("</svg>")[0]


def test_each_node_leads_to_its_message_and_back(pages: Pages) -> None:
    flow, messages = pages.order()
    html = pages.page(flow)

    for message in messages.values():
        url = pages.address("scheduledmessage_change", message.pk).replace("&", "&amp;")
        assert f'<a href="{url}" id="message-{message.pk}"' in html
    back = pages.client.get(pages.address("scheduledmessage_change", messages["notify"].pk)).content.decode()

    assert f'<a href="{pages.address("workflow_change", flow.id)}">order-42</a>' in back
    for name in ("ship", "refund"):
        url = pages.address("scheduledmessage_change", messages[name].pk)
        assert f'on finish: <a href="{url}">order.{name}</a> (blocked)' in back


def test_a_message_without_workflow_and_parents_says_so(pages: Pages) -> None:
    message = ScheduledMessage.objects.schedule("alone", delay=60, backend=pages.backend.alias)

    html = pages.client.get(pages.address("scheduledmessage_change", message.pk)).content.decode()

    for name in ("workflow", "parents_list"):
        (shown,) = re.findall(rf'field-{name}.*?<div class="readonly">(.*?)</div>', html, re.S)
        assert shown == "-"


def test_a_parent_outside_of_the_workflow_is_drawn_as_such(pages: Pages) -> None:
    parent = ScheduledMessage.objects.schedule("outside", delay=60, backend=pages.backend.alias)
    with workflow("w", backend=pages.backend.alias) as flow:
        flow.schedule("inside", on_success=parent)

    html = pages.page(flow)

    assert sorted(nodes(html)) == [
        "inside: blocked, waits for others; on success: outside",
        "outside: scheduled, not of this workflow",
    ]
    assert "<strong>running</strong>: 1 blocked" in html


def test_what_is_shown_is_escaped(pages: Pages) -> None:
    with workflow('<b>"w"', backend=pages.backend.alias) as flow:
        flow.schedule("only", delay=60)

    assert '<b>"w"' not in pages.page(flow)
    assert '<b>"w"' not in pages.client.get(pages.address("workflow_changelist")).content.decode()


def test_its_messages_are_listed_by_a_link(pages: Pages) -> None:
    flow, messages = pages.order()
    ScheduledMessage.objects.schedule("other", delay=60, backend=pages.backend.alias)
    html = pages.page(flow)

    query = {"workflow_id": str(flow.id)}
    url = pages.address("scheduledmessage_changelist", **query)
    assert url.replace("&", "&amp;") in html
    listed = pages.client.get(url).context["cl"].result_list

    assert {message.pk for message in listed} == {message.pk for message in messages.values()}


def test_the_picture_is_sent_alone_and_only_when_it_has_changed(pages: Pages) -> None:
    flow, messages = pages.order()
    url = pages.address("workflow_graph", flow.id)

    first = pages.client.get(url)
    again = pages.client.get(url, headers={"If-None-Match": first["ETag"]})
    pages.end(messages["pay"])
    changed = pages.client.get(url, headers={"If-None-Match": first["ETag"]})

    assert (first.status_code, again.status_code, changed.status_code) == (200, 304, 200)
    assert again.content == b""
    assert "<html" not in first.content.decode()
    assert len(nodes(changed.content.decode())) == 4
    assert "sked-node sked-delivered" in changed.content.decode()


def test_a_workflow_with_too_many_messages_is_counted_instead(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MOST_NODES", 3)
    flow, _ = pages.order()

    html = pages.page(flow)

    assert nodes(html) == []
    assert "too many to be drawn" in html
    assert "3 blocked, 1 scheduled" in html


def test_a_workflow_with_too_many_edges_is_counted_instead(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MOST_EDGES", 1)
    flow, _ = pages.order()

    html = pages.page(flow)

    assert nodes(html) == []
    assert "wait for each other more than" in html
    assert "too many to be drawn" not in html
    assert "3 blocked, 1 scheduled" in html


@pytest.mark.django_db
def test_a_thousand_messages_take_as_many_queries_as_four(boss: Client) -> None:
    pages = Pages(boss, message_backends["default"])
    with workflow("wide", backend="default") as flow:
        first = flow.schedule("first")
        parts = [flow.schedule("part", on_success=first) for _ in range(998)]
        flow.schedule("last", on_success=parts)
    small, _ = pages.order()
    pages.page(small)

    counts = []
    for one in (small, flow):
        with CaptureQueriesContext(connection) as queries:
            html = pages.page(one)
        counts.append(len(queries))

    assert len(nodes(html)) == 1000
    assert counts[0] == counts[1] <= MOST_QUERIES


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_page_is_found_by_the_id_alone_as_from_the_history(pages: Pages) -> None:
    flow, _ = pages.order()

    response = pages.client.get(reverse("admin:django_sked_workflow_change", args=[flow.id]))

    assert response.status_code == 200
    assert len(nodes(response.content.decode())) == 4


@pytest.mark.django_db(transaction=True, databases="__all__")
@pytest.mark.parametrize("page", ["workflow_graph", "workflow_change"])
def test_a_workflow_that_is_gone_is_not_found(page: str, pages: Pages) -> None:
    assert pages.client.get(pages.address(page, uuid4())).status_code in (302, 404)


# Permissions


def test_who_may_not_see_messages_sees_no_way_to_them(backend: BaseBackend, login: Login) -> None:
    pages = Pages(login("view_workflow", "cancel_scheduledmessage"), backend)
    flow, messages = pages.order(metadata={"tenant": "north"})

    html = pages.page(flow)

    assert len(nodes(html)) == 4
    assert change_url(messages["pay"]) not in html and reverse(MESSAGES) not in html
    assert change_url(messages["pay"]) not in pages.use(flow, "cancel").content.decode()
    assert "north" not in html
    assert "north" in Pages(login("view_workflow", "view_payload"), backend).page(flow)


@pytest.mark.parametrize("page", ["workflow_change", "workflow_graph"])
def test_who_may_not_see_workflows_sees_none(page: str, backend: BaseBackend, login: Login) -> None:
    pages = Pages(login("view_scheduledmessage"), backend)
    flow, _ = pages.order()

    assert pages.client.get(pages.address(page, flow.id)).status_code == 403
    assert pages.client.get(pages.address("workflow_changelist")).status_code == 403
