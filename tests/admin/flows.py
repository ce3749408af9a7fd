"""The admin of workflows as somebody uses it, on every backend that has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.urls import reverse

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.workflows import Flow, workflow
from tests.admin.conftest import Login
from tests.servers import empty


def _parameters() -> list[Any]:
    found = []
    for alias, setting in django_settings.SKED.items():
        databases = sorted({"default", setting.get("OPTIONS", {}).get("database", "default")})
        uses = pytest.mark.django_db(transaction=True, databases=databases)
        found.append(pytest.param(alias, marks=[uses], id=django_settings.SKED_TEST_ALIASES.get(alias, alias)))
    return found


@pytest.fixture(params=_parameters())
def backend(request: pytest.FixtureRequest) -> Iterator[BaseBackend]:
    message_backends.reset()
    if store := django_settings.SKED_TEST_STORES.get(request.param):
        empty(store)
    found = message_backends[request.param]
    if not found.supports_workflows:
        pytest.skip("has no workflows")
    yield found
    message_backends.reset()


class Pages:
    """The admin as somebody uses it for one backend."""

    def __init__(self, client: Client, backend: BaseBackend) -> None:
        self.client = client
        self.backend = backend

    def order(self, name: str = "order-42", **options: Any) -> tuple[Flow, dict[str, ScheduledMessage]]:
        """A payment that is due, what follows its success or its failure, and what follows those."""
        with workflow(name, backend=self.backend.alias, **options) as flow:
            pay = flow.schedule("order.pay", queue=f"q-{uuid4().hex}")
            ship = flow.schedule("order.ship", {"secret": "hunter2"}, on_success=pay)
            refund = flow.schedule("order.refund", on_failure=pay)
            notify = flow.schedule("order.notify", on_finish=[ship, refund])
        return flow, {"pay": pay, "ship": ship, "refund": refund, "notify": notify}

    def end(self, message: ScheduledMessage, step: Any = "deliver") -> None:
        (claimed,) = self.backend.claim(uuid4(), message.queue, 1)
        self.backend.settle([Outcome(id=claimed.pk, token=claimed.token, step=step)])

    def status(self, message: ScheduledMessage) -> str:
        return self.backend.find(id=message.pk).status

    def address(self, page: str, *args: Any, **query: str) -> str:
        if self.backend.alias != "default":
            query["backend"] = self.backend.alias
        url = reverse(f"admin:django_sked_{page}", args=args)
        return f"{url}?{urlencode(query)}" if query else url

    def page(self, flow: Flow) -> str:
        response = self.client.get(self.address("workflow_change", flow.id))
        assert response.status_code == 200
        return response.content.decode()

    def listed(self, **query: str) -> list[str]:
        """The names in the list, in its order."""
        response = self.client.get(self.address("workflow_changelist", **query))
        assert response.status_code == 200
        return [row.name for row in response.context["cl"].result_list]

    def use(self, flow: Flow, verb: str, **data: str) -> Any:
        return self.client.post(self.address("workflow_verb", flow.id, verb), data, follow=True)


@pytest.fixture
def pages(backend: BaseBackend, login: Login) -> Pages:
    return Pages(login("superuser"), backend)


def told(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def nodes(html: str) -> list[str]:
    """What each node of the picture is called, in its order."""
    return re.findall(r'<(?:a|g)[^>]* class="sked-node[^>]*><title>([^<]*)</title>', html)
