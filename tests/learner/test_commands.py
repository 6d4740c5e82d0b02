"""Each command of the learner's, run as they run it, in a tiny kit."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
import redis

from tests.kit import running
from tests.learner.tiny import ANSWERS, Kit, new_checks, tiny_kit

INDEXING, N_PLUS_ONE = "data/indexing", "data/n_plus_one"

pytestmark = pytest.mark.slow


# An answer that would be measured with what an earlier one had left in the cache, perhaps in another form.
MEETS_NOTHING_OLD = """
import os
import redis
assert not redis.Redis.from_url(os.environ["REDIS_URL"]).exists("orders"), "what another shop left"
"""


def remember_in_the_services_cache(kit: Kit, key: str) -> None:
    (url,) = re.findall("^REDIS_URL=(.+)$", kit.run("services").stdout, re.MULTILINE)
    with redis.Redis.from_url(url) as cache:
        cache.set(key, "kept", ex=60)


def kept(kit: Kit) -> list[str]:
    return [path.read_text() for path in (kit.root / "workspace/.shopfloor/kept").glob("*/shop/*/*.py")]


def narrow(text: str) -> bool:
    """Whether it fits 80 columns; a path or an address may be longer by itself."""
    return all(len(line) <= 80 or " " not in line.strip() for line in text.splitlines())


def test_check_tells_right_from_not_yet_by_its_exit_code(kit: Kit) -> None:
    kit.make()
    done = kit.run("check")
    assert (done.returncode, done.stderr) == (1, "")
    assert "data/indexing" in done.stdout
    assert narrow(done.stdout)
    kit.solve(INDEXING)
    assert kit.run("check", INDEXING).returncode == 0
    assert re.search(r"data/indexing +passed", kit.run("status").stdout)


def test_check_says_when_something_passed_before(kit: Kit) -> None:
    kit.make()
    kit.solve(INDEXING)
    kit.run("check")
    kit.file(INDEXING).write_text("INDEXES = ()\n")
    assert "passed once, changed since" in kit.run("status").stdout
    done = kit.run("check", INDEXING)
    assert done.returncode == 1
    assert "data/indexing passed before, and does not any more." in done.stdout


def test_check_for_programs(kit: Kit) -> None:
    kit.make()
    done = kit.run("check", "--json")
    verdict = json.loads(done.stdout)
    assert done.returncode == 1
    assert (verdict["address"], verdict["passed"]) == (INDEXING, False)
    kit.file(INDEXING).unlink()
    done = kit.run("check", "--json")
    assert done.returncode == 1, "a missing file is no pass"
    assert json.loads(done.stdout)["passed"] is False


def test_check_starts_services_of_its_own_when_none_run(tmp_path: Path) -> None:
    kit = Kit(tiny_kit(tmp_path / "kit"))
    kit.make()
    kit.solve(INDEXING)
    done = kit.run("check")
    assert done.returncode == 0, done.stderr
    assert not (kit.root / ".shopfloor/services.json").exists(), "they end with it"


def test_check_without_a_workspace_is_neither_right_nor_wrong(kit: Kit) -> None:
    done = kit.run("check")
    assert done.returncode == 2
    assert "shopfloor start" in done.stderr


@pytest.mark.parametrize(("line", "expected"), [("check data/n", "data/n_plus_one"), ("stat", "status")])
def test_commands_and_addresses_complete(kit: Kit, line: str, expected: str) -> None:
    words = f"shopfloor {line}"
    environment = {"_SHOPFLOOR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['shopfloor']; from shopfloor.cli import app; app()"],
        cwd=kit.root,
        env=kit.environment | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [expected], done.stderr


def test_hints_come_one_after_another_and_then_all_again(kit: Kit) -> None:
    assert kit.run("hint").stdout == "Hint 1 of 3 for data/indexing: Look.\n"
    assert kit.run("hint", N_PLUS_ONE).stdout.startswith("Hint 1 of 3")
    assert kit.run("hint").stdout == "Hint 2 of 3 for data/indexing: Look closer.\n"
    assert kit.run("hint").stdout == "Hint 3 of 3 for data/indexing: Do it.\n"
    last = kit.run("hint").stdout
    assert last.startswith("You have seen all hints")
    assert "Hint 1 of 3: Look." in last
    assert "Hint 3 of 3: Do it." in last


def test_diff_is_for_those_who_passed_or_mean_it(kit: Kit) -> None:
    kit.make()
    asked = kit.run("diff")
    assert asked.returncode == 1
    assert "You have 3 hints left" in asked.stderr
    assert "--yes" in asked.stderr
    shown = kit.run("diff", "--yes")
    assert shown.returncode == 0
    assert "\n-INDEXES: tuple[str, ...] = ()\n" in shown.stdout
    assert kit.run("diff").stdout == shown.stdout, "it is asked once"


def test_diff_of_what_passed_is_not_asked_about(kit: Kit) -> None:
    kit.make()
    kit.solve(INDEXING)
    kit.run("check")
    assert "+++ the kit's: solutions/shop/data/indexing.py" in kit.run("diff").stdout
    assert "asked" not in kit.run("diff").stderr


def test_on_a_terminal_it_is_asked_once(kit: Kit) -> None:
    kit.make()
    with kit.terminal("solution", INDEXING) as terminal:
        terminal.expect("Do you mean to see the")
        terminal.sendline("n")
        terminal.expect(pexpect.EOF)
        terminal.wait()
        assert terminal.exitstatus == 1
    assert "INDEXES: tuple[str, ...] = ()" in kit.file(INDEXING).read_text()
    with kit.terminal("solution", INDEXING) as terminal:
        terminal.expect("Do you mean to see the")
        terminal.sendline("y")
        terminal.expect("holds the kit's solution now")
    with kit.terminal("diff", INDEXING) as terminal:
        terminal.expect("to the letter")


def test_solution_and_reset_keep_what_they_replace_and_say_where(kit: Kit) -> None:
    kit.make()
    kit.file(INDEXING).write_text("# mine\n")
    said = kit.run("solution", INDEXING, "--yes").stdout
    copy = kit.root / said.split("What you had there is kept:\n")[1].strip()
    assert copy.read_text() == "# mine\n"
    assert kit.file(INDEXING).read_text() == (kit.root / "solutions/shop/data/indexing.py").read_text()
    kit.file(INDEXING).write_text("# mine again\n")
    said = kit.run("reset", INDEXING).stdout
    copy = kit.root / said.split("What you had there is kept:\n")[1].strip()
    assert copy.read_text() == "# mine again\n"
    assert kit.file(INDEXING).read_text() == (kit.root / "labs/shop/data/indexing.py").read_text()
    assert "as the kit delivers it already" in kit.run("reset", INDEXING).stdout
    assert sorted(kept(kit)) == ["# mine\n", "# mine again\n"]


def test_status_for_programs(kit: Kit) -> None:
    before = json.loads(kit.run("status", "--json").stdout)
    assert before["workspace"] is None
    kit.make()
    kit.solve(INDEXING)
    kit.run("check", INDEXING)
    kit.run("hint", N_PLUS_ONE)
    told = json.loads(kit.run("status", "--json").stdout)
    assert told["workspace"] == str(kit.root / "workspace/shop")
    assert (told["current"], told["complete"], told["update"]) == (INDEXING, True, [])
    first, second = told["labs"]
    assert first.pop("passed_at").endswith("+00:00")
    assert first == {
        "address": INDEXING,
        "title": "A tiny lab on indexing",
        "minutes": 5,
        "file": "workspace/shop/data/indexing.py",
        "state": "passed",
        "begun": True,
        "hints_shown": 0,
    }
    assert (second["state"], second["begun"], second["hints_shown"], second["passed_at"]) == ("open", False, 1, None)


def test_update_merges_and_tells_of_new_checks(kit: Kit) -> None:
    kit.make()
    kit.solve(INDEXING)
    kit.run("check", INDEXING)
    assert "up to date" in kit.run("update").stdout
    models = kit.root / "labs/shop/settings.py"
    before = models.read_bytes()
    checks = kit.root / "labs/data/indexing/test_indexing.py"
    checks_before = checks.read_bytes()
    try:
        models.write_bytes(before + b"\nNEW = 1\n")
        new_checks(kit.root, INDEXING)
        assert "shopfloor update" in kit.run("status").stdout
        said = kit.run("update").stdout
        assert "settings.py: you had not changed it; it is the kit's new one now." in said
        assert "shopfloor check data/indexing" in said
        assert "has new checks" in kit.run("status").stdout
        assert kit.file(INDEXING).read_text() == ANSWERS[INDEXING]
        assert kit.run("check", INDEXING).returncode == 0
        assert re.search(r"data/indexing +passed \(the current lab\)", kit.run("status").stdout)
    finally:
        models.write_bytes(before)
        checks.write_bytes(checks_before)


def test_a_corrupt_progress_file_is_set_aside_and_made_up_from_checks(kit: Kit) -> None:
    kit.make()
    kit.solve(INDEXING)
    kit.run("check", INDEXING)
    progress = kit.root / "workspace/.shopfloor/progress.json"
    progress.write_text(progress.read_text()[:40])
    first = kit.run("status")
    assert "It was set aside as" in first.stderr
    assert "found out by the next check" in first.stdout
    assert kit.run("check", N_PLUS_ONE).returncode == 1
    assert re.search(r"data/indexing +passed\n", kit.run("status").stdout)


def test_commands_that_need_a_workspace_say_so(kit: Kit) -> None:
    for command in (("reset",), ("solution", "--yes"), ("update",)):
        done = kit.run(*command)
        assert done.returncode == 1
        assert "shopfloor start" in done.stderr
        assert not (kit.root / "workspace/shop").exists()


def test_services_that_run_are_named_for_other_programs(kit: Kit) -> None:
    said = kit.run("services").stdout
    assert "DATABASE_URL=postgresql+psycopg://" in said
    assert "REDIS_URL=redis://" in said
    assert "Another Shopfloor process runs them." in said


def test_services_end_with_ctrl_c(tmp_path: Path) -> None:
    root = tiny_kit(tmp_path / "kit")
    with running(root, "services", output=tmp_path / "said") as services:
        services.wait_for("They run until Ctrl-C.")
        assert services.end(signal.SIGINT) == 130
        assert services.text.endswith("Stopped.\n")


def test_load_draws_the_learners_shop_beside_the_naive_one(kit: Kit) -> None:
    kit.make()
    kit.solve(N_PLUS_ONE)
    remember_in_the_services_cache(kit, "orders")
    with kit.file(N_PLUS_ONE).open("a") as answer:
        answer.write(MEETS_NOTHING_OLD)
    done = kit.run("load", N_PLUS_ONE)
    assert done.returncode == 0, done.stderr
    assert "The naive shop: " in done.stdout
    assert "Yours: " in done.stdout
    page = kit.root / done.stdout.strip().splitlines()[-1].strip()
    assert page == kit.root / "workspace/load/data/n_plus_one.html"
    text = page.read_text()
    assert "<svg" in text
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', ""), "it loads nothing from elsewhere"


def test_load_of_a_file_that_breaks_the_shop_says_so(kit: Kit) -> None:
    kit.make()
    kit.file(N_PLUS_ONE).write_text("raise RuntimeError('mine')\n")
    done = kit.run("load", N_PLUS_ONE)
    assert done.returncode == 1
    assert "RuntimeError: mine" in done.stderr
    assert "Traceback (most" not in done.stdout


def test_doctor_finds_nothing_to_mend_here(kit: Kit) -> None:
    done = kit.run("doctor")
    assert done.returncode == 0, done.stdout
    assert "Nothing to mend." in done.stdout
    assert narrow(done.stdout)
