"""What is typed into the search: `event:invoice.* status:dead metadata.tenant:acme due:<2h`.

What has no index, the beginning of a key as well as a status that is no final one, is looked for by the list, in a part
of the messages at a time: see `walks.py`.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q, QuerySet
from django.db.models.fields.json import KeyTransform
from django.utils import timezone
from django.utils.translation import gettext as _

from django_sked import arguments, ids, times
from django_sked.admin import walks
from django_sked.admin.stored import backend_of, is_stored
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.redaction import is_index
from django_sked.states import FINISHED, Status

#: Field of JSON -> may be followed by a path, and needs the permission to see payloads.
CONFIDENTIAL = ("payload", "metadata")
_QUALIFIER = re.compile(r"(?P<name>[a-z_]+)(?P<path>(?:\.[^:\s.]+)*):(?P<value>.*)", re.S)
_COMPARED = re.compile(r"(?P<sign><=|>=|<|>|)(?P<value>.+)", re.S)
#: Number of a list item: no database takes it for another one, as some do with what is too large or has a sign.
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
#: Years in which something can be due.
_YEARS = range(arguments.EARLIEST.year, arguments.LATEST.year + 1)
_SIGNS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "": "exact"}


class Unclear(Exception):
    """What was typed cannot be searched for; the text says why."""


@dataclass(slots=True)
class Wanted:
    """What a search asks for: conditions along an index, others, and words that are no qualifiers."""

    indexed: list[Q] = field(default_factory=list)
    others: list[Q] = field(default_factory=list)
    #: Paths into JSON, and the values that each may have.
    inside: list[tuple[str, list[str], list[Any]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


def has_qualifier(text: str) -> bool:
    """Is it more than a plain word, as an event may be that has a colon in its name?"""
    return any(_name(part) for part in _parts(text))


def parse(text: str, now: datetime, *, with_payload: bool) -> Wanted:
    """Raises Unclear."""
    wanted = Wanted()
    if not has_qualifier(text):
        wanted.words.append(text)
        return wanted
    for part in _parts(text):
        name = _name(part)
        if name is None:
            wanted.words.append(part)
            continue
        found = _QUALIFIER.fullmatch(part)
        assert found is not None
        path, value = found["path"].split(".")[1:], found["value"].strip()
        if not value:
            raise Unclear(_("%(name)s: needs a value.") % {"name": name})
        if name in CONFIDENTIAL:
            if not with_payload:
                raise Unclear(_("You have no permission to search in payload and metadata."))
            wanted.inside.append((name, _path(name, path), _values(value)))
        elif path:
            raise Unclear(_("%(name)s: has nothing inside it.") % {"name": name})
        else:
            _FIELDS[name](wanted, value, now)
    return wanted


def narrow(rows: QuerySet[ScheduledMessage], wanted: Wanted) -> tuple[QuerySet[ScheduledMessage], str]:
    """What meets all of it, and, where a word was not taken as a beginning, a sentence that says so."""
    _refuse_hidden(backend_of(rows), wanted)  # type: ignore[arg-type]
    if is_stored(rows):
        return _narrowed(rows, wanted), ""
    for condition in wanted.indexed:
        rows = rows.filter(condition)
    words, said = wanted.words, ""
    whole, rest = _whole(rows, words)
    if rest != words and _is_many(rows):
        rows, words = whole, rest
        if not (words or wanted.others or wanted.inside):
            said = _("Only what has this whole id or key is listed, not what begins so.")
    for condition in (*wanted.others, *_beginnings(words)):
        rows = rows.filter(condition)
    for number, (name, path, values) in enumerate(wanted.inside):
        inside: Any = name
        for step in path:
            inside = KeyTransform(step, inside)
        alias = f"sked_inside_{number}"
        any_of = Q()
        for value in values:
            any_of |= Q(**{alias: value})
        rows = rows.alias(**{alias: inside}).filter(any_of)
    return rows, said


def _refuse_hidden(backend: BaseBackend, wanted: Wanted) -> None:
    """Whether something is found would tell what nobody is shown; of what is encrypted nothing would be."""
    for name, path, _values in wanted.inside:
        if backend.redaction.hides(tuple(path)):
            raise Unclear(_("%(path)s is hidden (redact): nobody can search for it.") % {"path": ".".join(path)})
        if name == "payload" and backend.options.payload_cipher is not None:
            raise Unclear(_("Payloads are encrypted here (payload_cipher): they cannot be searched."))


def _narrowed(rows: Any, wanted: Wanted) -> Any:
    """Of messages that are no rows: by what their backend can search for."""
    if wanted.inside:
        raise Unclear(_("This backend cannot be searched by payload or metadata."))
    try:
        for condition in (*wanted.indexed, *wanted.others):
            rows = rows.filter(*(each for each in condition.children if each != ("finished_at__isnull", False)))
    except IncorrectLookupParameters as error:
        raise Unclear(str(error)) from None
    for word in wanted.words:
        rows = rows.search(word)
    return rows


def _is_many(rows: QuerySet[ScheduledMessage]) -> bool:
    """Are there too many to look for beginnings, which have no index, among them?"""
    everything = ScheduledMessage.objects.using(rows.db).order_by("pk")
    return not walks.walk(rows, descending=True).few and everything[: walks.LOOKED + 1].count() > walks.LOOKED


def _whole(rows: QuerySet[ScheduledMessage], words: list[str]) -> tuple[QuerySet[ScheduledMessage], list[str]]:
    """What has a word as its id or its key, and the words that none has."""
    rest = []
    for word in words:
        whole = next((found for each in _wholes(word) if (found := rows.filter(each)).exists()), None)
        if whole is None:
            rest.append(word)
        else:
            rows = whole
    return rows, rest


def _parts(text: str) -> list[str]:
    """Split at spaces, but not inside quotation marks."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _name(part: str) -> str | None:
    found = _QUALIFIER.fullmatch(part)
    known = found is not None and (found["name"] in _FIELDS or found["name"] in CONFIDENTIAL)
    return found["name"] if found is not None and known else None


