import gc
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, create_engine, insert, select, text

from shopfloor import measure
from shopfloor.measure import Comparison, Timing, compare, count_queries, machine_is_busy, provenance, shape
from shopfloor.services import Services


@pytest.fixture(scope="module")
def engine(services: Services) -> Iterator[Engine]:
    engine = create_engine(services.database_url)
    yield engine
    engine.dispose()


# Statements


def test_statements_and_their_rows_are_counted_while_the_block_runs(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with count_queries(engine) as log:
            for number in (1, 2, 3):
                connection.execute(text("SELECT generate_series(1, :n)"), {"n": number}).all()
            connection.execute(text("SET LOCAL work_mem = '1MB'"))
        connection.execute(text("SELECT 1"))
    assert log.count == len(log.statements) == 4
    assert log.rows == 1 + 2 + 3
    assert log.statements[0] == "SELECT generate_series(1, %(n)s)"


def test_one_statement_for_many_sets_of_parameters_is_one(engine: Engine) -> None:
    things = Table(
        "things", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text), prefixes=["TEMP"]
    )
    with engine.connect() as connection:
        things.create(connection)
        with count_queries(engine) as log:
            connection.execute(insert(things), [{"id": number, "name": "x"} for number in range(5)])
        assert connection.scalar(text("SELECT count(*) FROM things")) == 5
    assert log.count == 1
    assert log.rows == 0


def test_counting_ends_even_when_the_block_fails(engine: Engine) -> None:
    def fail() -> None:
        with count_queries(engine) as log:
            logs.append(log)
            raise RuntimeError

    logs: list[measure.QueryLog] = []
    with pytest.raises(RuntimeError):
        fail()
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert logs[0].count == 0


def test_one_connection_is_counted_apart_from_others(engine: Engine) -> None:
    with engine.connect() as watched, engine.connect() as other, count_queries(watched) as log:
        watched.execute(text("SELECT 1"))
        other.execute(text("SELECT 2"))
    assert log.statements == ["SELECT 1"]


def test_other_threads_count(engine: Engine) -> None:
    def ask() -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    with count_queries(engine) as log:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert log.count == 4


def test_statements_that_differ_in_values_alone_are_shown_as_one(engine: Engine) -> None:
    numbers = Table("numbers", MetaData(), Column("n", Integer), Column("word", Text), prefixes=["TEMP"])
    with engine.connect() as connection:
        numbers.create(connection)
        with count_queries(engine) as log:
            for number in range(12):
                connection.execute(select(numbers.c.word).where(numbers.c.n == number))
            for chosen in ([1], [1, 2], [1, 2, 3]):
                connection.execute(select(numbers.c.n).where(numbers.c.n.in_(chosen)))
    assert [len(sent) for sent in log.shapes.values()] == [12, 1, 2]
    shown = repr(log)
    assert shown.splitlines()[0] == "15 statements of 3 kinds, 0 rows fetched:"
    assert "12 × SELECT numbers.word FROM numbers WHERE numbers.n = ?" in shown
    assert "2 × SELECT numbers.n FROM numbers WHERE numbers.n IN (?, …)" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_page_shows_counts_and_folds_the_sql_away(engine: Engine) -> None:
    with engine.connect() as connection, count_queries(engine) as log:
        connection.execute(text("SELECT 1 < 2"))
    html = log._repr_html_()
    assert "1 statement of 1 kind, 1 row fetched" in html
    assert "<details><summary><b>1 ×</b> <code>SELECT ? &lt; ?</code></summary>" in html
    assert "<pre>SELECT 1 &lt; 2</pre>" in html


def test_a_log_without_statements_says_so() -> None:
    assert repr(measure.QueryLog()) == "0 statements, 0 rows fetched"


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT a\n  FROM t\n WHERE b = %(b_1)s::VARCHAR", "SELECT a FROM t WHERE b = ?"),
        ("SELECT a FROM t LIMIT %(x)s::BIGINT OFFSET %(y)s", "SELECT a FROM t LIMIT ? OFFSET ?"),
        ("WHERE a IN (%(a_1)s::INTEGER, %(a_2)s::INTEGER)", "WHERE a IN (?, …)"),
        ("VALUES (%(a)s, %(b)s), (%(c)s, %(d)s)", "VALUES (?, …), …"),
        ("WHERE orders_1.id = 12 AND note = 'it''s 3'", "WHERE orders_1.id = ? AND note = ?"),
        ("WHERE at > %(at)s::TIMESTAMP WITH TIME ZONE AND b", "WHERE at > ? AND b"),
    ],
)
def test_a_shape_has_no_values(statement: str, shown: str) -> None:
    assert shape(statement) == shown


