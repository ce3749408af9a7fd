"""The Lua scripts, and how they are called: by their hash, or by their text when the server does not know them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from redis import exceptions

from django_sked import clock
from django_sked.backends.redis.connections import Connections
from django_sked.backends.redis.encoding import micros
from django_sked.backends.redis.keys import Keys
from django_sked.dependencies import Condition, holds
from django_sked.states import FINISHED, PENDING, STEPS, Status

_DIRECTORY = Path(__file__).parent / "lua"
_PARTS = re.compile(r"^-- with (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    text: bytes
    sha: str


def states() -> str:
    """The groups of statuses of `states.py`, in Lua: scripts know no others."""
    return f"local PENDING = {_set(PENDING)}\nlocal FINISHED = {_set(FINISHED)}"


def steps() -> str:
    """The steps of `states.py`, in Lua. Every call makes these tables anew, so only a script that asks has them."""
    rows = (f"    {name} = {{from = {_set(start)}, to = {_set(end)}}}," for name, (start, end) in STEPS.items())
    return "\n".join(["local STEPS = {", *rows, "}"])


#: The letter of each condition on the server.
LETTERS = {Condition.SUCCESS: "s", Condition.FAILURE: "f", Condition.FINISH: "x"}


def conditions() -> str:
    """Which ends meet the conditions of `dependencies.py`, in Lua."""
    ends = {letter: {end for end in FINISHED if holds(condition, end)} for condition, letter in LETTERS.items()}
    rows = (f"    {letter} = {_set(frozenset(met))}," for letter, met in ends.items())
    return "\n".join(["local CONDITIONS = {", *rows, "}"])


def _set(statuses: frozenset[Status]) -> str:
    return "{" + ", ".join(f"{status.value} = true" for status in sorted(statuses)) + "}"


@cache
def script(name: str) -> Script:
    """A script of `lua/`: its first line, the prelude, the parts that it asks for, and the rest of it."""
    flags, _, body = (_DIRECTORY / f"{name}.lua").read_text(encoding="utf-8").partition("\n")
    parts = [(_DIRECTORY / "prelude.lua").read_text(encoding="utf-8")]
    if asked := _PARTS.search(body):
        parts += map(_part, asked[1].split())
    text = "\n".join([flags, *parts, body]).encode()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


def _part(name: str) -> str:
    if (made := _MADE.get(name)) is not None:
        return made()
    return (_DIRECTORY / f"{name}.lua").read_text(encoding="utf-8")


#: Parts that are made of what Python knows.
_MADE: dict[str, Callable[[], str]] = {"states": states, "steps": steps, "conditions": conditions}


class Scripts:
    """Calls scripts, each on the connection of the calling thread."""

    def __init__(self, connections: Connections, keys: Keys, replicas: int = 0, replica_timeout: float = 1.0) -> None:
        self._connections = connections
        self._keys = keys.declared
        self._prefix = keys.prefix
        self._replicas = replicas
        self._replica_timeout = round(replica_timeout * 1000)

    def call(
        self,
        name: str,
        *arguments: Any,
        now: Any = "",
        again: Callable[[], Sequence[Any]] | None = None,
        is_asked_for: bool = False,
    ) -> Any:
        """Run a script once; and once more when the connection broke, which may have been after it was run.

        Every script can bear that. One that has to know takes what `again` returns for its arguments then. What people
        have asked for, and what was written, waits for replicas, where the options say so.
        """
        now, is_again = _time(now), False
        try:
            answer = self._run(script(name), now, arguments)
        except exceptions.AuthenticationError:
            raise
        except exceptions.ConnectionError:
            is_again = True
            answer = self._run(script(name), now, arguments if again is None else again())
        if is_asked_for and self._replicas and _has_written(answer):
            self._wait(is_again)
        return answer

    def begin(self, name: str, *arguments: Any) -> Callable[[], Any]:
        """Send a call; returns what waits for its answer, to be called before this thread calls anything else."""
        asked = script(name)
        command = (2, *self._keys, self._prefix, _time(""), *arguments)
        self._connections.send("EVALSHA", asked.sha, *command)

        def finish() -> Any:
            try:
                return self._connections.receive()
            except exceptions.NoScriptError:
                return self._connections.execute("EVAL", asked.text, *command)

        return finish

    def _run(self, script: Script, now: Any, arguments: Sequence[Any]) -> Any:
        execute = self._connections.execute
        try:
            return execute("EVALSHA", script.sha, 2, *self._keys, self._prefix, now, *arguments)
        except exceptions.NoScriptError:
            return execute("EVAL", script.text, 2, *self._keys, self._prefix, now, *arguments)

    def _wait(self, is_again: bool) -> None:
        """WAIT speaks of what its own connection has written."""
        if is_again:
            # Perhaps by the lost one, and so nothing by this one: what is behind it on the way to the replicas, is.
            self._connections.execute("SET", f"{self._prefix}asked", 1, "PX", 1000)
        reached = self._connections.execute("WAIT", self._replicas, self._replica_timeout)
        if reached < self._replicas:
            raise exceptions.TimeoutError(
                f"The write was made, but only {reached} of {self._replicas} replicas had it in time."
            )


def _has_written(answer: Any) -> bool:
    """By what the scripts of what people ask for return: 1, {'stored', ...}, or of each write 'written'."""
    return answer == 1 or (isinstance(answer, list) and (answer[:1] == ["stored"] or "written" in answer))


def _time(now: Any) -> Any:
    """A test that pretends a time means the server's clock, too."""
    return now or ("" if (pretended := clock.pretended()) is None else micros(pretended))