def _path(name: str, path: list[str]) -> list[str]:
    if not path:
        raise Unclear(_("Say what in it: %(name)s.customer:42.") % {"name": name})
    for step in path:
        if is_index(step) and _INDEX.fullmatch(step) is None:
            text = _("%(step)s: the number of a list item is written 0, 1, 2 and so on, with at most 9 digits.")
            raise Unclear(text % {"step": step})
    return path


def _values(text: str) -> list[Any]:
    """The text, and what it is as JSON: 42 finds both the number and the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return [text]
    # Python reads NaN and 1e400 as numbers, which no database has.
    is_scalar = isinstance(value, int | bool) or (isinstance(value, float) and math.isfinite(value))
    return [text, value] if is_scalar else [text]


# Each qualifier


def _text(name: str, *, is_indexed: bool) -> Callable[[Wanted, str, datetime], None]:
    """A whole text, or, with a star at its end, its beginning, for which no database is sure to have an index."""

    def add(wanted: Wanted, value: str, now: datetime) -> None:
        beginning = value.removesuffix("*")
        if "*" in beginning or value == "*":
            raise Unclear(_("%(name)s: takes a star at the end only, as in invoice.*.") % {"name": name})
        if beginning == value:
            (wanted.indexed if is_indexed else wanted.others).append(Q(**{name: value}))
        else:
            wanted.others.append(Q(**{f"{name}__startswith": beginning}))

    return add


def _status(wanted: Wanted, value: str, now: datetime) -> None:
    names = [name.strip() for name in value.split(",")]
    if unknown := [name for name in names if name not in Status.values]:
        raise Unclear(_("There is no status %(name)s.") % {"name": unknown[0]})
    if set(names) <= FINISHED:
        # Says what is true anyway, to make the index sked_message_finished usable.
        wanted.indexed.append(Q(status__in=names, finished_at__isnull=False))
    elif set(names) == {Status.CLAIMED}:
        wanted.indexed.append(Q(status=Status.CLAIMED))
    else:
        wanted.others.append(Q(status__in=names))


def _instant(name: str, *, is_indexed: bool) -> Callable[[Wanted, str, datetime], None]:
    """`<2h` (from now), `>-1d`, `>=2027-01-31T09:00`, `2027-01-31` (all of that day)."""

    def add(wanted: Wanted, value: str, now: datetime) -> None:
        (wanted.indexed if is_indexed else wanted.others).append(_when(name, value, now))

    return add


def _when(name: str, text: str, now: datetime) -> Q:
    found = _COMPARED.fullmatch(text)
    assert found is not None
    sign, value = _SIGNS[found["sign"]], found["value"].strip()
    try:
        shift, at = times.parse_shift(value), times.parse_instant(value)
        day = _day(value)
        if day is None and shift is not None and sign != "exact":
            at = now + shift
    except OverflowError:
        at = day = None
    # Beyond, there are times that no database takes, or that have no neighbours.
    if (at := day or at) is None or at.year not in _YEARS:
        raise Unclear(
            _("%(name)s: takes <2h, >-1d, >=2027-01-31T09:00 or 2027-01-31, not %(value)s.")
            % {"name": name.removesuffix("_at"), "value": text}
        )
    return Q(**{f"{name}__{sign}": at}) if day is None else _of_day(name, sign, day)


def _day(text: str) -> datetime | None:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return None
    at = times.parse_instant(f"{text}T00:00")
    return None if at is None else timezone.localtime(at)


def _of_day(name: str, sign: str, day: datetime) -> Q:
    end = times.parse_instant(f"{day.date() + timedelta(days=1)}T00:00")
    return {
        "exact": Q(**{f"{name}__gte": day, f"{name}__lt": end}),
        "lt": Q(**{f"{name}__lt": day}),
        "gte": Q(**{f"{name}__gte": day}),
        "lte": Q(**{f"{name}__lt": end}),
        "gt": Q(**{f"{name}__gte": end}),
    }[sign]


def _number(name: str) -> Callable[[Wanted, str, datetime], None]:
    def add(wanted: Wanted, value: str, now: datetime) -> None:
        found = _COMPARED.fullmatch(value)
        assert found is not None
        if not re.fullmatch(r"-?\d{1,5}", found["value"]):
            raise Unclear(_("%(name)s: takes a number, as in >3, not %(value)s.") % {"name": name, "value": value})
        wanted.others.append(Q(**{f"{name}__{_SIGNS[found['sign']]}": int(found["value"])}))

    return add


def _id(name: str, *, is_indexed: bool) -> Callable[[Wanted, str, datetime], None]:
    def add(wanted: Wanted, value: str, now: datetime) -> None:
        try:
            id = ids.parse(value)
        except InvalidMessage:
            raise Unclear(_("%(value)s is no UUID.") % {"value": value}) from None
        (wanted.indexed if is_indexed else wanted.others).append(Q(**{name: id}))

    return add


def _worker(wanted: Wanted, value: str, now: datetime) -> None:
    """What this worker holds now: of what it has held nothing else is indexed."""
    _id("claimed_by", is_indexed=True)(wanted, value, now)
    wanted.indexed.append(Q(status=Status.CLAIMED))


def _subject(wanted: Wanted, value: str, now: datetime) -> None:
    """`shop.invoice`, or `shop.invoice/42`."""
    kind, _slash, id = value.partition("/")
    condition = Q(subject_type=kind, subject_id__isnull=False)
    wanted.indexed.append(condition & Q(subject_id=id) if id else condition)


_FIELDS: dict[str, Callable[[Wanted, str, datetime], None]] = {
    "event": _text("event", is_indexed=False),
    "queue": _text("queue", is_indexed=False),
    "key": _text("key", is_indexed=True),
    "status": _status,
    "due": _instant("due_at", is_indexed=True),
    "next": _instant("next_at", is_indexed=False),
    "created": _instant("created_at", is_indexed=False),
    "finished": _instant("finished_at", is_indexed=False),
    "priority": _number("priority"),
    "attempt": _number("attempt"),
    "id": _id("pk", is_indexed=True),
    "workflow": _id("workflow_id", is_indexed=True),
    "recurrence": _id("recurrence_id", is_indexed=True),
    "worker": _worker,
    "subject": _subject,
}
#: Every one there is.
NAMES = (*_FIELDS, *CONFIDENTIAL)


def _wholes(word: str) -> Iterator[Q]:
    """Each word that is no qualifier as a whole, which has an index."""
    try:
        yield Q(pk=ids.parse(word))
    except InvalidMessage:
        pass
    yield Q(key=word)


def _beginnings(words: list[str]) -> Iterator[Q]:
    """... and as the beginning of a key or an event, or an id."""
    for word in words:
        condition = Q(key__startswith=word) | Q(event__startswith=word)
        try:
            yield condition | Q(pk=ids.parse(word))
        except InvalidMessage:
            yield condition
