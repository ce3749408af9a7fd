"""What is no Python is at least what it claims to be: commands have these options, units and manifests can be read."""

from __future__ import annotations

import argparse
import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from django.core.management.base import CommandError

from tests.docs.pages import DOCS, PAGES, ROOT, Block, blocks

ALL = [block for page in PAGES for block in blocks(page)]
KNOWN = {"", "python", "console", "sh", "text", "ini", "yaml", "{literalinclude} ../monitoring/sked-alerts.yml"}
#: Written as `... | manage.py sked_x ...` or with placeholders of the page.
COMMAND = re.compile(r"(?:python |)(?:\S*/)?manage\.py (sked_\w+)([^|&\n`]*)")


def of(*languages: str) -> list[Block]:
    return [block for block in ALL if block.language in languages]


def place(block: Block) -> str:
    return block.place


def joined(code: str) -> list[str]:
    """The lines, those that go on put together."""
    return re.sub(r"\\\n\s*", " ", code).splitlines()


def shell_lines(block: Block) -> list[str]:
    lines = joined(block.code)
    return [line.removeprefix("$ ") for line in lines if block.language == "sh" or line.startswith("$ ")]


def our_commands(text: str) -> list[tuple[str, list[str]]]:
    found = []
    for name, rest in COMMAND.findall(text):
        found.append((name, shlex.split(rest, comments=True)))
    return found


COMMANDS = [
    (block.place, name, options)
    for block in of("console", "sh", "yaml", "ini", "text")
    for line in (shell_lines(block) if block.language in {"console", "sh"} else joined(block.code))
    for name, options in our_commands(line)
]


@pytest.mark.parametrize("block", [block for block in ALL if not block.check], ids=place)
def test_a_block_has_a_language_that_is_looked_at(block: Block) -> None:
    assert block.language in KNOWN or block.language.startswith("{"), block.language


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize(("where", "name", "options"), COMMANDS, ids=lambda value: str(value)[:60])
def test_a_command_takes_the_options_of_the_page(where: str, name: str, options: list[str]) -> None:
    assert get_commands()[name] == "django_sked", where
    parser = load_command_class("django_sked", name).create_parser("manage.py", name)
    try:
        parsed: argparse.Namespace = parser.parse_args(options)
    except (CommandError, SystemExit) as error:
        pytest.fail(f"{where}: {name} {options}: {error}")
    assert parsed


@pytest.mark.parametrize("block", of("console", "sh"), ids=place)
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_shell_can_read_it(block: Block) -> None:
    text = "\n".join(shell_lines(block))
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", of("yaml"), ids=place)
def test_yaml_can_be_read(block: Block) -> None:
    assert isinstance(yaml.safe_load(block.code), dict)


def test_the_alert_rules_can_be_read() -> None:
    rules = yaml.safe_load((DOCS / "monitoring" / "sked-alerts.yml").read_text(encoding="utf-8"))
    assert all({"alert", "expr", "labels", "annotations"} <= set(rule) for rule in rules["groups"][0]["rules"])


def yaml_with(key: str) -> Any:
    (found,) = [text for block in of("yaml") if key in (text := yaml.safe_load(block.code))]
    return found


def test_what_compose_waits_for_is_there() -> None:
    services = yaml_with("services")["services"]

    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        assert "image" in service
    assert isinstance(services["worker"]["command"], list)
    assert services["worker"]["init"] is True
    assert "stop_grace_period" in services["worker"]


def test_kubernetes_gives_a_worker_time_to_end_and_memory_above_its_own_limit() -> None:
    spec = yaml_with("spec")["spec"]
    (container,) = spec["containers"]

    most = int(container["command"][container["command"].index("--max-rss") + 1])

    assert spec["terminationGracePeriodSeconds"] > 30
    assert int(container["resources"]["limits"]["memory"].removesuffix("Mi")) > most


def unit(section: str) -> configparser.ConfigParser:
    for block in of("ini"):
        parser = configparser.ConfigParser(interpolation=None, strict=True, inline_comment_prefixes=None)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(block.code)
        if parser.has_section(section):
            return parser
    raise AssertionError(f"No block has a section {section}")


def test_the_unit_of_systemd_restarts_the_worker_but_not_after_a_wrong_command_line() -> None:
    service = unit("Service")["Service"]

    assert service["Restart"] == "always"
    assert service["RestartPreventExitStatus"] == "2"
    assert int(service["TimeoutStopSec"]) > 90


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_can_read_its_unit(tmp_path: Path) -> None:
    (block,) = [block for block in of("ini") if "[Unit]" in block.code]
    # The program of the page is not here.
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", block.code, flags=re.M)
    text = re.sub(r"^(WorkingDirectory|User)=.*$", "", text, flags=re.M)
    path = tmp_path / "sked.service"
    path.write_text(text, encoding="utf-8")

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60, check=False
    )

    ours = [line for line in done.stderr.splitlines() if "sked.service" in line]
    assert not ours


def test_supervisord_ends_children_with_their_parent() -> None:
    program = unit("program:sked")["program:sked"]

    assert program["stopsignal"] == "TERM"
    assert program["killasgroup"] == "true"


def test_extras_that_are_installed_by_the_pages_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

    for page in PAGES:
        for wanted in re.findall(r"django-sked\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            assert set(wanted.split(",")) <= set(extras), f"{page.name}: {wanted}"
