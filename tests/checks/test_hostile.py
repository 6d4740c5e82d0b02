"""What a learner's file may do: a verdict in bounded time, no pass, and the next check as if nothing had been."""

import os
import signal
import textwrap
from pathlib import Path

import psutil
import pytest

from shopfloor.checks.engine import Engine, Verdict
from shopfloor.checks.learner import KEPT_OUTPUT, LOAD_SECONDS
from tests.checks.conftest import Check, assert_ends
from tests.checks.tiny import TinyLab

pytestmark = pytest.mark.slow  # each has its answer checked, and the solution after it

LONGEST = 60.0  # far beyond what any takes, so that a busy machine fails none


def at_import(lab: TinyLab, code: str) -> str:
    """The solution, and then this code."""
    return lab.solution.read_text() + "\n" + textwrap.dedent(code)


def in_request(lab: TinyLab, code: str) -> str:
    """The solution, which runs this code in each request for a page first."""
    body = textwrap.indent(textwrap.dedent(code), "    ")
    return at_import(
        lab,
        f"""
right = orders_page

def orders_page(session, **arguments):
{body}
    return right(session, **arguments)
""",
    )


def refused(verdict: Verdict, words: str) -> None:
    assert not verdict.passed
    assert words in verdict.story
    assert verdict.seconds < LONGEST


# --- It ends, or never ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["while True: pass", "import threading; threading.Event().wait()", "import time\nwhile True: time.sleep(1)"]
)
def test_a_loop_at_import(lab: TinyLab, check: Check, code: str) -> None:
    refused(check(lab, at_import(lab, code)), f"still being loaded after {LOAD_SECONDS:.0f} s")


def test_a_loop_in_a_request(lab: TinyLab, check: Check) -> None:
    verdict = check(lab, in_request(lab, "while True: pass"))
    refused(verdict, "GET /v1/orders?limit=3 had no answer after 5 s")
    assert (verdict.satisfied, verdict.checks) == (1, 3)


def test_an_answer_that_goes_on_for_ever(lab: TinyLab, check: Check) -> None:
    endless = """
    import flask, itertools, time
    from werkzeug.exceptions import HTTPException
    def slowly():
        while True:
            time.sleep(0.01)
            yield b"x"
    raise HTTPException(response=flask.Response(slowly()))
    """
    refused(check(lab, in_request(lab, endless)), "had no answer after")


def test_an_answer_that_is_too_large(lab: TinyLab, check: Check) -> None:
    large = """
    import flask, itertools
    from werkzeug.exceptions import HTTPException
    raise HTTPException(response=flask.Response(itertools.repeat(b"x" * 1_000_000)))
    """
    refused(check(lab, in_request(lab, large)), "larger than 16 MB")


@pytest.mark.parametrize("code", ["import sys; sys.exit()", "import sys; sys.exit(0)", "raise SystemExit('bye')"])
def test_an_exit_at_import(lab: TinyLab, check: Check, code: str) -> None:
    refused(check(lab, at_import(lab, code)), "calls sys.exit while it is being loaded")


def test_an_exit_in_a_request(lab: TinyLab, check: Check) -> None:
    refused(check(lab, in_request(lab, "import sys; sys.exit(0)")), "Does the file call sys.exit in a request?")


def test_a_hard_exit_at_import(lab: TinyLab, check: Check) -> None:
    refused(check(lab, at_import(lab, "import os; os._exit(0)")), "ended its own process (os._exit, exit code 0)")


def test_a_hard_exit_in_a_request(lab: TinyLab, check: Check) -> None:
    refused(check(lab, in_request(lab, "import os; os._exit(0)")), "ended its own process (os._exit, exit code 0)")


def test_a_crash(lab: TinyLab, check: Check) -> None:
    code = "import ctypes, os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    refused(check(lab, in_request(lab, code)), "ended by signal 11 (Segmentation fault)")


def test_an_exception_at_import(lab: TinyLab, check: Check) -> None:
    verdict = check(lab, at_import(lab, "raise ValueError('so not')"))
    refused(verdict, "The file raises ValueError when it is imported: so not")
    assert 'File "shop/data/n_plus_one.py"' in verdict.trace


