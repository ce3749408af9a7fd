"""The tables of the reference say what the code says."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.dispatch import Signal
from django.test import override_settings

from django_sked import checks, conf, exceptions, managers, queries, retry, signals, testing, verbs
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import DatabaseBackend
from django_sked.backends.database.claiming import ClaimStrategy
from django_sked.backends.memory import MemoryBackend
from django_sked.backends.redis import RedisBackend
from django_sked.exceptions import ControlFlow, InvalidBackend, SkedError
from django_sked.models import Overview, QueueControl, Recurrence, ScheduledMessage, WorkerProcess, Workflow
from django_sked.outcomes import MOST_ERRORS
from django_sked.states import FINISHED, STEPS, Answer, Status
from django_sked.worker import Worker
from django_sked.worker.options import DEFAULT_CONCURRENCY
from tests.docs.pages import DOCS, ROOT, codes, names, table, tables

PACKAGE = ROOT / "django_sked"


API, SETTINGS = "reference/api.md", "reference/settings.md"


def parameters(function: Any, *left_out: str) -> set[str]:
    found = inspect.signature(function).parameters.values()
    return {p.name for p in found if p.kind is not p.VAR_KEYWORD} - {"self", *left_out}


# Settings


def test_the_keys_of_a_backend() -> None:
    assert set(names(SETTINGS, "Keys of a backend", "key")) == set(conf.KEYS)


def test_the_defaults_of_a_backend() -> None:
    written = {codes(row["key"])[0]: row["default"] for row in table(SETTINGS, "Keys of a backend")}
    settings = conf.BackendSettings(alias="x")
    assert ast.literal_eval(written["KEY_PREFIX"].strip("`")) == settings.key_prefix
    assert ast.literal_eval(written["LOCATION"].strip("`")) == settings.location


@pytest.mark.parametrize(
    ("heading", "cls", "elsewhere"),
    [("Options", conf.DatabaseOptions, None), ("Options of Redis", conf.RedisOptions, conf.Options)],
)
def test_the_options_and_their_defaults(heading: str, cls: type[conf.Options], elsewhere: Any) -> None:
    written = {codes(row["option"])[0]: row["default"] for row in table(SETTINGS, heading)}
    options = cls()
    of_all = {field.name for field in dataclasses.fields(elsewhere)} if elsewhere else set()
    assert set(written) == {field.name for field in dataclasses.fields(cls)} - of_all
    assert written.pop("retention", "see below") == "see below"
    for name, text in written.items():
        value = eval(text.strip("`"), vars(retry).copy())
        assert (type(value), value) == (type(getattr(options, name)), getattr(options, name)), name


@pytest.mark.parametrize(
    ("heading", "column", "cls"),
    [
        ("Options", "option", conf.Options),
        ("Options of Redis", "option", conf.RedisOptions),
        ("Keys of a queue", "key", conf.QueueSettings),
    ],
)
def test_the_ranges_are_those_that_are_accepted(heading: str, column: str, cls: type[Any]) -> None:
    ranges = 0
    for row in table(SETTINGS, heading):
        bounds = re.search(r"([\d.]+) to ([\d.]+)", row.get("unit, range", row.get("range", "")))
        if bounds is None:
            continue
        ranges += 1
        name = codes(row[column])[0]
        least, most = (float(bound) if "." in bound else int(bound) for bound in bounds.groups())
        conf.build(cls, {name: least}, "here")
        conf.build(cls, {name: most}, "here")
        for beyond in (least - 1 if isinstance(least, int) else least / 2, most + 1):
            with pytest.raises(InvalidBackend, match=name):
                conf.build(cls, {name: beyond}, "here")
    assert ranges


def test_the_keys_of_a_queue() -> None:
    fields = [field.name for field in dataclasses.fields(conf.QueueSettings)]
    assert names(SETTINGS, "Keys of a queue", "key") == fields
    assert conf.QueueSettings().concurrency is None
    assert f"or {DEFAULT_CONCURRENCY}." in table(SETTINGS, "Keys of a queue")[0]["meaning"]


def test_the_retention() -> None:
    (rows,) = (rows for _heading, rows in tables(SETTINGS) if "kept" in rows[0])
    written = {Status(codes(row["status"])[0]): timedelta(days=int(row["kept"].split()[0])) for row in rows}
    assert written == conf.DEFAULT_RETENTION


_BACKEND = "django_sked.backends.database.DatabaseBackend"


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"x": {}},
        {"x": {"BACKEND": "a.b.C"}},
        {"x": {"BACKEND": _BACKEND, "OPTION": {}}},
        {"x": {"BACKEND": _BACKEND, "OPTIONS": {"lease": 0}}},
        {"x": {"BACKEND": _BACKEND, "OPTIONS": {"database": "other"}}},
        {"y": {"BACKEND": _BACKEND}},
    ],
    ids=str,
)
def test_what_is_said_of_a_wrong_setting(value: dict[str, Any]) -> None:
    default = {"default": {"BACKEND": _BACKEND}} if value else {}
    with override_settings(SKED=default | value), pytest.raises(InvalidBackend) as caught:
        message_backends["x"]
    said = re.sub(r"\(.*?\)|there are: .*", "(...)", str(caught.value))
    written = [codes(row["what is said"])[0] for row in table(SETTINGS, "Errors")]
    assert any(
        said.startswith(re.sub(r"\(.*?\)|there are: .*", "(...)", text.removesuffix(" ..."))) for text in written
    ), said


# Messages


def test_the_arguments_of_schedule() -> None:
    heading = "`objects.schedule(event, payload=None, **arguments)`"
    assert set(names(API, heading, "argument")) == parameters(managers.ScheduledMessageManager.schedule)


def test_the_arguments_of_search() -> None:
    written = names(API, "`objects.search(**conditions)`", "argument")
    assert set(written) == parameters(managers.ScheduledMessageManager.search)


@pytest.mark.parametrize("method", ["schedule_many", "find", "keys", "next_due_at"])
def test_the_signatures_in_headings(method: str) -> None:
    (written,) = re.findall(rf"^### `objects\.{method}\((.*)\)`", (DOCS / API).read_text(encoding="utf-8"), re.M)
    found = inspect.signature(getattr(managers.ScheduledMessageManager, method)).parameters.values()
    true = [str(p.replace(annotation=p.empty)) for p in found if p.name != "self"]
    assert [part.strip() for part in written.replace('"', "'").split(",") if part.strip() != "*"] == true


def test_the_verbs() -> None:
    rows = table(API, "Verbs")
    classes = {verb.step: verb for verb in verbs.Verb.__subclasses__()}
    assert {codes(row["verb"])[0] for row in rows} == set(classes)
    for row in rows:
        (verb,) = codes(row["verb"])
        took = set(re.findall(r"[a-z]+", row["takes effect on"])) & set(Status.values)
        assert took == set(STEPS[verb][0]), verb
        arguments = {code.split("=")[0] for code in codes(row["arguments"])}
        assert arguments == parameters(getattr(ScheduledMessage, verb)), verb
        assert arguments == parameters(getattr(managers.ScheduledMessageManager, verb), "id", "key", "backend"), verb


def test_every_twin_exists() -> None:
    for verb in (row["verb"].strip("`") for row in table(API, "Verbs")):
        for owner in (ScheduledMessage, managers.ScheduledMessageManager, queries.BulkVerbs):
            assert inspect.iscoroutinefunction(getattr(owner, f"a{verb}")), (owner, verb)


def test_the_answers() -> None:
    rows = table(API, "Answers")
    assert [codes(row["answer"])[0] for row in rows] == Answer.names
    for row in rows:
        answer = Answer[codes(row["answer"])[0]]
        assert codes(row["value"]) == [answer.value]
        assert row["true"] == ("yes" if answer else "no")


@pytest.mark.parametrize(("page", "heading"), [(API, "Statuses"), ("explanation/architecture.md", "States")])
def test_the_statuses(page: str, heading: str) -> None:
    written: dict[str, set[str]] = {}
    for row in table(page, heading):
        leaves = set(re.findall(r"[a-z]+", row["leaves to"])) & set(Status.values)
        written |= dict.fromkeys(codes(row["status"]), leaves)
    true: dict[str, set[str]] = {status: set() for status in Status.values}
    for step, (starts, ends) in STEPS.items():
        for start in starts:
            # A reschedule changes no status.
            true[start] |= set() if step == "reschedule" else {end.value for end in ends if end != start}
    assert written == true


def test_the_fields() -> None:
    fields = {field.name for field in ScheduledMessage._meta.concrete_fields} - {"live_key"}
    written = set(names(API, "Fields", "field"))
    text = (DOCS / API).read_text(encoding="utf-8")
    assert written == fields
    assert f"the {MOST_ERRORS - 1} newest" in text


def test_the_retry_policies() -> None:
    written = [codes(row["policy"])[0] for row in table(API, "Retry policies")]
    assert [text.split("(")[0] for text in written] == [policy.__name__ for policy in retry.kinds.values()]
    assert eval(written[0], vars(retry).copy()) == retry.Exponential()


def test_the_exceptions() -> None:
    rows = [row for heading, rows in tables(API) if heading == "Exceptions" for row in rows]
    written = {codes(row["exception"])[0]: set(codes(row["is a"])) for row in rows}
    classes = [
        cls
        for cls in vars(exceptions).values()
        if isinstance(cls, type) and issubclass(cls, SkedError | ControlFlow) and not cls.__name__.startswith("_")
    ]
    bases = {
        cls.__name__: {"ControlFlow" if base.__name__[0] == "_" else base.__name__ for base in cls.__bases__}
        for cls in classes
    }
    assert written == bases


def test_the_arguments_of_a_worker() -> None:
    (written,) = re.findall(r"`Worker\((.*?)\)`", (DOCS / API).read_text(encoding="utf-8"), re.S)
    arguments = {part.strip().split("=")[0] for part in re.sub(r"\(\)", "", written).split(",")} - {"*"}
    assert arguments == parameters(Worker)


def test_the_signals() -> None:
    page = "reference/signals.md"
    true = {name for name, value in vars(signals).items() if isinstance(value, Signal)} - {"message_due"}
    facts = names(page, "Facts about messages", "signal") + names(page, "Facts about workers", "signal")
    assert set(facts) == true
    assert set(names(page, "message_due", "argument")) == parameters(signals.MessageDueSignal.connect, "receiver")


def test_the_checks() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    used = set(re.findall(r'id="django_sked\.([EW]\d{3})"', source))
    assert names("reference/checks.md", "System checks", "id") == [f"django_sked.{id}" for id in sorted(used)]
    announced = set(re.findall(r"\b[EW]\d{3}\b", checks.__doc__ or ""))
    assert announced and announced <= used


def _log_lines() -> Iterator[tuple[str, str]]:
    """Logger and text of every log call of the package."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            function = node.func if isinstance(node, ast.Call) else None
            if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
                continue
            if function.value.id not in {"logger", "worker_logger"} and ast.unparse(function) != "failures.log":
                continue
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]  # type: ignore[attr-defined]
            if texts:
                in_worker = function.value.id == "worker_logger" or "worker" in path.parts
                yield ("django_sked.worker" if in_worker else "django_sked"), texts[0]


