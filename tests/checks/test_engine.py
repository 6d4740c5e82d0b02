"""The engine: what it says, what it leaves, and what it does when its own parts end."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from shopfloor.checks import engine as engine_module
from shopfloor.checks.engine import Engine, Verdict
from shopfloor.errors import UserError
from shopfloor.services import Services
from shopfloor.services.process import ChildError
from tests.checks.conftest import Check, assert_ends, assert_gone
from tests.checks.tiny import EMPTY_PAGE, ORDERS, PROCESS_CHECKS, TinyLab, indexes_lab, orders_lab, tiny_lab
from tests.helpers import wait_until


def test_the_solution_passes(lab: TinyLab, engine: Engine) -> None:
    verdict = engine.check(lab, lab.solution)
    assert (verdict.passed, verdict.checks, verdict.satisfied) == (True, 3, 3)
    assert verdict == Verdict(lab.address, passed=True, checks=3, satisfied=3, seconds=verdict.seconds)
    assert_gone(engine)


def test_the_starter_fails_and_no_one_knows_why(lab: TinyLab, engine: Engine) -> None:
    verdict = engine.check(lab, lab.starter)
    assert not verdict.passed
    assert (verdict.checks, verdict.satisfied) == (3, 2)
    assert verdict.failed == "A page of three orders takes at most three statements."
    assert verdict.finding
    assert verdict.finding.did == "GET /v1/orders?limit=3"
    assert (verdict.finding.mistake, verdict.diagnosis, verdict.story) == ("", "", "")


def test_a_mistake_gets_its_diagnosis(lab: TinyLab, check: Check) -> None:
    verdict = check(lab, EMPTY_PAGE.replace('"""The page', '"""My own words'))
    assert verdict.diagnosis.startswith("The page is empty.\n\nIn production")
    assert verdict.finding
    assert verdict.finding.mistake == "an_empty_page"


def test_a_diagnosis_that_nobody_wrote(lab: TinyLab, check: Check) -> None:
    lab.mistakes["an_empty_page"].unlink()
    verdict = check(lab, EMPTY_PAGE)
    assert not verdict.passed
    assert verdict.diagnosis == ""


def test_declared_indexes(indexes: TinyLab, engine: Engine) -> None:
    assert engine.check(indexes, indexes.solution).passed
    assert engine.check(indexes, indexes.starter).finding
    assert engine.check(indexes, indexes.solution).passed


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ("", "The checks themselves are broken."),
        ("def f(:", "The checks themselves are broken."),
        ("import nothing", "The checks themselves are broken."),
        ("def test_it(nothing): pass", "This check could not be finished."),
        ("def test_it(): assert 1 == 2", "This check could not be finished. AssertionError"),
        ("import pytest\ndef test_it(): pytest.skip('no')", "This check could not be finished. Skipped: no"),
        ("import pytest\n@pytest.mark.skip\ndef test_it(): pass", "The checks broke off before they were done."),
        ("import pytest\n@pytest.mark.xfail\ndef test_it(): assert False", "This check could not be finished."),
        ("import pytest\ndef test_it(): pytest.exit('no')", "The checks broke off before they were done."),
        ("import os\ndef test_it(): os._exit(0)", "The checks broke off before they were done."),
        ("import sys\ndef test_it(): sys.exit(0)", "This check could not be finished. SystemExit: 0"),
        (
            "import pytest\n@pytest.fixture\ndef x():\n yield\n raise ValueError('late')\ndef test_it(x): pass",
            "This check could not be finished. ValueError: late",
        ),
    ],
)
def test_broken_checks_are_no_pass(lab: TinyLab, engine: Engine, checks: str, words: str) -> None:
    lab.tests.write_text(checks)
    verdict = engine.check(lab, lab.solution)
    assert not verdict.passed
    assert verdict.satisfied == 0
    assert words in verdict.story
    assert_gone(engine)


def test_checks_without_a_file(lab: TinyLab, engine: Engine) -> None:
    lab.tests.unlink()
    assert "The checks themselves are broken." in engine.check(lab, lab.solution).story


def test_other_checks_are_used_at_once(lab: TinyLab, engine: Engine) -> None:
    assert engine.check(lab, lab.solution).checks == 3
    lab.tests.write_text('def test_it(shop):\n    """It answers."""\n')
    assert engine.check(lab, lab.solution).checks == 1


def test_a_check_may_import_the_shop(lab: TinyLab, engine: Engine) -> None:
    """It gets the naive one, which is not what is judged."""
    lab.tests.write_text(f"from shopfloor import databases\nfrom shop.models import Order\n{lab.tests.read_text()}")
    assert engine.check(lab, lab.solution).passed
    assert not engine.check(lab, lab.starter).passed


BESIDE = '''
import os
from pathlib import Path

import pytest
from sqlalchemy import text

from shopfloor.checks.say import differs
from shopfloor.checks.waiting import until


@pytest.mark.beside
def test_beside(shop, database):
    """The one beside."""
    alone("beside", "here", shop, database)


def test_here(shop, database):
    """The one here."""
    alone("here", "beside", shop, database)


def alone(own, other, shop, database):
    database.execute(text("CREATE TABLE mine ()"))  # there can be one in a database
    Path(__file__).with_name(own).touch()
    if not until(lambda: Path(__file__).with_name(other).exists(), patience=20):
        differs(did="waited for the other", got="nothing", expected="that it runs meanwhile", matters="")
    if shop.get("/v1/orders", limit=3).body["data"] == []:
        differs(did="asked", got="no order", expected="three orders", matters="")
'''


def test_checks_beside_the_others_have_a_process_and_a_database_of_their_own(lab: TinyLab, engine: Engine) -> None:
    lab.tests.write_text(BESIDE)
    verdict = engine.check(lab, lab.solution)
    assert (verdict.passed, verdict.checks, verdict.satisfied) == (True, 2, 2), verdict
    assert_gone(engine)


def test_of_two_processes_that_find_something_the_first_check_is_told(lab: TinyLab, check: Check) -> None:
    lab.tests.write_text(BESIDE)
    assert check(lab, EMPTY_PAGE).failed == "The one beside."


@pytest.mark.parametrize("own", ["here", "beside"])
def test_one_of_two_processes_that_does_not_come_to_its_end_is_no_pass(lab: TinyLab, engine: Engine, own: str) -> None:
    lab.tests.write_text(BESIDE.replace("    if shop", f"    if own == {own!r}: os._exit(0)\n    if shop"))
    verdict = engine.check(lab, lab.solution)
    assert (verdict.passed, verdict.satisfied, verdict.failed) == (False, 1, f"The one {own}.")
    assert "The checks broke off before they were done." in verdict.story
    assert_gone(engine)


def test_checks_that_are_all_beside_are_no_pass(lab: TinyLab, engine: Engine) -> None:
    lab.tests.write_text("import pytest\n\n\n@pytest.mark.beside\ndef test_it(): pass\n")
    assert not engine.check(lab, lab.solution).passed


BYTES = '''
from shopfloor.checks.shop import Request


def test_it(shop):
    """A body of bytes goes as it is, and an answer's comes so."""
    answer = shop.ask(Request("POST", "/v1/orders", headers={"Content-Type": "application/json"}, data=b"{"))
    assert answer.status == 400
    assert answer.content.startswith(b"{")