# Two ways compared


@pytest.mark.slow
def test_runs_are_taken_in_turns_after_one_to_warm_up() -> None:
    runs: list[str] = []
    compare(lambda: runs.append("A"), lambda: runs.append("B"), rounds=4)
    assert "".join(runs) == "AB" + "AB" + "BA" + "AB" + "BA"


def test_the_garbage_collector_rests_during_the_runs_and_no_longer() -> None:
    enabled: list[bool] = []
    compare(lambda: enabled.append(gc.isenabled()), lambda: None, rounds=3)
    assert enabled[1:] == [False, False, False]
    assert gc.isenabled()


def test_the_garbage_collector_works_again_after_a_failure() -> None:
    runs: list[int] = []

    def fail_later() -> None:
        runs.append(1)
        if len(runs) == 3:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        compare(fail_later, lambda: None)
    assert gc.isenabled()


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    # A disturbance that lasts hits both runs of a pair: the pairs' ratios do not see it.
    comparison = Comparison(Timing((0.4, 0.4, 4.0, 4.0, 4.8)), Timing((0.1, 0.1, 1.0, 1.0, 1.0)), busy=False)
    assert comparison.ratio == pytest.approx(4)
    assert comparison.ratio_quartiles == pytest.approx((4, 4))
    assert comparison.before.median == 4.0
    assert comparison.after.quartiles == pytest.approx((0.1, 1.0))


def test_a_comparison_reads_as_a_sentence() -> None:
    comparison = Comparison(Timing((0.4, 0.41, 0.42)), Timing((0.0001, 0.0001, 0.0001)), busy=False)
    assert " ".join(repr(comparison).split()) == (
        "410 ms (405 to 415) before, 100 µs (100 to 100) after: 4,100 times as fast "
        "(4,050 to 4,150, the middle half of 3 pairs)."
    )
    html = comparison._repr_html_()
    assert "4,100 times as fast" in html
    assert 'style="width:100.0%"' in html
    assert 'style="width:0.0%"' in html


def test_a_change_for_the_worse_and_a_busy_machine_are_said() -> None:
    comparison = Comparison(Timing((1.0, 1.0, 1.0)), Timing((2.5, 2.5, 2.5)), busy=True)
    assert "2.5 times as slow" in repr(comparison)
    assert "The machine was busy with something else." in " ".join(repr(comparison).split())


@pytest.mark.slow
def test_what_takes_longer_is_measured_as_longer() -> None:
    comparison = compare(lambda: sum(range(200_000)), lambda: sum(range(200)), rounds=5)
    assert comparison.ratio > 10


def test_two_rounds_have_no_spread() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        compare(list, list, rounds=2)


# The machine


def test_another_process_at_work_keeps_the_machine_busy() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as worker:
        worker.stdout.readline()
        try:
            # One process of two or of four is more than the threshold; of more processors it may be less.
            share_of_one = 1 / (os.cpu_count() or 1)
            assert machine_is_busy() or share_of_one <= measure.BUSY_SHARE
        finally:
            worker.kill()


@pytest.mark.parametrize(("others", "busy"), [(0.0, False), (0.029, False), (0.031, True)])
def test_only_what_others_use_counts(monkeypatch: pytest.MonkeyPatch, others: float, busy: bool) -> None:
    own, total = iter([5.0, 5.2]), 0.2  # this process uses the whole of one processor meanwhile
    processors = iter([(100.0, 1000.0), (100.2 + others, 1000.0 + total)])
    monkeypatch.setattr(measure, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(measure, "_processor_seconds", lambda: next(processors))
    monkeypatch.setattr(measure, "BUSY_SAMPLE_SECONDS", 0.01)
    assert machine_is_busy() is busy


def test_provenance_says_where_and_when() -> None:
    where = provenance({"postgresql": "18.6", "valkey": "9.1.2"})
    assert where.processor
    assert where.cores >= 1
    assert where.memory_gib > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", where.date)
    assert f"Python {where.python}, PostgreSQL 18.6, Valkey 9.1.2" in str(where)
    assert where.as_dict()["versions"] == {"postgresql": "18.6", "valkey": "9.1.2"}
    assert where.processor in where._repr_html_()


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@shop.example", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_is_named_with_a_plus_when_files_differ_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert measure._commit(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    commit = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert measure._commit(tmp_path) == commit
    (tmp_path / "a").write_text("2")
    assert measure._commit(tmp_path) == f"{commit}+"


def test_a_folder_inside_another_working_copy_has_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "a")
    (tmp_path / "kit").mkdir()
    assert measure._commit(tmp_path / "kit") is None


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert measure._commit(tmp_path) is None
