"""The verbs on a whole workflow: they ask first, change all of it, and are written down."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.urls import reverse

from django_sked.admin import wholes
from django_sked.backends.base import BaseBackend
from django_sked.models import Workflow
from django_sked.states import Status
from django_sked.workflows import workflow
from tests.admin.conftest import Login
from tests.admin.flows import Pages, backend, pages, told

__all__ = ["backend", "pages"]

ACTIONS = ("cancel", "hold", "resume", "redrive")


def test_a_verb_on_the_whole_asks_first(pages: Pages) -> None:
    flow, messages = pages.order()

    response = pages.use(flow, "cancel")

    html = response.content.decode()
    assert "Cancel: 4 messages of order-42" in html
    assert pages.address("scheduledmessage_change", messages["pay"].pk).replace("&", "&amp;") in html
    assert "Back to the workflow" in html
    assert pages.status(messages["pay"]) == Status.SCHEDULED
    assert not LogEntry.objects.exists()


def test_all_of_it_is_cancelled_and_written_down(pages: Pages) -> None:
    flow, messages = pages.order()

    response = pages.use(flow, "cancel", _answered="1", reason="no more")

    assert response.redirect_chain == [(pages.address("workflow_change", flow.id), 302)]
    assert told(response) == ["4 messages were cancelled."]
    assert {pages.status(message) for message in messages.values()} == {Status.CANCELLED}
    entries = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(Workflow))
    assert [(entry.object_id, entry.change_message) for entry in entries] == [
        (str(flow.id), "4 messages were cancelled. Reason: no more")
    ]
    for message in messages.values():
        entry = LogEntry.objects.get(object_id=str(message.pk))
        assert entry.change_message == "Cancelled. Reason: no more"


def test_it_is_held_and_goes_on(pages: Pages) -> None:
    flow, messages = pages.order()

    assert told(pages.use(flow, "hold", _answered="1", reason="wait")) == ["4 messages were held."]
    assert "<strong>held</strong>" in pages.page(flow)
    assert told(pages.use(flow, "resume", _answered="1")) == ["4 messages were resumed."]

    assert pages.status(messages["pay"]) == Status.SCHEDULED


def test_what_has_died_is_redriven_and_what_was_cancelled_for_it_waits_again(pages: Pages) -> None:
    flow, messages = pages.order()
    pages.end(messages["pay"], "bury")

    response = pages.use(flow, "redrive", _answered="1")

    assert told(response)[0].startswith("1 message was redriven")
    assert (pages.status(messages["pay"]), pages.status(messages["ship"])) == (Status.SCHEDULED, Status.BLOCKED)


def test_only_what_fits_is_offered(pages: Pages) -> None:
    flow, messages = pages.order()

    def offered() -> list[str]:
        html = pages.page(flow)
        return [name for name in ACTIONS if reverse("admin:django_sked_workflow_verb", args=[flow.id, name]) in html]

    assert offered() == ["cancel", "hold"]
    pages.use(flow, "hold", _answered="1")
    assert offered() == ["cancel", "resume"]
    pages.use(flow, "resume", _answered="1")
    pages.end(messages["pay"], "bury")
    assert offered() == ["cancel", "hold", "redrive"]
    pages.use(flow, "cancel", _answered="1")
    assert offered() == ["redrive"]


def test_a_large_one_changes_as_a_whole_and_has_one_entry(pages: Pages) -> None:
    with workflow("large", backend=pages.backend.alias) as flow:
        first = flow.schedule("first", delay=60)
        for _ in range(150):
            flow.schedule("part", on_success=first)

    pages.use(flow, "cancel", _answered="1", reason="flood")

    assert flow.workflow is not None
    assert flow.workflow.counts == {Status.CANCELLED: 151}
    assert LogEntry.objects.get().change_message == "151 messages were cancelled. Reason: flood"


def test_without_its_entries_a_change_does_not_happen(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    if not pages.backend.joins_transactions:
        pytest.skip("its changes join no transaction")
    flow, messages = pages.order()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no history")

    monkeypatch.setattr(wholes, "log_each", fail)
    with pytest.raises(RuntimeError, match="no history"):
        pages.use(flow, "cancel", _answered="1")

    assert pages.status(messages["pay"]) == Status.SCHEDULED


@pytest.mark.parametrize("verb", ACTIONS)
def test_a_verb_takes_effect_exactly_for_those_who_may(verb: str, backend: BaseBackend, login: Login) -> None:
    view, permission = "view_workflow", f"{verb}_scheduledmessage"
    for permissions, may in (((view,), False), ((permission,), False), ((view, permission), True)):
        pages = Pages(login(*permissions), backend)
        flow, messages = pages.order()
        assert flow.workflow is not None
        if verb == "resume":
            flow.workflow.hold()
        if verb == "redrive":
            pages.end(messages["pay"], "bury")
        before = flow.workflow.counts

        response = pages.use(flow, verb, _answered="1")

        assert (response.status_code == 200) is may
        assert (flow.workflow.counts != before) is may


def test_a_verb_that_does_not_exist_is_not_found(pages: Pages) -> None:
    flow, _ = pages.order()

    assert pages.use(flow, "make_due", _answered="1").status_code == 404
    assert pages.client.get(pages.address("workflow_verb", flow.id, "cancel")).status_code == 405
