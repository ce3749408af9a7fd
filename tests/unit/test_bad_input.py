"""P29: every wrong argument and setting is refused with one sentence: what, what was given, what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest
from django.conf import settings
from django.test import override_settings

from django_sked import exceptions, failpoints, retry
from django_sked.backends import message_backends
from django_sked.criteria import Criteria
from django_sked.exceptions import (
    InvalidBackend,
    InvalidMessage,
    InvalidPayload,
    InvalidReceiver,
    Misconfigured,
    PayloadTooLarge,
    UnknownArgument,
)
from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from django_sked.typed import message_type
from django_sked.worker import Worker
from django_sked.workflows import workflow

ALIAS = "memory"
objects: Any = ScheduledMessage.objects
# Without their types, which refuse some of this already.
wrong: Any = exceptions
failing: Any = failpoints
NESTED: list[Any] = []
for _ in range(70):
    NESTED = [NESTED]
CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE


@dataclass
class Free:
    data: Any


class Model(pydantic.BaseModel):
    data: Any


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")

    data: Any


class Struct(msgspec.Struct):
    data: Any


SELF = Free(None)
SELF.data = SELF


def schedule(**arguments: Any) -> Callable[[], Any]:
    return lambda: objects.schedule(**{"event": "e", "backend": ALIAS, **arguments})


def many(items: Any, **options: Any) -> Callable[[], Any]:
    return lambda: objects.schedule_many(items, backend=ALIAS, **options)


def reschedule(**arguments: Any) -> Callable[[], Any]:
    return lambda: objects.reschedule(**{"key": "k", "backend": ALIAS, **arguments})


def setting(**params: Any) -> Callable[[], Any]:
    """Use a backend of these settings."""
    memory = {"BACKEND": "django_sked.backends.memory.MemoryBackend"}

    def use() -> None:
        with override_settings(SKED={"default": memory | params}):
            message_backends["default"].now()

    return use


def options(**values: Any) -> Callable[[], Any]:
    return setting(OPTIONS=values)


def worker(**arguments: Any) -> Callable[[], Any]:
    return lambda: Worker(ALIAS, **arguments)


def connect(**options: Any) -> Callable[[], Any]:
    def receive(**kwargs: Any) -> None: ...

    return lambda: message_due.connect(receive, weak=False, **{"event": "e", **options})


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # Payload
    (schedule(payload="a\0b"), InvalidPayload, r"payload must be text without NUL characters, not 'a\\x00b'"),
    (schedule(payload={"a": ["\ud800"]}), InvalidPayload, r"payload\.a\[0\] must be text without lone surrogates"),
    (schedule(payload=float("nan")), InvalidPayload, r"payload must be a finite number, not nan"),
    (schedule(payload={"x": float("-inf")}), InvalidPayload, r"payload\.x must be a finite number, not -inf"),
    (schedule(payload=Decimal("NaN")), InvalidPayload, r"payload must be a finite number"),
    (schedule(payload={"tags": {1}}), InvalidPayload, r"payload\.tags must be a dict, list, .*not set"),
    (schedule(payload=b"bytes"), InvalidPayload, r"payload must be a dict, list, .*not bytes"),
    (schedule(payload=object()), InvalidPayload, r"payload must be a dict, list, .*not object"),
    (schedule(payload={1: "a"}), InvalidPayload, r"payload must be a dict whose keys are str"),
    (schedule(payload=10**5000), InvalidPayload, r"payload must be an integer of at most 1000 digits"),
    (schedule(payload=NESTED), InvalidPayload, r"nested at most 64 levels deep"),
    (schedule(payload=CYCLE), InvalidPayload, r"free of cycles"),
    (schedule(payload=[0] * 10_001), InvalidPayload, r"payload must be .*10000 values in all"),
    (schedule(payload="x" * 262_144), PayloadTooLarge, r"payload must be at most 262144 bytes as JSON, not 262146"),
    # ... of a type
    (schedule(event="free", payload=Free), InvalidMessage, r"Free is a class: give an instance of it"),
    (
        schedule(event="free", payload=Free(CYCLE)),
        InvalidPayload,
        r"This Free \('free'\) is no JSON: .*levels deep, or holds itself",
    ),
    (schedule(event="free", payload=Free(NESTED)), InvalidPayload, r"nested more than 64 levels deep"),
    (schedule(event="free", payload=SELF), InvalidPayload, r"This Free .* or holds itself"),
    (schedule(event="free", payload=Free({1: 2})), InvalidPayload, r"payload\.data must be a dict whose keys are str"),
    (
        schedule(event="model", payload=Model(data=object())),
        InvalidPayload,
        r"Model \('model'\) is no JSON: .*unknown type: .*object",
    ),
    (schedule(event="model", payload=Model(data=CYCLE)), InvalidPayload, r"is no JSON: ValueError: Circular reference"),
    (schedule(event="model", payload=Model(data=b"\xff")), InvalidPayload, r"is no JSON: UnicodeDecodeError"),
    (
        schedule(event="strict", payload=Strict(data=[float("nan")])),
        InvalidPayload,
        r"payload\.data\[0\] must be a finite number",
    ),
    (
        schedule(event="struct", payload=Struct(object())),
        InvalidPayload,
        r"Struct \('struct'\) is no JSON: TypeError: .*object",
    ),
    (
        schedule(event="struct", payload=Struct(CYCLE)),
        InvalidPayload,
        r"Struct \('struct'\) is no JSON: RecursionError",
    ),
    (many([{"event": "free", "payload": SELF}]), InvalidPayload, r"Message 0: This Free .* is no JSON"),
    (reschedule(payload=Free), InvalidMessage, r"Free is a class: give an instance of it"),
    (reschedule(payload=SELF), InvalidPayload, r"This Free \('free'\) is no JSON"),
    (lambda: objects.redrive(key="k", payload=SELF, backend=ALIAS), InvalidPayload, r"This Free .* is no JSON"),
    # Names
    (schedule(event=""), InvalidMessage, r"event must be 1 to 255 letters.*not ''"),
    (schedule(event=None), InvalidMessage, r"event must be .*not None"),
    (schedule(event="e" * 256), InvalidMessage, r"event must be 1 to 255"),
    (schedule(event="a\nb"), InvalidMessage, r"event must be .*not 'a\\nb'"),
    (schedule(event="mail\n"), InvalidMessage, r"event must be .*not 'mail\\n'"),
    (schedule(event='a"; DROP TABLE'), InvalidMessage, r"event must be "),
    (schedule(event="invoice.*"), InvalidMessage, r"event must be .*not 'invoice\.\*'"),
    (schedule(event="a\u202eb"), InvalidMessage, r"event must be "),
    (schedule(queue="two words"), InvalidMessage, r"queue must be 1 to 64 letters.*not 'two words'"),
    (schedule(queue="q" * 65), InvalidMessage, r"queue must be 1 to 64"),
    (schedule(queue=None), InvalidMessage, r"queue must be .*not None"),
    (schedule(key="k" * 201), InvalidMessage, r"key must be 1 to 200 printable characters"),
    (schedule(key=""), InvalidMessage, r"key must be 1 to 200 .*not ''"),
    (schedule(key=" k"), InvalidMessage, r"key must be .*without spaces around them.*not ' k'"),
    (schedule(key="k\0"), InvalidMessage, r"key must be .*not 'k\\x00'"),
    (schedule(key="\ud800"), InvalidMessage, r"key must be .*not '\\ud800'"),
    (schedule(key=42), InvalidMessage, r"key must be .*not 42"),
    # Times
    (schedule(at=datetime(2030, 1, 1)), InvalidMessage, r"at must be an aware datetime; .* has no time zone"),
    (schedule(at=date(2030, 1, 1)), InvalidMessage, r"at must be an aware datetime, not a date without a time"),
    (schedule(at="tomorrow"), InvalidMessage, r"at must be an aware datetime, not 'tomorrow'"),
    (schedule(at=1_900_000_000), InvalidMessage, r"at must be an aware datetime, not 1900000000"),
    (schedule(at=datetime(3000, 1, 1, tzinfo=UTC)), InvalidMessage, r"at must lie between 1970 and 2999"),
    (schedule(at=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))), InvalidMessage, r"at must lie between"),
    (schedule(at=datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))), InvalidMessage, r"at must lie between"),
    (schedule(delay=float("nan")), InvalidMessage, r"delay must be a timedelta or a number of seconds, not nan"),
    (schedule(delay=-1), InvalidMessage, r"delay must not be negative: -1"),
    (schedule(delay=timedelta(seconds=-1)), InvalidMessage, r"delay must not be negative"),
    (schedule(delay="5"), InvalidMessage, r"delay must be a timedelta or a number of seconds, not '5'"),
    (schedule(delay=True), InvalidMessage, r"delay must be .*not True"),
    (schedule(delay=10**30), InvalidMessage, r"delay is out of range"),
    (schedule(delay=10**400), InvalidMessage, r"delay is out of range"),
    (schedule(delay=timedelta.max), InvalidMessage, r"delay leads out of the years 1970 to 2999"),
    (schedule(at=datetime(2030, 1, 1, tzinfo=UTC), delay=5), InvalidMessage, r"either at= or delay=, not both"),
    (
        schedule(at=datetime(2000, 1, 1, tzinfo=UTC), allow_past=False),
        InvalidMessage,
        r"at lies in the past",
    ),
    (schedule(expires_in=0), InvalidMessage, r"would expire at .* and be due only at"),
    (schedule(delay=60, expires_at=datetime(2020, 1, 1, tzinfo=UTC)), InvalidMessage, r"would expire at 2020"),
    (
        schedule(expires_in=5, expires_at=datetime(2099, 1, 1, tzinfo=UTC)),
        InvalidMessage,
        r"either expires_at= or",
    ),
    (schedule(expires_at=datetime(2099, 1, 1)), InvalidMessage, r"expires_at must be an aware datetime"),
    # Numbers and policies
    (schedule(priority="high"), InvalidMessage, r"priority must be a whole number from -100 to 100 .*not 'high'"),
    (schedule(priority=101), InvalidMessage, r"priority must be .*not 101"),
    (schedule(priority=True), InvalidMessage, r"priority must be .*not True"),
    (schedule(priority=1.5), InvalidMessage, r"priority must be .*not 1\.5"),
    (schedule(max_attempts=0), InvalidMessage, r"max_attempts must be a whole number from 1 to 10000, not 0"),
    (schedule(max_attempts=True), InvalidMessage, r"max_attempts must be .*not True"),
    (schedule(max_attempts=10**9), InvalidMessage, r"max_attempts must be .*not 1000000000"),
    (schedule(timeout=0), InvalidMessage, r"timeout must be more than 0 and at most 30 days, not 0"),
    (schedule(timeout=float("nan")), InvalidMessage, r"timeout must be a timedelta or a number of seconds, not nan"),
    (schedule(timeout=timedelta(days=31)), InvalidMessage, r"timeout must be .*at most 30 days"),
    (schedule(retry=3), InvalidMessage, r"retry must be Exponential\(\), Fixed\(delay\) or Never\(\) .*not 3"),
    (schedule(retry=retry.Exponential), InvalidMessage, r"retry must be Exponential\(\)"),
    (lambda: retry.Exponential(factor=0.5), InvalidMessage, r"factor must be"),
    # Metadata
    (schedule(metadata={"a": 1}), InvalidPayload, r"metadata.*a.* must be"),
    (
        schedule(metadata={f"k{n}": "" for n in range(51)}),
        InvalidPayload,
        r"metadata must have at most 50 keys",
    ),
    (schedule(metadata={"a": "x\r\nSet-Cookie: y"}), InvalidPayload, r"metadata"),
    (schedule(metadata={"a b": "x"}), InvalidPayload, r"metadata"),
    (schedule(metadata=["a"]), InvalidPayload, r"metadata must be a mapping of str to str"),
    # Identity and the call
    (schedule(id="123"), InvalidMessage, r"id must be a UUID or its text of 32 hexadecimal digits, not '123'"),
    (schedule(id=42), InvalidMessage, r"id must be a UUID .*not 42"),
    (schedule(on_conflict="skip"), InvalidMessage, r"on_conflict must be 'error', 'ignore' or 'replace', not 'skip'"),
    (schedule(on_conflict=[]), InvalidMessage, r"on_conflict must be 'error', 'ignore' or 'replace', not \[\]"),
    (schedule(backend="nowhere"), InvalidBackend, r"There is no SKED backend 'nowhere'; there are: .*memory"),
    (schedule(backend=""), InvalidBackend, r"There is no SKED backend ''"),
    (schedule(backend=0), InvalidBackend, r"backend must be an alias of the SKED setting, not 0"),
    (schedule(backend=[]), InvalidBackend, r"backend must be an alias of the SKED setting, not \[\]"),
    (schedule(backend=["a"]), InvalidBackend, r"backend must be an alias .*not \['a'\]"),
    (lambda: objects.find(key="k", backend={}), InvalidBackend, r"backend must be an alias .*not \{\}"),
    (lambda: workflow("w", backend=""), InvalidBackend, r"There is no SKED backend ''"),
    (schedule(allow_past="no"), InvalidMessage, r"allow_past must be True or False, not 'no'"),
    (schedule(allow_past=None), InvalidMessage, r"allow_past must be True or False, not None"),
    (schedule(eta=1), UnknownArgument, r"schedule\(\) takes no argument 'eta': did you mean 'at'\?"),
    (schedule(max_retries=3), UnknownArgument, r"'max_retries': say max_attempts=4"),
    (schedule(prioritty=3), UnknownArgument, r"'prioritty': did you mean 'priority'\?"),
    (schedule(zzz=3), UnknownArgument, r"'zzz'; it takes event, payload, at"),
    # Batches
    (many("events"), InvalidMessage, r"schedule_many takes dictionaries or unsaved messages, not 'events'"),
    (many({"event": "e"}), InvalidMessage, r"schedule_many takes dictionaries"),
    (many(5), InvalidMessage, r"schedule_many takes .*not 5"),
    (many([5]), InvalidMessage, r"Message 0: expected a dictionary, an unsaved message or one of a type, not 5"),
    (many([{"event": "e"}, {}]), InvalidMessage, r"Message 1: event is missing"),
    (many([{"event": "e", "eta": 1}]), UnknownArgument, r"Message 0: .*'eta': did you mean 'at'"),
    (many([{"event": "e", 5: 1}]), UnknownArgument, r"Message 0: .*'5'"),
    (many([{"event": "e", "payload": {1}}]), InvalidPayload, r"Message 0: payload must be"),
    (many([], batch_size=0), InvalidMessage, r"batch_size must be a whole number from 1, not 0"),
    (many([{"event": "e"}], on_conflict="skip"), InvalidMessage, r"on_conflict must be"),
    # Verbs
    (reschedule(), InvalidMessage, r"reschedule\(\) needs a new time .* or a field to change"),
    (reschedule(at=datetime(2030, 1, 1)), InvalidMessage, r"at must be an aware datetime"),
    (reschedule(delay=5, shift=5), InvalidMessage, r"Give only one of at=, delay=, at_local= and shift="),
    (reschedule(shift="1h"), InvalidMessage, r"shift must be a timedelta or a number of seconds, not '1h'"),
    (reschedule(shift=timedelta.max), InvalidMessage, r"shift must be at most 366000 days"),
    (reschedule(shift=timedelta.min), InvalidMessage, r"shift must not be less than -366000 days"),
    (reschedule(priority=None), InvalidMessage, r"priority must be .*not None"),
    (reschedule(payload={1}), InvalidPayload, r"payload must be a dict, list, .*not set"),
    (reschedule(delay=60, expires_at=datetime(2020, 1, 1, tzinfo=UTC)), InvalidMessage, r"would expire at 2020"),
    (lambda: objects.cancel(backend=ALIAS), InvalidMessage, r"Give exactly one of id= and key="),
    (lambda: objects.cancel(id=1, key="k", backend=ALIAS), InvalidMessage, r"Give exactly one of id= and key="),
    (lambda: objects.cancel(id="x", backend=ALIAS), InvalidMessage, r"id must be a UUID"),
    (lambda: objects.cancel(key="k", reason=5, backend=ALIAS), InvalidMessage, r"reason must be text .*not 5"),
    (lambda: objects.hold(key="k", reason="a\0", backend=ALIAS), InvalidMessage, r"reason must be text without NUL"),
    (lambda: objects.redrive(key="k", at="now", backend=ALIAS), InvalidMessage, r"at must be an aware datetime"),
    (lambda: objects.find(key="", backend=ALIAS), InvalidMessage, r"key must be 1 to 200"),
    (lambda: objects.search(status="sent", backend=ALIAS), InvalidMessage, r"status must be any of blocked, .*'sent'"),
    (lambda: objects.search(status=5, backend=ALIAS), InvalidMessage, r"status must be any of .*not 5"),
    (lambda: objects.search(due_from=date(2030, 1, 1), backend=ALIAS), InvalidMessage, r"due_from must be an aware"),
    (lambda: exceptions.Retry(), InvalidMessage, r"Retry\(\) takes either at= or delay="),
    (lambda: exceptions.Reschedule(delay=1, at=datetime.now(UTC)), InvalidMessage, r"Reschedule\(\) takes either"),
    # What receivers raise
    (lambda: wrong.Retry(delay="x"), InvalidMessage, r"delay must be a timedelta or a number of seconds, not 'x'"),
    (lambda: wrong.Retry(delay=float("nan")), InvalidMessage, r"delay must be .*not nan"),
    (lambda: wrong.Retry(delay=-5), InvalidMessage, r"delay must not be negative: -5"),
    (lambda: wrong.Retry(at=datetime(2031, 1, 1)), InvalidMessage, r"at must be an aware datetime; .*no time zone"),
    (lambda: wrong.Reschedule(at=1), InvalidMessage, r"at must be an aware datetime, not 1"),
    (lambda: wrong.Reschedule(delay=-1), InvalidMessage, r"delay must not be negative: -1"),
    (lambda: wrong.Bury(3), InvalidMessage, r"The reason of Bury\(\) must be text, not 3"),
    (lambda: wrong.EndRecurrence(None), InvalidMessage, r"The reason of EndRecurrence\(\) must be text, not None"),
    # Receivers
    (connect(atomic="yes"), InvalidReceiver, r"receive.*: atomic must be True or False, not 'yes'"),
    (connect(atomic=1), InvalidReceiver, r"atomic must be True or False, not 1"),
    (
        connect(event=3),
        InvalidReceiver,
        r"a glob, a @message_type class or a list of them, not 3",
    ),
    # Workers
    (worker(queues=3), Misconfigured, r"queues must be a list of names, not 3"),
    (worker(queues="mail"), Misconfigured, r"queues must be a list of names, not 'mail'"),
    (worker(queues=[3]), Misconfigured, r"queues: queue must be 1 to 64 .*not 3"),
    (worker(exclude_queues=3), Misconfigured, r"exclude_queues must be a list of names, not 3"),
    (worker(exclude_queues=None), Misconfigured, r"exclude_queues must be a list of names, not None"),
    (worker(burst="no"), Misconfigured, r"burst must be True or False, not 'no'"),
    (worker(lease=float("nan")), Misconfigured, r"lease must be seconds from 0\.5 to 3600, not nan"),
    # Failpoints
    (lambda: failing.set(5), Misconfigured, r"failpoints must be text such as 'settle\.before=kill:3', not 5"),
    (lambda: failing.set(None), Misconfigured, r"failpoints must be text .*not None"),
    # Settings
    (
        options(max_attempts=0),
        InvalidBackend,
        r"SKED\['default'\]\['OPTIONS'\]\['max_attempts'\]: .*not 0",
    ),
    (options(max_attemps=3), InvalidBackend, r"unknown key 'max_attemps': did you mean 'max_attempts'\?"),
    (options(lease="30"), InvalidBackend, r"\['lease'\]: must be a number from 0\.5 to 3600, not '30'"),
    (options(lease=float("nan")), InvalidBackend, r"\['lease'\]: must be a number"),
    (options(batch_size=1.5), InvalidBackend, r"\['batch_size'\]: must be a whole number"),
    (options(poll_interval=True), InvalidBackend, r"\['poll_interval'\]: must be a number"),
    (options(retry="exponential"), InvalidBackend, r"\['retry'\]: must be a policy of django_sked\.retry"),
    (options(timeout=-1), InvalidBackend, r"\['timeout'\]: timeout must not be negative"),
    (options(retention={"sent": 5}), InvalidBackend, r"\['retention'\]: knows the statuses cancelled, .*not 'sent'"),
    (options(retention={"scheduled": 5}), InvalidBackend, r"not 'scheduled'"),
    (options(retention={("dead",): 5}), InvalidBackend, r"not \('dead',\)"),
    (options(retention={"dead": -5}), InvalidBackend, r"retention of 'dead' must not be negative"),
    (options(retention=7), InvalidBackend, r"\['retention'\]: must be a dictionary"),
    (options(database="default"), InvalidBackend, r"unknown key 'database'"),
    (setting(OPTIONS=[]), InvalidBackend, r"SKED\['default'\]\['OPTIONS'\] must be a dictionary, not \[\]"),
    (setting(OPTION={}), InvalidBackend, r"SKED\['default'\] has an unknown key 'OPTION': did you mean 'OPTIONS'\?"),
    (setting(QUEUES=["mail"]), InvalidBackend, r"\['QUEUES'\] must be a dictionary"),
    (setting(QUEUES={"two words": {}}), InvalidBackend, r"\['QUEUES'\]: queue must be 1 to 64 .*'two words'"),
    (setting(QUEUES={"mail": {"concurrency": 0}}), InvalidBackend, r"\['mail'\]\['concurrency'\]: .*from 1 to 1000"),
    (setting(QUEUES={"mail": {"threads": 4}}), InvalidBackend, r"unknown key 'threads'"),
    (setting(KEY_PREFIX="a b\r\n"), InvalidBackend, r"\['KEY_PREFIX'\]: must be 1 to 64 letters"),
    (setting(LOCATION=6379), InvalidBackend, r"\['LOCATION'\]: must be text"),
    (setting(BACKEND="no.such.Backend"), InvalidBackend, r"\['BACKEND'\]: 'no\.such\.Backend' cannot be imported"),
    (setting(BACKEND="Backend"), InvalidBackend, r"\['BACKEND'\]: 'Backend' cannot be imported"),
    (setting(BACKEND="json.dumps"), InvalidBackend, r"\['BACKEND'\]: 'json\.dumps' is no backend of messages"),
    (setting(BACKEND=None), InvalidBackend, r"SKED\['default'\] must be a dictionary with a dotted path in 'BACKEND'"),
]


@pytest.fixture(autouse=True)
def empty_backend(message_types: None) -> None:
    message_backends.reset()
    for cls in (Free, Model, Strict, Struct):
        message_type(cls.__name__.lower())(cls)


@pytest.mark.parametrize(("call", "error", "words"), WRONG, ids=[words[:60] for _, _, words in WRONG])
def test_a_wrong_call_or_setting_is_refused_with_a_sentence_and_stores_nothing(
    call: Callable[[], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        call()

    assert type(caught.value) is error
    assert len(str(caught.value)) < 500
    assert message_backends[ALIAS].count(Criteria()) == 0


@pytest.mark.parametrize("value", [None, [], "default", {}, {"other": {"BACKEND": "x"}}, {"default": None}])
def test_a_setting_that_is_no_dictionary_of_backends_is_refused(value: Any) -> None:
    with override_settings(SKED=value), pytest.raises(InvalidBackend, match="SKED"):
        list(message_backends)


def test_a_secret_in_a_location_is_not_shown() -> None:
    secret = {"BACKEND": settings.SKED["memory"]["BACKEND"], "LOCATION": "redis://:s3cret@host", "OPTIONS": 5}

    with override_settings(SKED={"default": secret}), pytest.raises(InvalidBackend) as caught:
        message_backends["default"].now()

    assert "s3cret" not in str(caught.value)