def test_the_log_events() -> None:
    page = "reference/log-events.md"
    lines = list(_log_lines())
    workers = {text.split()[0] for logger, text in lines if logger == "django_sked.worker"}
    assert set(names(page, "Logger `django_sked.worker`", "name")) == workers
    from django_sked import log

    facts = {f"message_{name}": level for name, level in log._LEVELS.values()}
    levels = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
    rows = table(page, "Logger `django_sked`")
    assert {codes(row["name"])[0]: levels[row["level"]] for row in rows} == facts
    left = next(rows for heading, rows in tables(page) if heading == "Logger `django_sked`" and "means" in rows[0])
    texts = [text for logger, text in lines if logger == "django_sked" and text.startswith("not_")]
    written = {(codes(row["name"])[0], *codes(row["keys"])) for row in left}
    assert written == {(text.split()[0], *re.findall(r"(\w+)=", text)) for text in texts}


def test_the_keys_of_the_workers_log_events() -> None:
    """An event that is logged with other keys elsewhere has a row for each."""
    texts = {text for logger, text in _log_lines() if logger == "django_sked.worker"}
    true = {(text.split()[0], *re.findall(r"(\w+)=", text)) for text in texts}
    rows = table("reference/log-events.md", "Logger `django_sked.worker`")
    written = [(codes(row["name"])[0], *(key for key in codes(row["keys"]) if key != "nearest")) for row in rows]

    assert len(written) == len(set(written))
    assert set(written) == true


