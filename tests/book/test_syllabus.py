"""The syllabus: what it holds, and what is said of a broken one."""

from pathlib import Path

import pytest

from shopfloor import syllabus
from shopfloor.errors import UserError

GOOD = "documents: {P: {title: T, subject: S, sections: {P1.1: {title: A, chapter: data/a, points: [one, two]}}}}"


def test_the_books_own_syllabus_is_well_formed() -> None:
    loaded = syllabus.load()
    assert list(loaded.documents) == ["U", "M", "P", "C", "D"]
    assert loaded.point("P2.1.1").text == "index WHERE columns"
    assert loaded.point("P2.1.1").chapter == "data/indexing"
    assert len(loaded.points) == sum(len(document.points) for document in loaded.documents.values())


def test_points_are_numbered_from_one_in_order(tmp_path: Path) -> None:
    loaded = syllabus.load(written(tmp_path, GOOD))
    assert [(point.id, point.text) for point in loaded.documents["P"].points] == [("P1.1.1", "one"), ("P1.1.2", "two")]


def test_an_unknown_point_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        syllabus.load(written(tmp_path, GOOD)).point("P1.1.3")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("documents: [", "is not YAML"),
        ("[]", "the file is a mapping"),
        ("documents: {}", "documents is a mapping"),
        (GOOD.replace("{P:", "{Pp:"), "one capital letter, not 'Pp'"),
        (GOOD.replace("P1.1:", "U1.1:"), "an id like P2.1, not 'U1.1'"),
        (GOOD.replace("P1.1:", "P1-1:"), "an id like P2.1, not 'P1-1'"),
        (GOOD.replace("title: A, ", ""), "P1.1: title is missing"),
        (GOOD.replace("data/a", "data"), "not 'data'"),
        (GOOD.replace("[one, two]", "[]"), "P1.1: points is a list"),
        (GOOD.replace("[one, two]", "[one, {two: 2}]"), "P1.1.2 is a line of text"),
        (GOOD.replace("subject: S, ", ""), "P: subject is missing"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(tmp_path: Path, text: str, complaint: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as refused:
        syllabus.load(path)
    assert complaint in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        syllabus.load(tmp_path / "none.yml")


def written(folder: Path, text: str) -> Path:
    path = folder / "syllabus.yml"
    path.write_text(text, encoding="utf8")
    return path
