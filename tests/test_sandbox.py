"""A process that is thrown away."""

from pathlib import Path

from shopfloor.sandbox import apart


def test_what_it_leaves_stays_in_its_folder() -> None:
    before = set(Path.cwd().iterdir())
    ended = apart("open('canary', 'wb').write(data); print(len(data))", b"tweet")
    assert ended.files == ("canary",)
    assert ended.printed == "5\n"
    assert ended.error == ""
    assert set(Path.cwd().iterdir()) == before


def test_it_sees_nothing_of_the_environment() -> None:
    assert apart("import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))").printed == "[]\n"


def test_it_tells_how_it_failed() -> None:
    assert apart("raise ValueError('no')").error == "ValueError: no"


def test_it_finds_modules_where_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text("WORD = 'hello'")
    assert apart("import greeting; print(greeting.WORD)", path=(str(tmp_path),)).printed == "hello\n"


def test_it_can_write_no_large_file() -> None:
    assert "Error" in apart("f = open('large', 'wb', 0); f.write(bytes(2**20)); f.write(b'more')").error
