"""A terminal as a person has it: a shell in which one command follows the other, and some go on."""

from __future__ import annotations

import re
from pathlib import Path

import pexpect

#: Nothing else says this, so that we know when a command has ended.
_PROMPT = "@@$ "
_PYTHON = (">>> ", "... ")
#: What commands ask, and what the newcomer answers.
ANSWERS = {
    "Username [^\n]*: ": "ada",
    "Email address: ": "ada@example.com",
    r"Password(?: \(again\))?: ": "a-Long-enough-1",
}
#: For a command that ends, such as an installation; for a line of one that goes on.
PATIENCE, SHORT_PATIENCE = 300, 60


class NotAsWritten(Exception):
    """A step of the page did not do what the page says."""


class Terminal:
    """A shell in a folder. `taken()` is what was on the screen since the last call."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._read = ""
        self._all = ""
        self._child: pexpect.spawn[str] = pexpect.spawn(
            "bash",
            ["--noprofile", "--norc", "--noediting"],
            cwd=str(folder),
            env={**environment, "PS1": _PROMPT, "TERM": "dumb"},
            dimensions=(50, 300),
            encoding="utf-8",
            timeout=PATIENCE,
        )
        self._await([re.escape(_PROMPT)])

    def run(self, command: str) -> str:
        """Type a command and wait for its end, or for Python's prompt; answers what it asks. Returns what it said."""
        self._child.sendline(command)
        start = len(self._all)
        patterns = [re.escape(_PROMPT), re.escape(_PYTHON[0]), *ANSWERS]
        while (found := self._await(patterns)) >= 2:
            self._child.sendline(list(ANSWERS.values())[found - 2])
        said = self._all[start:]
        if found == 0 and (status := self._ask("echo $?")) != "0":
            raise NotAsWritten(f"{command} ended with {status}:\n{said}")
        return said

    def begin(self, command: str, says: str) -> None:
        """Type a command that goes on, and wait for a line with this regular expression."""
        self._child.sendline(command)
        self.wait_for(says)

    def wait_for(self, pattern: str) -> None:
        """Wait for a line with this regular expression."""
        self._await([pattern + r"[^\n]*\n"], SHORT_PATIENCE)

    def press(self, key: str) -> None:
        """Ctrl and this key: whatever runs has to end in order."""
        self._child.sendcontrol(key)
        self._await([re.escape(_PROMPT)])
        if (status := self._ask("echo $?")) != "0":
            raise NotAsWritten(f"After Ctrl-{key.upper()} the status was {status}:\n{self._read}")

    def type_python(self, code: str) -> str:
        """Type a block at Python's prompt, and one empty line, which ends what is indented."""
        start = len(self._all)
        lines = code.splitlines()
        for number, line in enumerate(lines):
            self._child.sendline(line)
            self._await([re.escape(prompt) for prompt in _PYTHON])
            begins = line[:1] not in {" ", ""} and not line.startswith((")", "}", "]", "except", "else", "finally"))
            if begins and number and self._all.endswith(_PYTHON[1]) and lines[number - 1].startswith(" "):
                raise NotAsWritten(f"Python still waits for the end of what came before {line!r}")
        if self._all.endswith(_PYTHON[1]):
            self._child.sendline("")
            self._await([re.escape(_PYTHON[0])])
        said = self._all[start:]
        if "Traceback (most recent call last)" in said or "SyntaxError" in said:
            raise NotAsWritten(said)
        return said

    def holds(self, expression: str) -> bool:
        """What this expression is at Python's prompt; not part of what is taken."""
        before = self._read
        said = self.type_python(f"print('holds', bool({expression}))")
        self._read = before
        return "holds True" in said

    def taken(self) -> str:
        """The screen since the last call, without its last prompt."""
        text, self._read = self._read, ""
        for prompt in (_PROMPT, *_PYTHON):
            if text.endswith(prompt):
                last = text.rfind("\n") + 1
                self._read = text[last:]
                text = text[:last]
                break
        return text.replace(_PROMPT, "$ ")

    def close(self) -> None:
        self._child.close(force=True)

    def _ask(self, command: str) -> str:
        before = self._read
        self._child.sendline(command)
        start = len(self._all)
        self._await([re.escape(_PROMPT)])
        self._read = before
        return self._all[start:].splitlines()[1].strip()

    def _await(self, patterns: list[str], seconds: int = PATIENCE) -> int:
        try:
            found = self._child.expect([*patterns], timeout=seconds)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            raise NotAsWritten(f"{type(error).__name__} before one of {patterns}:\n{self._child.before}") from None
        text = f"{self._child.before}{self._child.after}".replace("\r", "")
        self._read += text
        self._all += text
        return found
