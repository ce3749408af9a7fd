"""The pages of recurrences."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_sked import triggers
from django_sked.models import Recurrence, ScheduledMessage
from tests.admin.conftest import LIST as MESSAGES
from tests.admin.conftest import Login, change_url, make

pytestmark = pytest.mark.django_db
LIST = "admin:django_sked_recurrence_changelist"
FORM: dict[str, Any] = {
    **{"name": "digest", "event": "digest.daily", "payload": "null", "cron": "0 9 * * mon-fri", "every": ""},
    **{"timezone": "Europe/Berlin", "misfire": "latest", "misfire_cap": "100", "overlap": "allow"},
    **{"jitter": "0", "grace": "60", "queue": "default", "priority": "0"},
}


def page(recurrence: Recurrence) -> str:
    return reverse("admin:django_sked_recurrence_change", args=[recurrence.pk])


def declared() -> Recurrence:
    recurrence = Recurrence.objects.create("digest", cron="0 9 * * mon-fri", timezone="Europe/Berlin")
    Recurrence.objects.filter(pk=recurrence.pk).update(is_declared=True)
    return recurrence


def use(client: Client, action: str, *recurrences: Recurrence, **fields: str) -> Any:
    data = {"action": action, "_selected_action": [str(each.pk) for each in recurrences], "index": "0", **fields}
    return client.post(reverse(LIST), data, follow=True)


def test_the_pages_say_when_in_words_and_show_the_next_five_ticks_in_its_zone(boss: Client) -> None:
    recurrence = declared()
    assert "At 09:00 on Monday through Friday, Europe/Berlin" in boss.get(reverse(LIST)).content.decode()
    html = boss.get(page(recurrence)).content.decode()
    assert html.count("09:00:00 CE") == 5


def test_a_recurrence_is_made_by_a_form(boss: Client) -> None:
    response = boss.post(reverse("admin:django_sked_recurrence_add"), FORM)
    assert response.status_code == 302, response.context["adminform"].form.errors
    stored = Recurrence.objects.get()
    assert stored.trigger == {"kind": "cron", "expression": "0 9 * * mon-fri"}
    assert (stored.status, stored.is_declared) == ("active", False)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cron": "61 * * * *"}, "cron must have"),
        ({"cron": ""}, "exactly one of cron="),
        ({"every": "60"}, "exactly one of cron="),
        ({"timezone": "Mars/Olympus"}, "timezone must be the name of a time zone"),
        ({"queue": "a b"}, "queue must be"),
    ],
)
def test_a_wrong_form_is_refused_with_the_reason(boss: Client, change: dict[str, str], text: str) -> None:
    html = boss.post(reverse("admin:django_sked_recurrence_add"), FORM | change).content.decode()
    assert text in html
    assert not Recurrence.objects.exists()


MORE: dict[str, Any] = {
    **{"metadata": '{"tenant": "acme"}', "max_attempts": "3", "timeout": "30", "expires_in": "1 02:30:00"},
    "retry_policy": '{"kind": "fixed", "delay": 5}',
}


def test_all_that_a_definition_has_is_entered(boss: Client) -> None:
    response = boss.post(reverse("admin:django_sked_recurrence_add"), FORM | MORE)
    assert response.status_code == 302, response.context["adminform"].form.errors
    stored = Recurrence.objects.get()
    assert (stored.metadata, stored.max_attempts) == ({"tenant": "acme"}, 3)
    assert stored.retry_policy == {"kind": "fixed", "delay": [5.0], "jitter": "none"}
    assert (stored.timeout, stored.expires_in) == (timedelta(seconds=30), timedelta(days=1, hours=2, minutes=30))
    html = boss.get(page(stored)).content.decode()
    assert "Known kinds: exponential, fixed, never." in html

    assert boss.post(page(stored), FORM | dict.fromkeys(MORE, "")).status_code == 302
    emptied = Recurrence.objects.get()
    assert (emptied.metadata, emptied.max_attempts, emptied.retry_policy) == ({}, None, None)
    assert (emptied.timeout, emptied.expires_in) == (None, None)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("metadata", '{"tenant": 7}', "metadata['tenant'] must be a str"),
        ("metadata", "{", "Enter a valid JSON."),
        ("metadata", "[" * 400 + "]" * 400, "Enter a valid JSON."),
        ("payload", "9" * 5000, "Enter a valid JSON."),
        ("payload", "[" * 100_000, "Enter a valid JSON."),
        ("retry_policy", "[" * 100_000, "Enter a valid JSON."),
        ("retry_policy", '{"kind": "sometimes"}', "retry must be of one of the kinds"),
        ("retry_policy", '{"kind": "fixed", "delay": -1}', "delay must be"),
        ("max_attempts", "0", "max_attempts must"),
        ("timeout", "0", "timeout must"),
        ("expires_in", "-5", "expires_in must"),
        ("end_at", "2020-01-01T00:00:00", "end must lie in the future"),
        ("payload", '"' + "x" * 300_000 + '"', "262144"),
        ("timezone", "Mars/Olympus", "timezone must be the name of a time zone"),
        ("cron", "61 * * * *", "cron must have"),
    ],
)
def test_an_error_is_shown_beside_its_field(boss: Client, field: str, value: str, text: str) -> None:
    response = boss.post(reverse("admin:django_sked_recurrence_add"), FORM | {field: value})
    assert response.status_code == 200
    (error,) = response.context["adminform"].form.errors[field]
    assert text in error
    assert not Recurrence.objects.exists()


@dataclass(frozen=True)
class Morning:
    hour: int

    def next_after(self, previous: datetime) -> datetime:
        day = previous.replace(hour=self.hour, minute=0, second=0, microsecond=0)
        return day if day > previous else day + timedelta(days=1)


class Later:
    def next_after(self, previous: datetime) -> datetime:
        return previous + timedelta(hours=1)


def test_a_trigger_of_the_projects_own_is_entered_and_edited(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "own_trigger" not in boss.get(reverse("admin:django_sked_recurrence_add")).content.decode()
    monkeypatch.setitem(triggers.kinds, "morning", Morning)
    assert "Known kinds: morning." in boss.get(reverse("admin:django_sked_recurrence_add")).content.decode()

    data = FORM | {"cron": "", "own_trigger": '{"kind": "morning", "hour": 7}'}
    response = boss.post(reverse("admin:django_sked_recurrence_add"), data)

    assert response.status_code == 302, response.context["adminform"].form.errors
    stored = Recurrence.objects.get()
    assert stored.trigger == {"kind": "morning", "hour": 7}
    assert "&quot;hour&quot;: 7" in boss.get(page(stored)).content.decode()
    assert boss.post(page(stored), data | {"queue": "mail"}).status_code == 302
    assert boss.post(page(stored), data | {"own_trigger": '{"kind": "morning", "hour": 8}'}).status_code == 302
    assert Recurrence.objects.get().trigger == {"kind": "morning", "hour": 8}


@pytest.mark.parametrize(
    ("trigger", "text"),
    [
        ('{"kind": "evening"}', "trigger must be a dict whose kind is one of"),
        ('{"kind": "morning"}', "trigger must be what the kind morning takes"),
        ('{"kind": "morning", "hour": 25}', "It does not say when it comes next: hour must be in 0..23"),
        ('{"kind": "morning", "hour": "x"}', "It does not say when it comes next"),
        ("[7]", "trigger must be a dict"),
        ('{"kind": "later"}', "It does not say when it comes next: trigger must have the same ticks whenever"),
    ],
)
def test_a_trigger_that_is_no_good_is_refused_beside_its_field(
    boss: Client, monkeypatch: pytest.MonkeyPatch, trigger: str, text: str
) -> None:
    monkeypatch.setitem(triggers.kinds, "morning", Morning)
    monkeypatch.setitem(triggers.kinds, "later", Later)
    data = FORM | {"cron": "", "own_trigger": trigger}
    response = boss.post(reverse("admin:django_sked_recurrence_add"), data)
    (error,) = response.context["adminform"].form.errors["own_trigger"]
    assert text in error


def test_what_happens_while_the_form_is_open_is_not_undone(boss: Client) -> None:
    boss.post(reverse("admin:django_sked_recurrence_add"), FORM)
    recurrence = Recurrence.objects.get()
    form = boss.get(page(recurrence)).context["adminform"].form
    data = {name: form[name].value() for name in form.fields}
    data = {name: value for name, value in data.items() if value is not None and value is not False}
    data["initial-payload"] = data["payload"]
    assert 'name="initial-payload"' in boss.get(page(recurrence)).content.decode()
    recurrence.payload = {"cursor": 7}
    recurrence.save()

    assert boss.post(page(recurrence), data | {"queue": "mail"}).status_code == 302

    stored = Recurrence.objects.get()
    assert (stored.queue, stored.payload) == ("mail", {"cursor": 7})


def test_metadata_is_for_those_who_may_see_payloads(login: Login) -> None:
    recurrence = Recurrence.objects.create("digest", every=60, metadata={"tenant": "acme"})
    assert "acme" not in login("view_recurrence").get(page(recurrence)).content.decode()
    assert "acme" in login("view_recurrence", "view_payload").get(page(recurrence)).content.decode()
    editor = login("view_recurrence", "change_recurrence")
    data = FORM | {"cron": "", "every": "60", "metadata": '{"tenant": "other"}', "payload": '"other"'}
    assert editor.post(page(recurrence), data | {"queue": "mail"}).status_code == 302
    stored = Recurrence.objects.get()
    assert (stored.queue, stored.metadata, stored.payload) == ("mail", {"tenant": "acme"}, None)


def test_a_reason_for_a_pause_and_a_resume_is_kept_and_logged(boss: Client) -> None:
    recurrence = declared()
    assert 'name="reason"' in boss.get(reverse(LIST)).content.decode()
    use(boss, "pause", recurrence, reason="stocktaking")
    assert Recurrence.objects.get().reason == "by user0: stocktaking"
    use(boss, "resume", recurrence, reason="all counted")
    stored = Recurrence.objects.get()
    assert (stored.status, stored.reason) == ("active", "by user0: all counted")
    assert "active (by user0: all counted)" in boss.get(reverse(LIST)).content.decode()
    notes = [entry.change_message for entry in LogEntry.objects.order_by("pk")]
    assert notes == ["paused: stocktaking", "resumed: all counted"]


def test_a_recurrence_made_by_hand_is_edited(boss: Client) -> None:
    boss.post(reverse("admin:django_sked_recurrence_add"), FORM)
    recurrence = Recurrence.objects.get()
    assert boss.post(page(recurrence), FORM | {"cron": "", "every": "300"}).status_code == 302
    assert Recurrence.objects.get().trigger == {"kind": "every", "interval": 300.0}


def test_a_start_is_asked_for_in_one_input_and_kept_when_nothing_is_changed(boss: Client) -> None:
    response = boss.post(
        reverse("admin:django_sked_recurrence_add"),
        FORM | {"cron": "", "every": "300", "start_at": "2030-01-15T10:00:30"},
    )
    assert response.status_code == 302, response.context["adminform"].form.errors
    recurrence = Recurrence.objects.get()
    assert timezone.localtime(recurrence.start_at).isoformat() == "2030-01-15T10:00:30+01:00"
    assert 'value="2030-01-15T10:00:30"' in boss.get(page(recurrence)).content.decode()


def test_what_the_code_declares_is_not_edited_or_deleted_by_hand(boss: Client) -> None:
    recurrence = declared()
    assert boss.post(page(recurrence), FORM).status_code == 403
    assert boss.post(reverse("admin:django_sked_recurrence_delete", args=[recurrence.pk])).status_code == 403
    use(boss, "delete_selected", recurrence)
    assert Recurrence.objects.count() == 1


def test_what_the_code_declares_is_paused_and_resumed_by_hand(boss: Client) -> None:
    recurrence = declared()
    use(boss, "pause", recurrence)
    assert Recurrence.objects.get().status == "paused"
    use(boss, "resume", recurrence)
    assert Recurrence.objects.get().status == "active"
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == ["paused", "resumed"]


def test_a_recurrence_is_run_now(boss: Client) -> None:
    recurrence = declared()
    use(boss, "run_now", recurrence)
    assert ScheduledMessage.objects.get().recurrence_id == recurrence.pk


@pytest.mark.parametrize(
    ("action", "permission"),
    [("pause", "pause_recurrence"), ("resume", "pause_recurrence"), ("run_now", "run_recurrence")],
)
def test_each_action_needs_its_permission(login: Login, action: str, permission: str) -> None:
    recurrence = declared()
    before = recurrence.version
    use(login("view_recurrence"), action, recurrence)
    assert Recurrence.objects.get().version == before
    if action == "resume":
        recurrence.pause()
    use(login("view_recurrence", permission), action, recurrence)
    assert Recurrence.objects.get().version > before


def test_a_payload_is_shown_only_to_those_who_may_see_payloads(login: Login) -> None:
    recurrence = Recurrence.objects.create("digest", every=60, payload={"secret": "hunter2"})
    assert "hunter2" not in login("view_recurrence").get(page(recurrence)).content.decode()
    assert "hunter2" in login("view_recurrence", "view_payload").get(page(recurrence)).content.decode()


def test_a_stored_trigger_that_is_unknown_here_is_shown_as_such(boss: Client) -> None:
    recurrence = declared()
    Recurrence.objects.filter(pk=recurrence.pk).update(trigger={"kind": "moon"})
    assert "trigger must be a dict" in boss.get(reverse(LIST)).content.decode()
    assert boss.get(page(recurrence)).status_code == 200


def backfill_url(recurrence: Recurrence) -> str:
    return reverse("admin:django_sked_recurrence_backfill", args=[recurrence.pk])


def hourly() -> tuple[Recurrence, dict[str, str]]:
    """An interval, and a form for three hours of a day on which no clock is changed."""
    end = timezone.make_aware(datetime(2026, 1, 15, 12))
    recurrence = Recurrence.objects.create("hourly", every=timedelta(hours=1), start=end - timedelta(days=9))
    start = end - timedelta(hours=2, minutes=30)
    return recurrence, {"start": f"{start:%Y-%m-%dT%H:%M:%S}", "end": f"{end:%Y-%m-%dT%H:%M:%S}", "rate": "0.5"}


def test_a_range_is_backfilled_by_a_form(boss: Client) -> None:
    recurrence, form = hourly()
    assert f'href="{backfill_url(recurrence)}"' in boss.get(page(recurrence)).content.decode()

    response = boss.post(backfill_url(recurrence), form | {"reason": "lost in the outage"})

    assert response["Location"] == page(recurrence)
    made = ScheduledMessage.objects.order_by("due_at")
    assert [message.recurrence_id for message in made] == [recurrence.pk] * 3
    assert made[1].due_at - made[0].due_at == timedelta(seconds=2)
    (entry,) = LogEntry.objects.all()
    assert entry.change_message.endswith("3 messages were scheduled. Reason: lost in the outage")


def test_what_was_done_before_an_error_is_in_the_log(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    recurrences = [Recurrence.objects.create(name, every=60) for name in ("a", "b", "c")]
    pause = Recurrence.pause

    def failing(recurrence: Recurrence, **fields: Any) -> bool:
        if recurrence.name == "c":
            raise ConnectionError("the server is away")
        return pause(recurrence, **fields)

    monkeypatch.setattr(Recurrence, "pause", failing)
    with pytest.raises(ConnectionError):
        use(boss, "pause", *recurrences, reason="stocktaking")

    assert {each.name for each in Recurrence.objects.filter(status="paused")} == {"a", "b"}
    logged = LogEntry.objects.order_by("pk").values_list("object_repr", "change_message")
    assert list(logged) == [("a", "paused: stocktaking"), ("b", "paused: stocktaking")]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"start": ""}, "This field is required."),
        ({"rate": "0"}, "greater than or equal to 0.001"),
        ({"end": "2020-01-01T00:00:00"}, "end must not lie before start"),
        ({"end": "2999-01-01T00:00:00"}, "end must not lie in the future"),
    ],
)
def test_a_range_that_cannot_be_backfilled_is_refused_with_the_reason(
    boss: Client, change: dict[str, str], text: str
) -> None:
    recurrence, form = hourly()
    assert text in boss.post(backfill_url(recurrence), form | change).content.decode()
    assert not ScheduledMessage.objects.exists()


def test_backfilling_needs_its_permission_and_a_post(login: Login) -> None:
    recurrence, form = hourly()
    watcher, runner = login("view_recurrence"), login("view_recurrence", "run_recurrence")
    assert watcher.post(backfill_url(recurrence), form).status_code == 403
    assert backfill_url(recurrence) not in watcher.get(page(recurrence)).content.decode()
    assert runner.get(backfill_url(recurrence), form).status_code == 200
    assert not ScheduledMessage.objects.exists()
    assert runner.post(backfill_url(recurrence), form).status_code == 302
    assert ScheduledMessage.objects.count() == 3


def test_a_message_leads_to_its_recurrence_and_that_to_its_messages(boss: Client) -> None:
    recurrence = declared()
    mine = make(event="digest", recurrence_id=recurrence.pk)
    make(event="digest", key="another-one")
    assert f'<a href="{page(recurrence)}">digest</a>' in boss.get(change_url(mine)).content.decode()

    html = boss.get(page(recurrence)).content.decode()
    url = f"{reverse(MESSAGES)}?recurrence={recurrence.pk}"
    assert f'href="{url}"' in html
    response = boss.get(url)

    assert list(response.context["cl"].queryset) == [mine]
    assert f'<option value="{recurrence.pk}"' in response.content.decode()


def test_a_message_whose_recurrence_is_gone_shows_its_id(boss: Client) -> None:
    recurrence = declared()
    message = make(recurrence_id=recurrence.pk)
    Recurrence.objects.all().delete()
    assert str(recurrence.pk) in boss.get(change_url(message)).content.decode()


def test_messages_of_no_recurrence_are_not_all_messages(boss: Client, login: Login) -> None:
    recurrence = declared()
    make(event="other")
    for value in ("0198c6f0-0000-7000-8000-000000000000", "nonsense"):
        response = boss.get(reverse(MESSAGES), {"recurrence": value})
        assert response.status_code == 302 and response["Location"].endswith("?e=1")
    # Also for who may not know its name.
    response = login("view_scheduledmessage").get(reverse(MESSAGES), {"recurrence": str(recurrence.pk)})
    assert list(response.context["cl"].queryset) == []
    assert "digest" not in response.content.decode()


def test_the_names_of_recurrences_are_offered_to_who_may_see_them(login: Login) -> None:
    declared()
    assert "By recurrence" not in login("view_scheduledmessage").get(reverse(MESSAGES)).content.decode()
    html = login("view_scheduledmessage", "view_recurrence").get(reverse(MESSAGES)).content.decode()
    assert "By recurrence" in html and ">digest</option>" in html


def test_the_name_of_a_messages_recurrence_is_for_who_may_see_it(login: Login) -> None:
    recurrence = declared()
    message = make(recurrence_id=recurrence.pk)
    html = login("view_scheduledmessage").get(change_url(message)).content.decode()
    assert str(recurrence.pk) in html and "digest" not in html
    seeing = login("view_scheduledmessage", "view_recurrence").get(change_url(message)).content.decode()
    assert f">{recurrence.name}</a>" in seeing
