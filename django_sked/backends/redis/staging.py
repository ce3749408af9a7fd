"""STEP schedule, of many messages that are alike: the server stores some while the next ones are built.

Nothing leads to what is staged until one script says of all of it that it is scheduled. If this process ends before
that, a prune deletes it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from redis import exceptions

from django_sked import garbage
from django_sked.backends.redis.connections import AWAY
from django_sked.backends.redis.encoding import micros, new_body
from django_sked.backends.redis.scripts import Scripts
from django_sked.exceptions import BackendFull, InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.payloads import dumps
from django_sked.sealing import Seal
from django_sked.series import NotPlain, Series

#: Messages that one script stages.
CHUNK = 250


def add_series(scripts: Scripts, series: Series, seal: Seal | None, news: str) -> list[ScheduledMessage] | None:
    """Store all or none of them; None where it is for `add` to find out what is in the way.

    Raises what `Series.chunks` does, BackendFull, and TimeoutError where the server does not answer.
    """
    call, kind = secrets.token_hex(8), _kind(series.first)
    try:
        messages = _staged(scripts, series, seal, call, kind)
    except (InvalidMessage, NotPlain, exceptions.ResponseError) as error:
        _discard(scripts, call)
        if isinstance(error, InvalidMessage):
            raise
        if isinstance(error, exceptions.OutOfMemoryError):
            raise BackendFull("The Redis server has no memory for another message.") from error
        return None
    except exceptions.TimeoutError:
        raise
    except AWAY:
        return None
    arguments = [len(messages), *kind, news]
    again = lambda: [call, 1, *arguments]  # noqa: E731
    return messages if scripts.call("enlist", call, 0, *arguments, again=again, is_asked_for=True) else None


def _kind(first: ScheduledMessage) -> list[Any]:
    expires_at = "" if first.expires_at is None else micros(first.expires_at)
    return [first.queue, first.event, first.priority, micros(first.due_at), expires_at]


def _staged(scripts: Scripts, series: Series, seal: Seal | None, call: str, kind: list[Any]) -> list[ScheduledMessage]:
    body = _bodies(series.first.__dict__, seal)
    messages: list[ScheduledMessage] = []
    finish: Callable[[], Any] | None = None
    try:
        with garbage.left_alone():
            for chunk in series.chunks(CHUNK):
                arguments: list[Any] = [call, *kind]
                for message in chunk:
                    values = message.__dict__
                    arguments += (f"{values['id'].int:032x}", body(values["payload"]))
                messages += chunk
                if finish is not None:
                    waited, finish = finish, None
                    waited()
                finish = scripts.begin("stage", *arguments)
    finally:
        if finish is not None:
            finish()
    return messages


def _bodies(values: Mapping[str, Any], seal: Seal | None) -> Callable[[Any], str]:
    """What makes the same of a payload as `new_body`: around it all of them have the same."""
    created = micros(values["created_at"])
    head = f'{{"created_at":{created}'
    tail = new_body({**values, "payload": None}, created)[len(head) :]
    before = f'{head},"payload":'

    def body(payload: Any) -> str:
        if payload is None:
            return head + tail
        return f"{before}{dumps(payload if seal is None else seal(payload))}{tail}"

    return body


def _discard(scripts: Scripts, call: str) -> None:
    try:
        scripts.call("discard", call, 0)
    except AWAY:
        pass  # a prune does it
