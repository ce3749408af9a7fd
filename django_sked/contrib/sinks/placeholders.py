"""Arguments of a command with places for values of a message: a place is a whole argument, or it is refused.

["--order", "{payload.order}", "{metadata.tenant}", "{id}"]
"""

from __future__ import annotations

import re
from typing import Any

from django_sked.arguments import shown
from django_sked.contrib.sinks import envelope, options
from django_sked.contrib.sinks.exceptions import InvalidSink
from django_sked.exceptions import Bury
from django_sked.models import ScheduledMessage

_PLACE = re.compile(r"\{(id|event|attempt|due_at|queue|key|idempotency_key|payload|metadata)((?:\.[\w-]+)*)\}")
LONGEST_ARGUMENT = 65_536


def arguments(value: object) -> tuple[str, ...]:
    """Check a list of arguments as the settings have it."""
    if value == [] or value == ():
        return ()
    checked = options.texts(value)
    for each in checked:
        if ("{" in each or "}" in each) and not _PLACE.fullmatch(each):
            raise InvalidSink(f"may have places such as '{{payload.order}}' as whole arguments only, not {shown(each)}")
    return checked


def fill(arguments: tuple[str, ...], message: ScheduledMessage) -> list[str]:
    """The arguments for this message. Raises Bury where it has no value for one, or one that would be an option."""
    values = envelope.of(message)
    filled: list[str] = []
    may_begin_with_a_dash = False
    for each in arguments:
        found = _PLACE.fullmatch(each)
        text = each if found is None else _value(values, found[1], found[2])
        if found is not None and text.startswith("-") and not may_begin_with_a_dash:
            raise Bury(f"the value of {each} begins with '-', and would be taken for an option")
        may_begin_with_a_dash = may_begin_with_a_dash or (found is None and each == "--")
        filled.append(text)
    return filled


def _value(values: dict[str, Any], name: str, path: str) -> str:
    value, place = values[name], f"{{{name}{path}}}"
    for step in path.split(".")[1:]:
        if not isinstance(value, dict) or step not in value:
            raise Bury(f"the message has no {place}")
        value = value[step]
    if value is None:
        raise Bury(f"the message has no {place}")
    text = value if isinstance(value, str) else envelope.text(value)
    if "\0" in text or len(text.encode()) > LONGEST_ARGUMENT:
        raise Bury(f"the value of {place} cannot be an argument: it is too long, or has a NUL character")
    return text