def test_an_exception_in_a_request(lab: TinyLab, check: Check) -> None:
    verdict = check(lab, in_request(lab, "raise ValueError('so not')"))
    assert not verdict.passed
    assert verdict.finding
    assert verdict.finding.got == "status 500"
    assert "ValueError: so not" in verdict.printed


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f(:\n", "Python cannot read the file: invalid syntax (line 2).\n\n    def f(:\n          ^"),
        ("x = 1\n  y = 2\n", "unexpected indent (line 3)"),
        ("x = '\0'\n", "null bytes"),
        ("(" * 1000, "too many nested parentheses"),
        ("x = " + "-" * 200_000 + "1\n", "Python cannot read the file"),
        ("#" * 2**20, "longer than 1 MB"),
    ],
)
def test_no_python(lab: TinyLab, check: Check, code: str, words: str) -> None:
    refused(check(lab, "\n" + code), words)


def test_it_is_not_there(lab: TinyLab, engine: Engine, tmp_path: Path) -> None:
    refused(engine.check(lab, tmp_path / "nothing.py"), "nothing.py is not there. Bring it back: shopfloor reset")
    refused(engine.check(lab, tmp_path), "cannot be read: Is a directory")


# --- It starts what does not end --------------------------------------------------------------------------------------

LEFT_BEHIND = {
    "a fork": "if os.fork() == 0: time.sleep(1000)",
    "a daemon": "if os.fork() == 0:\n os.setsid()\n if os.fork() == 0: time.sleep(1000)\n os._exit(0)",
    "a program": "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)",
    "a thread": "import threading; threading.Thread(target=time.sleep, args=[1000]).start()",
    "a deaf one": "import signal\nif os.fork() == 0:\n signal.pthread_sigmask(0, range(1, 65))\n time.sleep(1000)",
}


@pytest.mark.parametrize("code", LEFT_BEHIND.values(), ids=LEFT_BEHIND)
def test_what_is_left_behind_is_ended(lab: TinyLab, check: Check, code: str) -> None:
    """A right answer is right whatever it starts beside."""
    assert check(lab, at_import(lab, f"import os, time\n{code}")).passed


@pytest.mark.parametrize("code", [LEFT_BEHIND["a fork"], LEFT_BEHIND["a daemon"]])
def test_what_is_left_behind_when_it_does_not_load(lab: TinyLab, check: Check, code: str) -> None:
    refused(check(lab, at_import(lab, f"import os, time\n{code}\n1 / 0")), "ZeroDivisionError")


# --- It takes too much ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["while True: print('x' * 9)", "import os\nwhile True: os.write(2, b'x' * 9)"])
def test_a_flood_at_import(lab: TinyLab, check: Check, code: str) -> None:
    verdict = check(lab, at_import(lab, code))
    if "still being loaded" not in verdict.story:  # a busy machine does not even get so far
        refused(verdict, "printed more than 16 MB")
        assert len(verdict.printed) <= KEPT_OUTPUT
        assert verdict.printed_bytes > 16 * 2**20


def test_a_flood_in_a_request(lab: TinyLab, check: Check) -> None:
    verdict = check(lab, in_request(lab, "while True: print('x' * 99_999)"))
    refused(verdict, "GET /v1/orders?limit=3 had no answer")


def test_what_is_printed_is_kept(lab: TinyLab, check: Check) -> None:
    verdict = check(lab, at_import(lab, "print('hello')\nprint('x' * 100_000)"))
    assert verdict.passed
    assert verdict.printed.startswith("hello\nxxx")
    assert verdict.printed_bytes == 100_007


@pytest.mark.parametrize("code", ["x = 'x' * 10**10", "x = []\nwhile True: x.append(' ' * 1_000_000)"])
def test_memory(lab: TinyLab, check: Check, code: str) -> None:
    refused(check(lab, at_import(lab, code)), "needs more than 512 MB")


def test_memory_in_a_request(lab: TinyLab, check: Check) -> None:
    verdict = check(lab, in_request(lab, "x = 'x' * 10**10"))
    assert verdict.finding
    assert verdict.finding.got == "status 500"
    assert "MemoryError" in verdict.printed


def test_files(lab: TinyLab, check: Check) -> None:
    refused(check(lab, at_import(lab, "x = [open('/dev/null') for _ in range(5000)]")), "Too many open files")


def test_a_large_file(lab: TinyLab, check: Check) -> None:
    refused(check(lab, at_import(lab, "open('large', 'wb').write(bytes(100_000_000))")), "File too large")


# --- It turns on what judges it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["os.kill(os.getppid(), 9)", "os.killpg(os.getpgid(os.getppid()), 9)", "os.kill(os.getppid(), 15)"]
)
def test_it_kills_the_judge(lab: TinyLab, check: Check, code: str) -> None:
    refused(check(lab, at_import(lab, f"import os; {code}")), "The process that judges was ended by signal")


