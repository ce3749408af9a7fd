"""A newcomer's first minutes: `python -m tests.newcomer --database sqlite`.

Builds the wheel, and in an empty folder outside of this tree does what a page of the documentation says: the commands
and the code are those of the page. Ends with 1 at the first step that is not as it is written there.

--page tutorial  docs/tutorial.md, in two terminals, an editor and a browser; the default
--page readme    what README.md shows, and nothing else
--transcripts    the tutorial on each database, written down as docs/newcomer-*.md
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.docs.pages import DOCS
from tests.newcomer import readme
from tests.newcomer.interpreters import OLDEST, newest_for
from tests.newcomer.terminal import NotAsWritten
from tests.newcomer.transcript import Transcript
from tests.newcomer.walk import DATABASES, Newcomer
from tests.newcomer.wheel import build
from tests.servers.postgres import PostgreSQL

_VERSIONS = (
    "import django, platform, sqlite3; print(platform.python_version(), django.__version__, sqlite3.sqlite_version)"
)

_LEFT_OUT = ("DJANGO", "PYTHON", "SKED", "VIRTUAL_ENV")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.newcomer", description=__doc__.partition("\n")[0])
    parser.add_argument("--page", choices=["tutorial", "readme"], default="tutorial")
    parser.add_argument("--database", choices=sorted(DATABASES), default="sqlite")
    parser.add_argument("--django", choices=sorted(OLDEST), help="the newest release of this version; without, of all")
    parser.add_argument("--python", help="an interpreter; without, the newest on this machine that fits")
    parser.add_argument("--transcript", type=Path, help="where to write what was typed and said, as a page")
    parser.add_argument(
        "--transcripts", action="store_true", help="the tutorial on each database, and both pages of docs/"
    )
    return parser.parse_args()


def environment(folder: Path, python: str, django: str | None) -> dict[str, str]:
    """`python3` is this interpreter, and pip finds our wheel under its name."""
    tools = folder / "tools"
    tools.mkdir()
    # A link would not do: an interpreter looks for its library beside the name it was called by.
    (tools / "python3").write_text(f'#!/bin/sh\nexec {shlex.quote(python)} "$@"\n', encoding="utf-8")
    (tools / "python3").chmod(0o755)
    constraint = folder / "constraint.txt"
    constraint.write_text(f"Django~={django}.0\n" if django else "", encoding="utf-8")
    build(folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    return {
        **kept,
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONSTRAINT": str(constraint),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
        "PIP_ROOT_USER_ACTION": "ignore",
        "DJANGO_COLORS": "nocolor",
        "LC_ALL": "C.UTF-8",
    }


@contextlib.contextmanager
def server_of(database: str) -> Iterator[tuple[dict[str, str], str]]:
    """A server for this newcomer alone: variables that say where it is, and its name with its version."""
    if database == "sqlite":
        yield {}, ""
        return
    with PostgreSQL() as server:
        with server.connect() as connection:
            version = connection.execute("SHOW server_version").fetchone()[0].split()[0]
        entry = server.entry
        variables = {"PGHOST": entry["HOST"], "PGPORT": entry["PORT"], "PGUSER": entry["USER"]}
        yield {**variables, "PATH": f"{server.binaries}:{os.defpath}"}, f"PostgreSQL {version}"


def follow_tutorial(options: argparse.Namespace, folder: Path, variables: dict[str, str], server: str) -> None:
    """Do all that is there, and write the transcript where one is wanted."""
    began = time.monotonic()
    home = folder / "home"
    home.mkdir()
    transcript = Transcript({str(home): "~", str(folder): "~"})
    newcomer = Newcomer(home, options.database, variables, transcript)
    try:
        newcomer.follow()
    finally:
        newcomer.close()
    seconds = time.monotonic() - began
    python = newcomer.project / ".venv" / "bin" / "python"
    done = subprocess.run([str(python), "-c", _VERSIONS], capture_output=True, text=True, check=True)
    of_python, of_django, of_sqlite = done.stdout.split()
    versions = f"Python {of_python}, Django {of_django}, {server or f'SQLite {of_sqlite}'}"
    print(f"All of it took {seconds:.0f} s: {versions}.")
    if options.transcript:
        text = transcript.page(
            database=DATABASES[options.database], alias=options.database, versions=versions, seconds=seconds
        )
        options.transcript.write_text(text, encoding="utf-8")


def main() -> None:
    options = arguments()
    if not options.transcripts:
        follow(options)
        return
    for database in sorted(DATABASES):
        page = DOCS / f"newcomer-{database}.md"
        follow(argparse.Namespace(**vars(options) | {"page": "tutorial", "database": database, "transcript": page}))


def follow(options: argparse.Namespace) -> None:
    """Do what the page says, in an empty folder that is gone afterwards."""
    python = options.python or newest_for(options.django)
    with tempfile.TemporaryDirectory(prefix="sked-newcomer-") as name, server_of(options.database) as (where, server):
        folder = Path(name)
        variables = environment(folder, python, options.django)
        variables |= where | {"PATH": f"{folder}/tools:{where.get('PATH', os.defpath)}"}
        try:
            if options.page == "readme":
                readme.follow(folder, variables, options.database)
            else:
                follow_tutorial(options, folder, variables, server)
        except NotAsWritten as error:
            sys.exit(f"Not as the page says: {error}")


if __name__ == "__main__":
    main()
