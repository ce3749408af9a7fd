"""The tables of the commands say what their parsers say."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management.base import BaseCommand

from django_sked.management import changing
from django_sked.management.commands import (
    sked_cancel,
    sked_check,
    sked_hold,
    sked_list,
    sked_move,
    sked_prune,
    sked_redrive,
    sked_release,
    sked_reschedule,
    sked_show,
    sked_status,
    sked_worker,
)
from django_sked.worker import EXIT_ABANDONED, EXIT_STUCK
from tests.docs.pages import names, table

COMMANDS = "reference/commands.md"
_CHANGES = (sked_cancel, sked_hold, sked_redrive, sked_release, sked_reschedule)
_COMMANDS = (sked_worker, sked_list, sked_move, sked_check, sked_prune, sked_show, sked_status, *_CHANGES)
each_command = pytest.mark.parametrize("command", _COMMANDS, ids=lambda command: command.__name__.rpartition(".")[2])


def _written_options(command: Any) -> list[str]:
    """With its metavar; those that change messages have a table that they share."""
    name = command.__name__.rpartition(".")[2]
    shared = names(COMMANDS, "Changing messages", "option") if command in _CHANGES else []
    return shared + ([] if command is sked_release else names(COMMANDS, name, "option"))


@each_command
def test_the_options_of_the_commands(command: Any) -> None:
    name = command.__name__.rpartition(".")[2]
    ours = command.Command().create_parser("manage.py", name)
    djangos = BaseCommand().create_parser("manage.py", "x")
    true = {option for action in ours._actions for option in action.option_strings}
    true -= {option for action in djangos._actions for option in action.option_strings}
    assert {code.split()[0] for code in _written_options(command)} == true


@each_command
def test_the_metavars_of_the_commands(command: Any) -> None:
    name = command.__name__.rpartition(".")[2]
    parser = command.Command().create_parser("manage.py", name)
    metavars = {action.option_strings[-1]: action.metavar for action in parser._actions if action.option_strings}
    for code in _written_options(command):
        option, _, metavar = code.partition(" ")
        assert metavar == (metavars[option] or ""), option


def test_the_exit_codes() -> None:
    assert {int(row["code"]) for row in table(COMMANDS, "Exit codes")} == {0, 1, 2, EXIT_ABANDONED, EXIT_STUCK}
    true = {value for name, value in vars(changing).items() if name.startswith("EXIT_")}
    assert {int(row["code"]) for row in table(COMMANDS, "Exit codes of the changes")} == true | {2}
