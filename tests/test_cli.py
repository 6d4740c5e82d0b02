"""The command line, used wrongly."""

import subprocess
import sys

import pytest

from shopfloor import cli
from shopfloor.errors import UserError


def shopfloor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "shopfloor", *arguments], capture_output=True, text=True, check=False)


def test_help_names_each_command_with_an_example() -> None:
    assert shopfloor("--help").returncode == 0
    for command in ("start", "book", "notebooks"):
        assert command in shopfloor("--help").stdout
        assert f"Example: shopfloor {command}" in shopfloor(command, "--help").stdout


def test_an_unknown_command_is_said_in_words() -> None:
    done = shopfloor("strat")
    assert done.returncode == 2
    assert "No such command 'strat'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_chapter_gets_the_nearest_one() -> None:
    done = shopfloor("notebooks", "data/indexng")
    assert done.returncode == 1
    assert "No chapter is called 'data/indexng'. Did you mean data/indexing?" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_user_can_mend_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise UserError("The disk is full. Free some space.")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "Error: The disk is full. Free some space.\n"
