"""The incident drill: what each fault is said to show, it shows, and no other does."""

import re
import sys
import time
from pathlib import Path

import pexpect
import pytest

from shopfloor.errors import UserError
from shopfloor.incident import drill
from shopfloor.incident.faults import FAULTS, Fault
from shopfloor.incident.scene import let_pass, playing

PATIENCE = 30.0  # seconds


def say_nothing(_: str) -> None:
    pass


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_shows_as_it_is_said_to(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "HEALTHY_SECONDS", 2)
    monkeypatch.setattr(drill, "SICK_SECONDS", 5)
    with playing(fault.files, fault.settings, fault.exporters, say_nothing) as scene:
        healthy = drill._begin(scene, fault, say_nothing)
        until = time.monotonic() + PATIENCE  # what one request in ten shows may take some dozens of them to be seen
        while not fault.shows(evidence := scene.evidence(healthy=healthy)) and time.monotonic() < until:
            let_pass(1)
        seen = [other.name for other in FAULTS if other.shows(evidence)]
    assert seen == [fault.name], drill.metrics_table(evidence)


def test_there_are_several_and_the_number_says_nothing() -> None:
    drawn = [drill.fault_of(number) for number in range(1, len(FAULTS) + 1)]
    assert len(FAULTS) >= 6
    assert {fault.name for fault in drawn} == {fault.name for fault in FAULTS}
    assert drawn != list(FAULTS)
    for number in (0, len(FAULTS) + 1):
        with pytest.raises(UserError, match="There are incidents 1 to"):
            drill.fault_of(number)


@pytest.mark.slow
def test_a_drill_at_the_terminal() -> None:
    number = next(number for number in range(1, 9) if drill.fault_of(number).name == "n_plus_one")
    cause = 1 + [fault.name for fault in FAULTS].index("n_plus_one")
    wrong = 1 + cause % len(FAULTS)
    program = Path(sys.executable).with_name("shopfloor")
    with pexpect.spawn(str(program), ["incident", str(number)], encoding="utf-8", timeout=90, echo=False) as terminal:
        terminal.setwinsize(24, 80)
        for command, answer in (
            ("metrics", r"connections to the database in use"),
            ("traces get /v1/orders", r"1 +[\d,]+ ms +\d+ spans  GET /v1/orders\s"),
            ("trace 1", r"\d+ × SELECT"),
            ("trace 99", "List some"),
            ("nonsense", "the latest events of the log"),
            ("logs", "events: "),
            ("causes", re.escape(FAULTS[-1].cause)),
            (f"answer {wrong}", "No. What would you have to see"),
            (f"answer {cause}", "Yes, at the second attempt."),
        ):
            terminal.expect("incident> ")
            terminal.sendline(command)
            terminal.expect(answer)
        terminal.expect(pexpect.EOF)
    assert terminal.exitstatus == 0
