"""`redact`: what the admin shows to nobody, nor tells by its answers, and how a payload is edited all the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.test import Client, override_settings
from django.urls import reverse

from django_sked.models import Recurrence, ScheduledMessage
from django_sked.redaction import MARK
from django_sked.states import Status
from django_sked.workflows import workflow
from tests.admin.conftest import LIST, Login, change_url, make, verb_url
from tests.admin.test_recurrences import backfill_url, hourly
from tests.admin.test_recurrences import use as use_on_recurrences

pytestmark = pytest.mark.django_db
SECRET = "hunter2-Zeppelin"
CARRIED = {
    "user": 7,
    "password": SECRET,
    "cards": [{"id": 1, "number": f"{SECRET}-1"}, {"id": 2, "number": f"{SECRET}-2"}],
}
FAILED = {"attempt": 1, "receiver": "r", "type": "E", "text": f"no {SECRET}", "traceback": f"E: no {SECRET}"}


@pytest.fixture(autouse=True)
def redacting() -> Iterator[None]:
    options = settings.SKED["default"].get("OPTIONS", {}) | {"redact": ["*password*", "cards.number", "token"]}
    options["payload_cipher"] = None
    with override_settings(SKED=settings.SKED | {"default": settings.SKED["default"] | {"OPTIONS": options}}):
        yield


def post(
    client: Client, message: ScheduledMessage, payload: Any = None, verb: str = "reschedule", **fields: Any
) -> Any:
    given = {} if payload is None else {"payload": json.dumps(payload)}
    return client.post(verb_url(message, verb), {"_answered": "1", **given, **fields})


def entered(client: Client, message: ScheduledMessage, verb: str = "reschedule") -> Any:
    """The payload as the form shows it."""
    return json.loads(client.post(verb_url(message, verb)).context["form"].initial["payload"])


def write(client: Client, message: ScheduledMessage, payload: Any, verb: str = "reschedule") -> Any:
    """With the look at what it changes; returns the page of that look, or what the first answer was."""
    seen = post(client, message, payload, verb)
    if seen.context and seen.context.get("preview"):
        post(client, message, payload, verb, _previewed=seen.context["preview"].preview)
    message.refresh_from_db()
    return seen


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.DEAD])
def test_the_page_of_a_message_shows_no_hidden_value_to_anybody(status: str, boss: Client) -> None:
    carried = {"payload": CARRIED, "metadata": {"token": SECRET}, "result": {"password": SECRET}, "errors": [FAILED]}
    message = make(**carried, status=status, reason=f"E: no {SECRET}" if status == Status.DEAD else "")

    html = boss.get(change_url(message)).content.decode()

    assert SECRET not in html
    assert html.count(MARK) >= 6
    assert "&quot;user&quot;: 7" in html
    for page in (reverse(LIST), reverse("admin:django_sked_scheduledmessage_history", args=[message.pk])):
        assert SECRET not in boss.get(page).content.decode()


@pytest.mark.parametrize(
    "search", ["payload.password", "payload.cards.0.number", "metadata.token", "payload.Password.x"]
)
def test_nobody_can_search_for_what_is_hidden(search: str, boss: Client) -> None:
    make(payload=CARRIED, metadata={"token": SECRET}, key="found")

    html = boss.get(reverse(LIST), {"q": f"{search}:{SECRET}"}).content.decode()

    assert "is hidden (redact)" in html
    assert ">found<" not in html
    assert ">found<" in boss.get(reverse(LIST), {"q": "payload.user:7"}).content.decode()


@pytest.mark.parametrize("index", ["+0", "0_0", "-0", "-2", "00", "٠", "4294967296", "99999999999999999999"])
def test_no_other_way_to_write_the_number_of_a_list_item_tells_what_is_hidden(index: str, boss: Client) -> None:
    make(payload=CARRIED | {"open": [SECRET]}, key="found")
    for path in (f"cards.{index}.number", f"open.{index}"):
        answer = boss.get(reverse(LIST), {"q": f"payload.{path}:{SECRET}"})

        assert answer.status_code == 200
        assert "the number of a list item is written" in answer.content.decode()
        assert ">found<" not in answer.content.decode()


def test_what_stays_hidden_in_a_form_keeps_its_value(boss: Client) -> None:
    message = make(payload=CARRIED)
    form = entered(boss, message)
    assert SECRET not in json.dumps(form)

    seen = write(boss, message, form | {"user": 8})

    assert message.payload == CARRIED | {"user": 8}
    html = seen.content.decode()
    assert SECRET not in html and "<ins>+   &quot;user&quot;: 8</ins>" in html


@pytest.mark.parametrize("payload", [SECRET, 41114111])
def test_a_payload_that_is_one_value_is_hidden_by_a_star_and_kept_by_its_form(payload: Any, boss: Client) -> None:
    default = settings.SKED["default"]
    options = default["OPTIONS"] | {"redact": ["*"]}
    with override_settings(SKED=settings.SKED | {"default": default | {"OPTIONS": options}}):
        message = make(payload=payload, result=payload)
        assert str(payload) not in boss.get(change_url(message)).content.decode()
        form = entered(boss, message)
        assert str(payload) not in form

        write(boss, message, form)
        assert message.payload == payload
        assert "stands for no hidden value" in write(boss, message, "[redacted 0123456789ab]").content.decode()
        write(boss, message, "another one")

    assert message.payload == "another one"


def test_items_with_hidden_values_may_be_moved_and_taken_away(boss: Client) -> None:
    message = make(payload=CARRIED)
    form = entered(boss, message)
    one, two = form["cards"]

    write(boss, message, form | {"cards": [two, one | {"id": 9}]})
    assert message.payload["cards"] == [CARRIED["cards"][1], CARRIED["cards"][0] | {"id": 9}]  # type: ignore[index]

    write(boss, message, entered(boss, message) | {"cards": [entered(boss, message)["cards"][1]]})
    assert message.payload["cards"] == [{"id": 9, "number": f"{SECRET}-1"}]


def test_a_hidden_value_may_be_replaced_but_is_not_shown_then_either(boss: Client) -> None:
    message = make(payload=CARRIED)

    seen = write(boss, message, entered(boss, message) | {"password": "another-one"})

    assert message.payload["password"] == "another-one"
    diff = "".join(line for _sign, line in seen.context["preview"].diff)
    assert "another-one" not in diff and "[redacted, another one]" in diff


def test_who_guesses_a_hidden_value_is_not_told_whether_it_was_right(boss: Client) -> None:
    message = make(payload=CARRIED)
    form = entered(boss, message)

    pages = [post(boss, message, form | {"password": guess}) for guess in (SECRET, "hunter3-Zeppelin")]

    right, wrong = (page.context["preview"] for page in pages)
    assert right.diff == wrong.diff
    assert right.preview != post(boss, message, form | {"user": 8}).context["preview"].preview
    assert right.preview not in [wrong.preview]  # a name of what was typed, not of what is stored


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form | {"note": form["password"]},
        lambda form: form | {"password": MARK},
        lambda form: form | {"password": "[redacted 0123456789ab]"},
        lambda form: form | {"notes": [form["cards"][0]["number"]]},
    ],
)
def test_a_mark_that_would_show_a_value_or_stands_for_none_is_refused(change: Any, boss: Client) -> None:
    message = make(payload=CARRIED)

    html = write(boss, message, change(entered(boss, message))).content.decode()

    assert "stands for no hidden value here" in html
    assert message.payload == CARRIED and SECRET not in html


def test_what_somebody_has_changed_meanwhile_is_not_written_back(boss: Client) -> None:
    message = make(payload=CARRIED)
    form = entered(boss, message)
    message.reschedule(payload=CARRIED | {"password": "newer-secret"})

    html = write(boss, message, form | {"user": 8}).content.decode()

    assert "stands for no hidden value here" in html
    assert message.payload == CARRIED | {"password": "newer-secret"}


def test_a_payload_for_several_messages_takes_no_marks(boss: Client) -> None:
    messages = [make(payload=CARRIED), make(payload=CARRIED)]
    data = {"action": "reschedule", "_selected_action": [str(m.pk) for m in messages], "_answered": "1"}
    form = entered(boss, messages[0])

    refused = boss.post(reverse(LIST), data | {"payload": json.dumps(form)}).content.decode()

    assert "stands for no hidden value here" in refused
    seen = boss.post(reverse(LIST), data | {"payload": json.dumps({"password": "new-secret"})})
    assert "new-secret" not in "".join(line for _sign, line in seen.context["preview"].diff)


def test_a_redrive_keeps_hidden_values_too(boss: Client) -> None:
    message = make(payload=CARRIED, status=Status.DEAD)

    write(boss, message, entered(boss, message, "redrive") | {"user": 8}, "redrive")

    assert (message.payload, message.status) == (CARRIED | {"user": 8}, Status.SCHEDULED)
    assert SECRET not in "".join(LogEntry.objects.values_list("change_message", flat=True))


# Recurrences and workflows


def recurrence_form(client: Client, recurrence: Recurrence) -> dict[str, Any]:
    form = client.get(reverse("admin:django_sked_recurrence_change", args=[recurrence.pk])).context["adminform"].form
    found = {name: form[name].value() for name in form.fields}
    return {name: value for name, value in found.items() if value is not None} | {"every": "3600"}


def test_the_page_of_a_recurrence_shows_no_hidden_value_and_keeps_it(login: Login, boss: Client) -> None:
    recurrence = Recurrence.objects.create("r", every=3600, payload=CARRIED)
    url = reverse("admin:django_sked_recurrence_change", args=[recurrence.pk])
    viewer = login("view_recurrence", "view_payload")
    for client in (boss, viewer):
        html = client.get(url).content.decode()
        assert SECRET not in html and "[redacted" in html

    data = recurrence_form(boss, recurrence)
    payload = json.loads(data["payload"]) if isinstance(data["payload"], str) else data["payload"]
    fields = {name: value for name, value in data.items() if value is not False and value != ""}
    start = fields.pop("start_at", None)
    if start is not None:
        fields["start_at"] = start.strftime("%Y-%m-%dT%H:%M:%S") if hasattr(start, "strftime") else start
    response = boss.post(url, fields | {"payload": json.dumps(payload | {"user": 8})})

    assert response.status_code == 302, re.findall("errorlist.*", response.content.decode())
    recurrence.refresh_from_db()
    assert recurrence.payload == CARRIED | {"user": 8}


@pytest.mark.parametrize("is_declared", [False, True])
@pytest.mark.parametrize("permissions", [("superuser",), ("view_recurrence", "run_recurrence")])
def test_what_is_hidden_is_delivered_all_the_same_by_a_backfill_or_a_run(
    permissions: tuple[str, ...], is_declared: bool, login: Login
) -> None:
    client, (recurrence, form) = login(*permissions), hourly()
    recurrence.payload, recurrence.metadata = CARRIED, {"token": SECRET}
    recurrence.save()
    Recurrence.objects.filter(pk=recurrence.pk).update(is_declared=is_declared)

    assert client.post(backfill_url(recurrence), form).status_code == 302
    use_on_recurrences(client, "run_now", recurrence)

    carried = ScheduledMessage.objects.values_list("payload", "metadata")
    assert list(carried) == [(CARRIED, {"token": SECRET})] * 4


@pytest.mark.parametrize("lookup", ["payload__password__startswith", "payload__icontains", "metadata__token"])
def test_no_address_tells_what_a_recurrence_hides(lookup: str, boss: Client) -> None:
    Recurrence.objects.create("r", every=3600, payload=CARRIED)

    assert boss.get(reverse("admin:django_sked_recurrence_changelist"), {lookup: "h"}).status_code == 400


def test_the_page_of_a_workflow_shows_no_hidden_metadata(boss: Client) -> None:
    with workflow("w", metadata={"token": SECRET, "tenant": "acme"}) as flow:
        flow.schedule("e")

    html = boss.get(reverse("admin:django_sked_workflow_change", args=[flow.workflow.pk])).content.decode()  # type: ignore[union-attr]

    assert SECRET not in html and "acme" in html


def test_the_page_of_a_message_that_no_key_opens_says_so(boss: Client) -> None:
    default = settings.SKED["default"]
    options = default.get("OPTIONS", {}) | {"payload_cipher": ["0" * 43 + "="]}
    with override_settings(SKED=settings.SKED | {"default": default | {"OPTIONS": options}}):
        message = make(payload={"a": SECRET})
        assert "payloads are encrypted" in boss.get(reverse(LIST), {"q": "payload.a:1"}).content.decode().lower()

    html = boss.get(change_url(message)).content.decode()

    assert "none of the keys that are known here opens it" in html
    assert "gAAAAA" not in html
