"""A management command for each message, in the worker's own process."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from django.core.management import call_command, get_commands

from django_sked.arguments import shown
from django_sked.contrib.sinks import options, placeholders
from django_sked.contrib.sinks.exceptions import InvalidSink
from django_sked.contrib.sinks.options import option
from django_sked.models import ScheduledMessage


def _command(value: object) -> str:
    if not isinstance(value, str) or value not in get_commands():
        raise InvalidSink(f"must be the name of a management command of this project, not {shown(value)}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSink:
    """Calls the management command `command` with `arguments`. What it raises is a failed attempt."""

    command: str = option(_command)
    arguments: tuple[str, ...] = option(placeholders.arguments, default=())
    #: Characters of what it writes.
    max_output: int = option(options.whole(0, 1 << 20), default=4096)

    def deliver(self, message: ScheduledMessage, /) -> dict[str, Any]:
        """Run it to its end; returns {"output": "..."}, with "truncated" if there was more."""
        output = _Output(self.max_output)
        arguments = placeholders.fill(self.arguments, message)
        call_command(self.command, *arguments, stdout=output, stderr=output, no_color=True)
        result: dict[str, Any] = {"output": output.text.replace("\0", "�")}
        return result | {"truncated": True} if output.is_cut else result


class _Output(io.TextIOBase):
    """Keeps the beginning of what is written."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.text = ""
        self.is_cut = False

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        left = self._most - len(self.text)
        self.text += text[:left]
        self.is_cut = self.is_cut or len(text) > left
        return len(text)
