"""`payload_cipher`: what messages carry is stored encrypted, and whoever may read it notices nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_sked.exceptions import InvalidPayload, NotSupported, PayloadTooLarge
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.sealing import NAME, Sealed
from django_sked.states import Answer, Status
from django_sked.verbs import Anew
from tests.cipher.conftest import NEW, OLD, OTHER, SECRET, Configure, dump
from tests.contract.store import T0, Store, after

CARRIED = {"name": SECRET, "numbers": [1, 2.5, None, True], "ä": {"世": "\U0001f600"}}


def test_no_store_has_a_byte_of_what_was_scheduled(store: Store) -> None:
    one = store.schedule(payload=CARRIED)
    many = store.schedule_many({"event": "e", "payload": {"n": n, "text": SECRET}, "at": T0} for n in range(600))
    keyed = store.schedule(payload=[SECRET], key="k", queue="mail", expires_in=60)
    named = store.schedule_many([{"event": "e", "payload": SECRET, "key": f"k{n}", "at": T0} for n in range(3)])

    assert store.find(one).payload == CARRIED
    assert [store.find(message).payload["n"] for message in many[::200]] == [0, 200, 400]
    assert [store.find(message).payload for message in (keyed, *named)] == [[SECRET], *[SECRET] * 3]
    assert "gAAAA" in dump(store)  # how every Fernet token begins
    assert SECRET not in dump(store)


def test_without_a_cipher_a_dump_shows_it_all(configure: Configure) -> None:
    """Else the others of these tests would show nothing."""
    store = configure()
    store.schedule(payload=CARRIED)

    assert SECRET in dump(store)


def test_who_claims_a_message_gets_it_in_the_clear(store: Store) -> None:
    store.schedule(payload=CARRIED)
    store.schedule(payload=None)
    suspect = store.suspect(payload=CARRIED, queue="s")

    assert sorted(map(repr, (message.payload for message in store.claim()))) == sorted([repr(CARRIED), "None"])
    claimed = store.claim_one_suspect("s")
    assert (claimed.pk, claimed.payload) == (suspect.pk, CARRIED)
    assert SECRET not in dump(store)


@pytest.mark.parametrize("step", ["deliver", "retry", "bury", "keep"])
def test_results_and_what_a_receiver_says_of_its_recurrence_are_encrypted_too(store: Store, step: str) -> None:
    store.schedule(payload=CARRIED)
    other = store.schedule(payload=CARRIED)
    said: dict[str, Any] = {"result": {"r": SECRET}, "verdict": {"next_payload": SECRET}}
    for message in store.claim():
        more = {"result": {"r": [SECRET]}} if message == other else {}
        store.settle(message, step, **said | more | {"delay": 5.0})

    found = store.find(other)
    assert (found.payload, found.result, found.verdict) == (CARRIED, {"r": [SECRET]}, said["verdict"])
    assert SECRET not in dump(store)


def test_another_payload_is_encrypted_as_well(store: Store) -> None:
    waiting, dead = store.schedule(payload=1, key="k"), store.in_status(Status.DEAD, payload=1)

    assert waiting.reschedule(payload=CARRIED) is Answer.RESCHEDULED
    assert waiting.payload == CARRIED
    assert dead.redrive(payload=[SECRET]) is Answer.REDRIVEN
    assert store.search(queue="default").reschedule(payload=[SECRET, 2]) == 1

    assert [store.find(message).payload for message in (waiting, dead)] == [[SECRET, 2], [SECRET]]
    assert SECRET not in dump(store)


def test_the_limit_of_a_payload_is_that_of_its_text(configure: Configure) -> None:
    store = configure([NEW], max_payload_bytes=100)

    assert store.find(store.schedule(payload="x" * 98)).payload == "x" * 98
    with pytest.raises(PayloadTooLarge):
        store.schedule(payload="x" * 99)


def test_what_was_stored_in_the_clear_can_still_be_read_and_changed(configure: Configure) -> None:
    plain = configure().schedule(payload=CARRIED)
    store = configure([NEW])

    assert store.find(plain).payload == CARRIED
    assert store.claim_one().payload == CARRIED
    store.settle(store.find(plain), "retry", at=T0)
    assert store.find(plain).reschedule(payload=[SECRET]) is Answer.RESCHEDULED
    assert SECRET not in dump(store, with_files=False)  # SQLite's file has what was deleted until VACUUM


def test_every_key_opens_and_the_first_one_encrypts(configure: Configure) -> None:
    old = configure([OLD]).schedule(payload=CARRIED)
    both = configure([NEW, OLD])
    new = both.schedule(payload=CARRIED)
    assert [both.find(message).payload for message in (old, new)] == [CARRIED, CARRIED]

    only = configure([NEW])

    assert only.find(new).payload == CARRIED
    assert isinstance(only.find(old).payload, Sealed)


def test_what_no_key_opens_is_kept_and_can_be_read_when_the_key_is_there(configure: Configure) -> None:
    message = configure([OLD]).schedule(payload=CARRIED)
    for cipher in ([OTHER], None):
        store = configure(cipher)
        claimed = store.claim_one()
        assert isinstance(claimed.payload, Sealed)
        store.settle(claimed, "release", at=T0, counted=False)
        assert store.find(message).hold() is Answer.HELD
        assert store.find(message).resume() is Answer.RESUMED

    assert configure([OLD]).find(message).payload == CARRIED


def test_pending_messages_are_encrypted_anew(configure: Configure) -> None:
    store = configure([OLD])
    waiting, held, bare = (
        store.schedule(payload=CARRIED),
        store.in_status(Status.BLOCKED, payload=[1]),
        store.schedule(),
    )
    clear = configure().schedule(payload="clear")
    lost = configure([OTHER]).schedule(payload="lost")
    store = configure([NEW, OLD])

    everything = [message.pk for message in (waiting, held, bare, clear, lost)]
    assert store.backend.seal_anew(everything) == Anew(done=3, unopened=1)
    assert store.backend.seal_anew([]) == Anew()

    store = configure([NEW])
    assert [store.find(message).payload for message in (waiting, held, bare, clear)] == [CARRIED, [1], None, "clear"]
    assert [store.status(message) for message in (waiting, held)] == [Status.SCHEDULED, Status.BLOCKED]
    assert configure([OTHER]).find(lost).payload == "lost"


def test_a_command_encrypts_messages_and_recurrences_anew(
    configure: Configure, alias: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if alias == "memory":
        pytest.skip("a command does not see the messages of another process")
    store = configure([OLD])
    message = store.schedule(payload=CARRIED)
    Recurrence.objects.create("r", every=3600, payload=CARRIED, backend=alias)

    configure([NEW, OLD])
    call_command("sked_encrypt", "--backend", alias)

    assert f"{alias}: 1 messages and 1 recurrences were encrypted anew." in capsys.readouterr().out
    store = configure([NEW])
    assert store.find(message).payload == CARRIED
    assert Recurrence.objects.of(store.backend).get(name="r").payload == CARRIED


def test_a_claimed_message_is_named_and_encrypted_anew_when_it_has_been_let_go(configure: Configure) -> None:
    store = configure([OLD])
    store.schedule(payload=None, queue="bare")
    message = store.schedule(payload=CARRIED)
    claimed, bare = store.claim_one(), store.claim_one(queue="bare")
    store = configure([NEW, OLD])
    assert store.backend.seal_anew([message.pk, bare.pk]) == Anew(claimed=[message.pk])

    store.settle(claimed, "retry", at=T0)
    assert store.backend.seal_anew([message.pk, bare.pk]) == Anew(done=1)
    assert configure([NEW]).find(message).payload == CARRIED


def test_the_command_says_what_it_could_not_encrypt_and_ends_with_1(
    configure: Configure, alias: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if alias == "memory":
        pytest.skip("a command does not see the messages of another process")
    store = configure([OTHER])
    store.schedule(payload="lost")
    Recurrence.objects.create("lost", every=3600, payload=CARRIED, backend=alias)
    store = configure([OLD])
    store.schedule(payload=CARRIED, queue="claimed")
    claimed = store.claim_one(queue="claimed")
    store.schedule(payload=CARRIED)
    store = configure([NEW, OLD])
    with pytest.raises(CommandError) as refused:
        call_command("sked_encrypt", "--backend", alias)
    assert refused.value.returncode == 1
    assert f"{alias}: 1 messages and 0 recurrences were encrypted anew." in capsys.readouterr().out
    assert f"{alias}: 1 messages are claimed by workers" in str(refused.value)
    assert f"{alias}: 1 messages and 1 recurrences are opened by none of the keys here" in str(refused.value)
    assert "Keep the old keys, and run it again" in str(refused.value)

    store.settle(claimed, "deliver")
    configure([NEW, OLD, OTHER])
    call_command("sked_encrypt", "--backend", alias)
    assert f"{alias}: 2 messages and 1 recurrences were encrypted anew." in capsys.readouterr().out


def test_a_message_that_is_let_go_while_the_command_runs_is_encrypted_in_the_end(
    configure: Configure, alias: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if alias == "memory":
        pytest.skip("a command does not see the messages of another process")
    message = configure([OLD]).schedule(payload=CARRIED)
    store = configure([NEW, OLD])
    claimed = store.claim_one()
    seal_anew = store.backend.seal_anew

    def and_then_it_is_let_go(ids: Any) -> Anew:
        found = seal_anew(ids)
        if found.claimed:
            store.settle(claimed, "release", at=T0)
        return found

    monkeypatch.setattr(store.backend, "seal_anew", and_then_it_is_let_go)
    call_command("sked_encrypt", "--backend", alias)

    assert f"{alias}: 1 messages and" in capsys.readouterr().out
    assert configure([NEW]).find(message).payload == CARRIED


def test_a_recurrence_and_its_messages_are_encrypted(store: Store, alias: str) -> None:
    recurrence = Recurrence.objects.create("r", every=3600, payload=CARRIED, backend=alias)
    message = recurrence.run_now()

    assert store.find(message).payload == CARRIED
    recurrence.refresh_from_db()
    assert recurrence.payload == CARRIED
    recurrence.payload = [SECRET]
    recurrence.save()
    recurrence.refresh_from_db()
    assert recurrence.payload == [SECRET]
    assert SECRET not in dump(store)
    rows = Recurrence.objects.of(store.backend).extra(select={"raw": "payload"})
    assert SECRET not in repr([row.raw for row in rows])


def test_a_key_that_is_taken_shows_its_holder_in_the_clear(store: Store) -> None:
    store.schedule(payload=CARRIED, key="k")

    assert store.schedule(payload=1, key="k", on_conflict="ignore").payload == CARRIED
    assert store.schedule(payload=[SECRET], key="k", on_conflict="replace").payload == [SECRET]
    assert store.objects.find(key="k", backend=store.alias).payload == [SECRET]
    assert SECRET not in dump(store)


def test_rows_cannot_be_searched_by_what_is_encrypted(configure: Configure) -> None:
    store = configure([NEW])
    if store.backend.database is None:
        pytest.skip("its messages are no rows")
    store.schedule(payload={"name": SECRET})
    rows = store.rows
    for found in (
        rows.filter(payload__name=SECRET),
        rows.exclude(payload__name=SECRET),
        rows.filter(payload__name__startswith="h"),
        rows.filter(payload={"name": SECRET}),
        rows.filter(payload__has_key="name"),
        rows.filter(result__r=1),
        rows.values("payload__name"),
        rows.order_by("payload__name"),
    ):
        with pytest.raises(NotSupported, match="cannot be searched"):
            list(found)
    assert rows.filter(payload__isnull=True).count() == 0
    assert list(rows.values_list("payload", flat=True)) == [{"name": SECRET}]
    assert configure().rows.filter(payload__name=SECRET).count() == 0


def test_nobody_can_schedule_what_looks_like_an_envelope(store: Store) -> None:
    for payload in ({NAME: "x"}, {NAME: {"a": 1}}):
        with pytest.raises(InvalidPayload, match="reserved"):
            store.schedule(payload=payload)
    assert store.find(store.schedule(payload={NAME: "x", "a": 1})).payload == {NAME: "x", "a": 1}


def test_a_cipher_of_ones_own_takes_the_place_of_keys(configure: Configure) -> None:
    store = configure("tests.cipher.conftest.Reversed")
    message = store.schedule(payload=CARRIED)

    assert store.find(message).payload == CARRIED
    assert SECRET not in dump(store)


def test_a_message_may_be_moved_between_stores_with_different_keys(configure: Configure, alias: str) -> None:
    if alias == "memory":
        pytest.skip("one end of the move is memory")
    from django_sked.moving import Move

    store = configure([NEW])
    messages = [store.schedule(at=after(hours=n), payload={"n": n, "text": SECRET}) for n in range(3)]
    lost = configure([OTHER]).schedule(at=after(hours=9), payload=SECRET)
    store = configure([NEW])
    target = ScheduledMessage.objects
    from django_sked.backends import message_backends

    for _ in Move(store.backend, message_backends["memory"]).run():
        pass

    assert [target.find(id=m.pk, backend="memory").payload["n"] for m in messages] == [0, 1, 2]
    assert isinstance(target.find(id=lost.pk, backend="memory").payload, Sealed)