def test_it_kills_the_judge_in_a_request(lab: TinyLab, check: Check) -> None:
    verdict = check(lab, in_request(lab, "import os; os.kill(os.getppid(), 9)"))
    refused(verdict, "The process that judges was ended by signal 9")
    assert (verdict.satisfied, verdict.failed) == (1, "A page of three orders has three orders.")


def test_it_kills_the_warm_process(lab: TinyLab, engine: Engine, check: Check) -> None:
    warm = psutil.Process(engine.warm_pid)
    verdict = check(lab, at_import(lab, "import os, psutil; psutil.Process(os.getppid()).parent().kill(); input()"))
    assert not verdict.passed  # the warm process's death may be learnt of before or after the judge's
    assert "was ended" in verdict.story or "ended its own process" in verdict.story
    assert engine.warm_pid != warm.pid
    assert_ends(warm)


def test_it_stops_the_judge(lab: TinyLab, engine: Engine, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_seconds", 8.0)
    verdict = check(lab, at_import(lab, f"import os; os.kill(os.getppid(), {int(signal.SIGSTOP)})"))
    refused(verdict, "The checks were not done after 8 s")


def test_it_stops_the_warm_process(lab: TinyLab, engine: Engine, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_seconds", 6.0)
    warm = psutil.Process(engine.warm_pid)
    check(lab, at_import(lab, "import os, psutil; psutil.Process(os.getppid()).parent().suspend()"))
    assert engine.warm_pid != warm.pid
    assert_ends(warm)


PATCHES = {
    "pytest": "import pytest; pytest.main = lambda *_, **__: 0; pytest.Function.runtest = lambda _: None",
    "the checks": "import shopfloor.checks.say as say; say.differs = say.wrong = lambda *_, **__: None",
    "the judge": "import shopfloor.checks.judge as judge; judge._result = lambda *_: {'passed': True}",
    "sys.modules": "import sys; sys.modules['pytest'] = sys.modules['shopfloor.checks.say'] = None",
    "builtins": "import builtins; builtins.len = lambda _: 0; builtins.AssertionError = SystemExit",
    "an exit": "import os; os._exit = lambda _: None",
}


@pytest.mark.parametrize("code", PATCHES.values(), ids=PATCHES)
def test_a_patch_makes_nothing_right(lab: TinyLab, check: Check, code: str) -> None:
    verdict = check(lab, lab.starter.read_text() + "\n" + code)
    assert not verdict.passed
    assert verdict.seconds < LONGEST


def test_a_patched_exit_and_an_exception(lab: TinyLab, check: Check) -> None:
    """The forked process must not go on as if it were the judge."""
    refused(check(lab, at_import(lab, f"{PATCHES['an exit']}\n1 / 0")), "ZeroDivisionError")


FORGED = '{"checks": [{"check": "a", "title": "a"}]}\n{"result": {"check": "a", "passed": true}}\n{"end": 0}\n'


@pytest.mark.parametrize("text", [FORGED, "{}\n", "[1, 2]\n", "garbage\n", '{"port": "no"}\n', "[" * 100_000 + "\n"])
def test_it_writes_into_every_descriptor(lab: TinyLab, check: Check, text: str) -> None:
    code = f"""
import contextlib, os
for descriptor in range(3, 200):
    with contextlib.suppress(OSError):
        os.write(descriptor, {text.encode()!r})
"""
    refused(check(lab, at_import(lab, code)), "wrote into a file descriptor that is not its own")


def test_it_closes_every_descriptor(lab: TinyLab, check: Check) -> None:
    verdict = check(lab, at_import(lab, "import os; os.closerange(3, 200)"))
    refused(verdict, "The file could not be loaded")


def test_it_deletes_its_own_file(lab: TinyLab, check: Check) -> None:
    assert check(lab, at_import(lab, "import os; os.remove(__file__)")).passed


def test_it_deletes_the_shop(lab: TinyLab, check: Check) -> None:
    refused(check(lab, at_import(lab, "import os, shutil; shutil.rmtree(os.getcwd())")), "when it is imported")


@pytest.mark.parametrize(
    "code", ["open({tests!r}, 'w').close()", "import os; os.remove({tests!r})", "open({tests!r}, 'w').write({easy!r})"]
)
def test_it_spoils_the_checks(lab: TinyLab, check: Check, code: str) -> None:
    """What is spoilt during a check is not used in the next one, and is left for its author to see."""
    easy = "def test_nothing(): pass"
    verdict = check(lab, lab.starter.read_text() + "\n" + code.format(tests=os.fspath(lab.tests), easy=easy))
    assert (verdict.passed, verdict.checks) == (False, 3)
    assert check(lab, lab.solution.read_text()).checks == 3
    assert not check(lab, lab.starter.read_text()).passed


def test_it_opens_thousands_of_connections(lab: TinyLab, check: Check) -> None:
    code = """
import os, socket, urllib.parse
url = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
kept = []
for _ in range(150):
    kept.append(socket.create_connection((url.hostname, url.port)))
    kept[-1].sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
"""
    assert check(lab, at_import(lab, code)).passed


# --- It leaves the database changed -----------------------------------------------------------------------------------

CONNECT = "import os, sqlalchemy\nother = sqlalchemy.create_engine(os.environ['DATABASE_URL']).connect()\n"
CHANGES = {
    "deleted rows": "DELETE FROM order_items",
    "other rows": "UPDATE orders SET status = 'pending'",
    "an emptied table": "TRUNCATE order_items",
    "a new index": "CREATE INDEX a_index ON orders (customer_id)",
    "a new column": "ALTER TABLE orders ADD COLUMN a_column int",
    "a trigger": "CREATE RULE a_rule AS ON INSERT TO orders DO INSTEAD NOTHING",
    "a setting": "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET enable_indexscan = off'; END $$",
    "a sequence": "SELECT setval('payments_id_seq', 10)",
    "statistics": "ANALYZE",
}


@pytest.mark.parametrize("statement", CHANGES.values(), ids=CHANGES)
def test_a_changed_database(lab: TinyLab, engine: Engine, check: Check, statement: str) -> None:
    """The next check has another one."""
    engine.check(lab, lab.solution)
    before = engine._databases._ready["small", 0].result()
    check(lab, at_import(lab, f"{CONNECT}other.exec_driver_sql({statement!r})\nother.commit()\n"))
    assert engine._databases._ready["small", 0].result() is not before


def test_an_unchanged_database_is_used_again(indexes: TinyLab, engine: Engine, check: Check) -> None:
    engine.check(indexes, indexes.solution)
    before = engine._databases._ready["small", 0].result()
    check(indexes, indexes.starter.read_text())
    assert engine._databases._ready["small", 0].result() is before


def test_a_dropped_database(lab: TinyLab, check: Check) -> None:
    code = """
import os, sqlalchemy
url = sqlalchemy.make_url(os.environ["DATABASE_URL"])
other = sqlalchemy.create_engine(url.set(database="template1"), isolation_level="AUTOCOMMIT").connect()
other.exec_driver_sql(f"DROP DATABASE {url.database} WITH (FORCE)")
"""
    assert not check(lab, at_import(lab, code)).passed


def test_a_lock_that_is_kept(lab: TinyLab, check: Check) -> None:
    code = f"""
{CONNECT}
import threading
other.exec_driver_sql("LOCK TABLE orders")
threading.Thread(target=other.exec_driver_sql, args=["SELECT pg_sleep(1000)"]).start()
"""
    refused(check(lab, at_import(lab, code)), "had no answer after 5 s")


# --- A file that declares ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("INDEXES = None", "must be a tuple of strings, one CREATE INDEX statement each; it is 'None'"),
        ("INDEXES = ('CREATE INDEX a ON orders (id)')", "must be a tuple of strings"),
        ("import sqlalchemy; INDEXES = (sqlalchemy.text('CREATE INDEX a ON orders (id)'),)", "must be a tuple of str"),
        ("INDEXES = ('x' * 10**7,)", "longer than a million characters"),
        ("del INDEXES", "ImportError"),
        ("INDEXES = ('DROP TABLE orders',)", "not of the form CREATE INDEX"),
        ("INDEXES = ('CREATE INDEX a ON orders (nothing)',)", 'column "nothing" does not exist'),
        ("import os; os._exit(0)", "ended its own process"),
        ("import sys; sys.exit(0)", "calls sys.exit"),
        ("import os; os.kill(os.getppid(), 9)", "The process that judges was ended by signal 9"),
    ],
)
def test_indexes_that_are_none(indexes: TinyLab, check: Check, code: str, words: str) -> None:
    refused(check(indexes, at_import(indexes, code)), words)


def test_a_file_that_declares_and_forks(indexes: TinyLab, check: Check) -> None:
    assert check(indexes, at_import(indexes, f"import os, time\n{LEFT_BEHIND['a daemon']}")).passed
