"""The commands as declared: what is listed, suggested and refused."""

import pytest
from typer.testing import CliRunner, Result

from shopfloor.cli import app
from shopfloor.commands import declared

COMMANDS = (
    "start",
    "watch",
    "check",
    "hint",
    "diff",
    "solution",
    "reset",
    "status",
    "load",
    "incident",
    "update",
    "book",
    "notebooks",
    "services",
    "verify",
    "doctor",
)


@pytest.fixture(autouse=True)
def _labs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared, "addresses", lambda: ["data/indexing", "data/n_plus_one"])


def run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(app, arguments, prog_name="shopfloor")


def test_the_commands_are_listed_as_a_learner_meets_them() -> None:
    listed = run("--help").output.split("Commands:")[1]
    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == list(COMMANDS)
    assert "..." not in listed, "a summary is cut short"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_an_example_in_80_columns(command: str) -> None:
    text = run(command, "--help").output
    assert f"Example: shopfloor {command}" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", ["watch", "check", "hint", "diff", "solution", "reset", "load", "verify"])
def test_a_wrong_address_gets_the_nearest(command: str) -> None:
    done = run(command, "data/n_plus_on")
    assert done.exit_code == 2
    assert "Did you mean data/n_plus_one?" in done.output


def test_the_last_part_alone_gets_the_nearest_too() -> None:
    assert "Did you mean data/indexing?" in run("hint", "indexng").output


def test_an_address_like_none_gets_them_all() -> None:
    assert "There are: data/indexing, data/n_plus_one." in run("hint", "nothing/of/the/kind").output


def test_the_end_of_an_address_will_do() -> None:
    assert declared._known("n_plus_one") == "data/n_plus_one"


def test_a_wrong_command_gets_the_nearest() -> None:
    done = run("chekc")
    assert done.exit_code == 2
    assert "Did you mean 'check'?" in done.output


def test_addresses_complete() -> None:
    assert declared._complete("data/n") == ["data/n_plus_one"]
    assert declared._complete("") == ["data/indexing", "data/n_plus_one"]