'''


def test_bodies_that_are_bytes(lab: TinyLab, engine: Engine) -> None:
    lab.tests.write_text(BYTES)
    assert engine.check(lab, lab.solution).passed


MOMENTS = """
from datetime import datetime
import msgpack
from pydantic import BaseModel
made_in_c = msgpack.unpackb(msgpack.packb(msgpack.Timestamp(1)), timestamp=3)
assert isinstance(made_in_c, datetime)
assert isinstance(datetime.now(), datetime)
assert not isinstance("2026", datetime)
class Holiday(BaseModel):
    begins: datetime
assert Holiday(begins="2026-03-01T09:00:00Z").begins.year == 2026
"""


def test_moments_made_by_libraries_are_moments(lab: TinyLab, engine: Engine, tmp_path: Path) -> None:
    answer = tmp_path / "answer.py"
    answer.write_text(f"{lab.solution.read_text()}\n{MOMENTS}")
    assert engine.check(lab, answer).passed


@pytest.mark.slow
def test_what_this_users_environment_says_to_pytest(
    lab: TinyLab, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    monkeypatch.setenv("PYTEST_PLUGINS", "nothing_of_this_name")
    with Engine(services) as engine:
        assert engine.check(lab, lab.solution).passed


def test_threads_take_turns(lab: TinyLab, engine: Engine) -> None:
    with ThreadPoolExecutor(3) as pool:
        verdicts = list(pool.map(lambda file: engine.check(lab, file), [lab.solution, lab.starter] * 2))
    assert [verdict.passed for verdict in verdicts] == [True, False, True, False]


@pytest.mark.slow
def test_nothing_piles_up(lab: TinyLab, engine: Engine) -> None:
    """Neither descriptors nor threads, processes, files or databases, in this process or in the warm one."""
    here, warm = psutil.Process(), psutil.Process(engine.warm_pid)

    def held() -> list[int]:
        engine._databases._ready["small", 0].result()
        folders = len(list(engine._folder.rglob("*")))
        return [here.num_fds(), warm.num_fds(), threading.active_count(), warm.num_threads(), folders]

    answers = (lab.solution, lab.starter, lab.mistakes["an_empty_page"])
    for answer in answers:
        engine.check(lab, answer)
    before = held()
    for answer in answers * 2:
        engine.check(lab, answer)
    assert held() == before
    assert_gone(engine)


@pytest.mark.slow
def test_the_warm_process_is_started_again(lab: TinyLab, engine: Engine) -> None:
    engine.check(lab, lab.solution)
    warm = psutil.Process(engine.warm_pid)
    warm.kill()
    assert_ends(warm)
    assert engine.check(lab, lab.solution).passed
    assert engine.warm_pid != warm.pid


@pytest.mark.slow
def test_a_warm_process_that_does_not_start(
    lab: TinyLab, services: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Engine(services) as engine:
        (tmp_path / "flask.py").write_text("raise ImportError('no such luck')")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
        engine._warm._stop()
        with pytest.raises(ChildError, match=r"(?s)did not start. Its log:.*no such luck"):
            engine.check(lab, lab.solution)
        monkeypatch.undo()
        assert engine.check(lab, lab.solution).passed


def test_no_database(lab: TinyLab, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said each time, and over when there is one again."""

    def refuse(*_: object) -> None:
        raise UserError("no room")

    with Engine(services) as engine:
        monkeypatch.setattr(engine_module.databases, "clone", refuse)
        for _ in range(2):
            with pytest.raises(UserError, match="no room"):
                engine.check(lab, lab.solution)
        monkeypatch.undo()
        assert engine.check(lab, lab.solution).passed


def test_the_end(lab: TinyLab, services: Services, tmp_path: Path) -> None:
    """Leaves no process, no file and no database."""
    with Engine(services, state=tmp_path) as engine:
        engine.check(lab, lab.solution)
        database = engine._databases._ready["small", 0].result().database
        warm = psutil.Process(engine.warm_pid)
        assert list((tmp_path / "checks").iterdir())
    assert not warm.is_running()
    assert not list((tmp_path / "checks").iterdir())
    with pytest.raises(Exception, match="does not exist"), database.engine.connect():
        pass


OWNER = """
import sys
from pathlib import Path
from shopfloor.checks.engine import Engine
from shopfloor.services import running_services
from tests.checks.tiny import orders_lab

lab = orders_lab(Path(sys.argv[1], "labs"))
answer = Path(sys.argv[1], "answer.py")
answer.write_text("import os, time\\nif os.fork() == 0: os.setsid()\\ntime.sleep(1000)")
with running_services() as services, Engine(services, state=Path(sys.argv[1])) as engine:
    engine.check(lab, lab.solution)
    print(engine.warm_pid, flush=True)
    engine.check(lab, answer)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_owner_is_ended_in_the_middle_of_a_check(
    services: Services, lab: TinyLab, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "other")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout
        warm = psutil.Process(int(owner.stdout.readline()))
        wait_until(lambda: len(warm.children(recursive=True)) >= 3, 30, "the learner's processes did not start")
        family = [*psutil.Process(owner.pid).children(recursive=True)]
        assert warm in family
        owner.send_signal(number)
        owner.wait(30)
    for process in family:
        assert_ends(process)
    with Engine(services, state=tmp_path / "other") as engine:  # what the killed one left is removed
        assert [folder.name.partition("-")[0] for folder in (tmp_path / "other" / "checks").iterdir()] == [
            str(os.getpid())
        ]
        assert engine.check(lab, lab.solution).passed


def test_checks_run_commands_and_kill(engine: Engine, tmp_path: Path) -> None:
    lab = tiny_lab(tmp_path / "labs", ORDERS, PROCESS_CHECKS)
    verdict = engine.check(lab, lab.solution)
    assert verdict.passed, verdict
    assert "Traceback" in verdict.printed  # of the command that could not reach its database
    assert_gone(engine)


@pytest.mark.slow
def test_two_labs_and_two_engines(services: Services, engine: Engine, tmp_path: Path) -> None:
    orders, indexes = orders_lab(tmp_path / "one"), indexes_lab(tmp_path / "two")
    with Engine(services) as other, ThreadPoolExecutor(2) as pool:
        jobs = [(engine, orders), (other, indexes), (engine, indexes), (other, orders)]
        verdicts = list(pool.map(lambda job: job[0].check(job[1], job[1].solution), jobs))
    assert all(verdict.passed for verdict in verdicts)
