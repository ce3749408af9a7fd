"""A newcomer who does what the tutorial says, step by step, in two terminals, an editor and a browser."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import DOCS
from tests.newcomer.browser import Browser, rows
from tests.newcomer.page import Step, commands, pattern, steps
from tests.newcomer.project import put_into
from tests.newcomer.terminal import ANSWERS, NotAsWritten, Terminal
from tests.newcomer.transcript import Transcript
from tests.servers.base import free_port

PAGE = DOCS / "tutorial.md"
#: The headings of which one is chosen.
DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
#: These go on until they are stopped.
_GOES_ON = ("sked_worker", "runserver")


class Newcomer:
    """One person, one folder. Raises `NotAsWritten` at the first step that is not as the page says."""

    def __init__(self, folder: Path, database: str, environment: dict[str, str], transcript: Transcript) -> None:
        self._folder = folder
        self._heading = DATABASES[database]
        self._transcript = transcript
        self._terminals = {name: Terminal(folder, environment) for name in ("first", "second")}
        self._here = "first"
        self._port = free_port()
        self._seen_heading = ""

    @property
    def project(self) -> Path:
        return self._folder / "reminders"

    def follow(self) -> None:
        """The whole page."""
        for step in steps(PAGE):
            if step.heading in DATABASES.values() and step.heading != self._heading:
                continue
            self._read(step)
            self._look()
            self._mark(step.heading)
            self._do(step)
            self._look()

    def close(self) -> None:
        for terminal in self._terminals.values():
            terminal.close()

    def _mark(self, heading: str) -> None:
        if heading != self._seen_heading:
            self._seen_heading = heading
            self._transcript.heading(heading)

    def _read(self, step: Step) -> None:
        """What the words above a block ask for."""
        if step.printed:
            self._terminals["first"].wait_for(re.escape(step.printed))
        if step.control:
            name = step.terminal or "first"
            self._terminals[name].press(step.control)
        if step.address:
            self._browse(step)
        if step.terminal:
            self._here = step.terminal

    def _do(self, step: Step) -> None:
        if step.check:
            if not self._terminals["second"].holds(step.check):
                raise NotAsWritten(f"{step.check} does not hold")
        elif step.language == "console":
            for command, lines in commands(step.code):
                self._type(command, lines)
                self._look()
        elif step.language == "python" and (file := "config/settings.py" if step.is_settings else step.file):
            put_into(self.project / file, step.code, is_settings=step.is_settings)
            self._look()
            self._transcript.note(f"In an editor, `{file}`: as on the page.")
        elif step.language == "python":
            self._terminals["second"].type_python(step.code)

    def _type(self, command: str, lines: list[str]) -> None:
        terminal = self._terminals[self._here]
        if command.split()[-1] in _GOES_ON:
            # The port of the page may be somebody else's on this machine.
            addition = f" {self._port}" if command.endswith("runserver") else ""
            terminal.begin(command + addition, pattern(lines[-1]))
            return
        said = terminal.run(command)
        for line in lines:
            if not re.search(pattern(line), said):
                raise NotAsWritten(f"{command} should say {line!r}, and says:\n{said}")

    def _browse(self, step: Step) -> None:
        assert step.address
        address = step.address.replace(":8000", f":{self._port}")
        name, _mail, password = ANSWERS.values()
        browser = Browser()
        browser.log_in(address, name, password)
        seen = rows(browser.get(f"{address}django_sked/scheduledmessage/"))
        for status in step.statuses:
            if sum(status in " ".join(row).lower() for row in seen) != 1:
                raise NotAsWritten(f"The admin should show one message that is {status}: {seen}")
        listed = "\n".join(" | ".join(row) for row in seen)
        self._look()
        self._transcript.note(
            f"In a browser, at `{address}`, after the login as {name}, *Scheduled messages*:\n\n```text\n{listed}\n```"
        )

    def _look(self) -> None:
        for name, terminal in self._terminals.items():
            self._transcript.add(name, terminal.taken())