def test_the_capability_flags() -> None:
    rows = table("reference/backends.md", "Capability flags")
    flags = {name for name, value in vars(BaseBackend).items() if isinstance(value, bool)}
    assert {codes(row["flag"])[0] for row in rows} == flags
    for row in rows:
        (flag,) = codes(row["flag"])
        of_database = getattr(DatabaseBackend, flag)
        depends = "on PostgreSQL" if isinstance(of_database, property) else None
        assert row["database"] == (depends or ("yes" if of_database else "no")), flag
        assert row["Redis"] == ("yes" if getattr(RedisBackend, flag) else "no"), flag
        assert row["memory"] == ("yes" if getattr(MemoryBackend, flag) else "no"), flag


def test_the_contract() -> None:
    written = {code.split("(")[0] for code in names("reference/backends.md", "The contract", "method")}
    methods = {
        name for name, value in vars(BaseBackend).items() if inspect.isfunction(value) and not name.startswith("_")
    }
    assert written == methods


def test_the_testing_helpers() -> None:
    text = (DOCS / "reference/testing.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## `(\w+)[(`]", text, re.M)) == set(testing.__all__)
    heading = re.search(r"^## (`TickedWorker.*)$", text, re.M)
    assert heading
    methods = {name for name, value in vars(testing.TickedWorker).items() if inspect.isfunction(value)} - {"__init__"}
    written = {code.split("(")[0] for code in names("reference/testing.md", heading[1], "method")}
    assert written == methods
    for name, signature in re.findall(r"`(?:## `)?(\w+)\((now=None[^`]*)\)`", text):
        owner = testing.deliver_due if name == "deliver_due" else getattr(testing.TickedWorker, name)
        assert {part.split("=")[0].strip() for part in signature.split(",")} - {"*"} == parameters(owner), name


def test_the_permissions() -> None:
    models = (Overview, QueueControl, Recurrence, ScheduledMessage, WorkerProcess, Workflow)
    true = {name for model in models for name, _text in model._meta.permissions}
    true |= {f"{action}_{model._meta.model_name}" for model in models for action in model._meta.default_permissions}
    written = names("reference/admin.md", "Permissions", "permission")
    assert set(written) == {f"django_sked.{name}" for name in true}


def test_the_claim_strategies() -> None:
    text = (DOCS / "explanation/architecture.md").read_text(encoding="utf-8")
    written = re.findall(r"^- \*(\w+)\*", text, re.M)
    assert set(written) == {cls.__name__ for cls in ClaimStrategy.__subclasses__()}


# Reasons


def test_what_may_be_said_of_a_message_that_has_not_run() -> None:
    source = (PACKAGE / "reasons.py").read_text(encoding="utf-8")
    written = {code for row in table("howto/find-out-why.md", "What it may say") for code in codes(row["code"])}
    assert written == set(re.findall(r'code="(\w+)"', source)) | {status.value for status in FINISHED}
