"""The doctor finds what is wrong, and says how to mend it."""

import os
from pathlib import Path

import pytest

from shopfloor import doctor
from shopfloor.doctor import Outcome
from shopfloor.errors import UserError
from shopfloor.paths import Material


def test_an_old_python() -> None:
    assert doctor.python((3, 11, 2)).outcome is Outcome.GOOD
    found = doctor.python((3, 9, 1))
    assert found.outcome is Outcome.BAD
    assert "Python 3.11 or newer" in found.mend


def test_root() -> None:
    assert doctor.user(1000).outcome is Outcome.GOOD
    assert doctor.user(0).outcome is Outcome.NOTE


def test_what_another_user_owns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "workspace").mkdir()
    foreign = tmp_path / "workspace" / "shop"
    foreign.mkdir()
    assert doctor.permissions(Material(tmp_path)).outcome is Outcome.GOOD
    monkeypatch.setattr(os, "access", lambda path, _: path != foreign)
    found = doctor.permissions(Material(tmp_path))
    assert found.outcome is Outcome.BAD
    assert str(foreign) in found.said
    assert "chown" in found.mend


def test_a_full_disk(tmp_path: Path) -> None:
    assert doctor.disk(Material(tmp_path), free=10**11).outcome is Outcome.GOOD
    found = doctor.disk(Material(tmp_path), free=10**8)
    assert (found.outcome, found.said) == (Outcome.BAD, "0.1 GB free")


@pytest.mark.parametrize(
    ("root", "release", "outcome"),
    [
        ("/mnt/c/Users/a/shopfloor", "5.15.90.1-microsoft-standard-WSL2", Outcome.BAD),
        ("/home/a/shopfloor", "5.15.90.1-microsoft-standard-WSL2", Outcome.GOOD),
        ("/mnt/data/shopfloor", "5.15.90.1-microsoft-standard-WSL2", Outcome.GOOD),
        ("/mnt/c/shopfloor", "6.1.0-generic", Outcome.GOOD),
    ],
)
def test_a_windows_disk_under_wsl(root: str, release: str, outcome: Outcome) -> None:
    assert doctor.mount(Material(Path(root)), release).outcome is outcome


def test_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    assert doctor.ports().outcome is Outcome.GOOD
    monkeypatch.setattr(doctor.socket, "create_connection", refuse)
    found = doctor.ports()
    assert found.outcome is Outcome.BAD
    assert "Network is unreachable" in found.said


def test_watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.watching(Material(tmp_path)).outcome is Outcome.GOOD
    monkeypatch.setattr("shopfloor.saves.events_arrive", lambda _: False)
    assert "does not tell" in doctor.watching(Material(tmp_path)).said
    monkeypatch.setenv("SHOPFLOOR_POLLING", "1")
    found = doctor.watching(Material(tmp_path))
    assert (found.outcome, found.mend) == (Outcome.NOTE, "To have events again: unset SHOPFLOOR_POLLING")


def test_services_that_do_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise UserError("PostgreSQL cannot be reached.")

    monkeypatch.setattr("shopfloor.services.running_services", fail)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere/")
    monkeypatch.delenv("REDIS_URL", raising=False)
    found = doctor.services()
    assert found.outcome is Outcome.BAD
    assert "PostgreSQL cannot be reached." in found.said
    assert found.mend.endswith("unset DATABASE_URL")


def test_the_browser_is_optional() -> None:
    assert doctor.browser(lambda _: None).outcome is Outcome.NOTE
    assert doctor.browser(lambda name: f"/usr/bin/{name}").said == "/usr/bin/chromium"


def test_its_exit_code_tells(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = doctor.Finding("A", Outcome.GOOD, "well"), doctor.Finding("B", Outcome.BAD, "ill", "Mend it.")
    monkeypatch.setattr(doctor, "examine", lambda: [good])
    assert doctor.run() == 0
    monkeypatch.setattr(doctor, "examine", lambda: [good, bad])
    assert doctor.run() == 1
    assert "B: bad. ill\n    Mend it.\n1 thing to mend.\n" in capsys.readouterr().out
