"""The learner's folder: what each command does with their files."""

from pathlib import Path

import pytest

from shopfloor import workspace as module
from shopfloor.errors import UserError
from shopfloor.workspace import Kind, Workspace, merge

SHOP = {
    "__init__.py": '"""The shop."""\n',
    "data/indexing.py": "ONE = 1\n\nTWO = 2\n\nTHREE = 3\n",
    "models.py": "class Order:\n    pass\n",
}


def write(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    write(tmp_path / "kit", SHOP)
    write(tmp_path / "kit", {"__pycache__/models.cpython-311.pyc": "rubbish"})
    return tmp_path / "kit"


@pytest.fixture
def place(tmp_path: Path, kit: Path) -> Workspace:
    made = Workspace(tmp_path / "workspace", kit)
    assert made.make()
    return made


def test_it_is_a_copy_of_the_shop_and_is_made_once(place: Workspace) -> None:
    assert {path.relative_to(place.shop).as_posix() for path in place.shop.rglob("*.py")} == set(SHOP)
    assert not list(place.shop.rglob("*.pyc"))
    place.file("models.py").write_text("mine\n")
    assert not place.make()
    assert place.file("models.py").read_text() == "mine\n"


def test_notebooks_in_the_folder_do_not_hinder_its_making(tmp_path: Path, kit: Path) -> None:
    write(tmp_path / "workspace", {"notebooks/a.ipynb": "{}"})
    assert Workspace(tmp_path / "workspace", kit).make()
    assert (tmp_path / "workspace/notebooks/a.ipynb").exists()


def test_a_deleted_shop_is_made_anew(place: Workspace) -> None:
    place.shop.rename(place.folder / "elsewhere")
    assert place.make()
    assert place.outdated() == []


def test_reset_keeps_a_copy_and_says_where(place: Workspace) -> None:
    file = place.file("data/indexing.py")
    file.write_text("mine\n")
    copy = place.reset("data/indexing.py")
    assert copy
    assert copy.read_text() == "mine\n"
    assert copy.relative_to(place.state / "kept").parts[1:] == ("shop", "data", "indexing.py")
    assert file.read_text() == SHOP["data/indexing.py"]
    assert place.reset("data/indexing.py") is None, "nothing was replaced"


def test_copies_of_the_same_second_do_not_replace_each_other(place: Workspace) -> None:
    for number in range(5):
        place.put("models.py", f"number {number}\n".encode())
    texts = [copy.read_text() for copy in place.copies("models.py")]
    assert sorted(texts) == sorted([SHOP["models.py"], *(f"number {number}\n" for number in range(4))])


def test_reset_brings_a_deleted_file_back(place: Workspace) -> None:
    place.file("models.py").unlink()
    assert place.reset("models.py") is None
    assert place.file("models.py").read_text() == SHOP["models.py"]


def test_the_mode_of_a_file_stays(place: Workspace) -> None:
    place.file("models.py").chmod(0o600)
    place.put("models.py", b"other\n")
    assert place.file("models.py").stat().st_mode & 0o777 == 0o600


def test_a_save_in_the_last_moment_is_kept(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The learner saves between the copy being kept and the file being replaced."""
    file, write_beside = place.file("models.py"), module.files._write_beside
    saves = iter(["first\n", "second\n"])

    def save_first(path: Path, content: bytes) -> Path:
        if path == file and (text := next(saves, None)):
            file.write_text(text)
        return write_beside(path, content)

    monkeypatch.setattr(module.files, "_write_beside", save_first)
    place.put("models.py", b"the kit's\n")
    kept = {copy.read_text() for copy in place.copies("models.py")}
    assert kept == {SHOP["models.py"], "first\n", "second\n"}
    assert file.read_text() == "the kit's\n"


def test_update_merges_what_does_not_meet(place: Workspace, kit: Path) -> None:
    file = place.file("data/indexing.py")
    file.write_text("ONE = 1\n\nTWO = 2\n\nTHREE = 'mine'\n")
    write(kit, {"data/indexing.py": "ONE = 'kit'\n\nTWO = 2\n\nTHREE = 3\n"})
    assert place.outdated() == ["data/indexing.py"]
    (outcome,) = place.update()
    assert outcome.kind is Kind.MERGED
    assert outcome.copy
    assert "THREE = 'mine'" in outcome.copy.read_text()
    assert file.read_text() == "ONE = 'kit'\n\nTWO = 2\n\nTHREE = 'mine'\n"
    assert place.outdated() == []
    assert place.update() == []


def test_update_leaves_a_file_that_conflicts_and_offers_the_new_one(place: Workspace, kit: Path) -> None:
    file = place.file("data/indexing.py")
    file.write_text("ONE = 'mine'\n\nTWO = 2\n\nTHREE = 3\n")
    write(kit, {"data/indexing.py": "ONE = 'kit'\n\nTWO = 2\n\nTHREE = 3\n"})
    (outcome,) = place.update()
    assert outcome.kind is Kind.OFFERED
    assert outcome.why == "you and the kit changed the same lines"
    assert outcome.copy
    assert outcome.copy.read_text().startswith("ONE = 'kit'")
    assert file.read_text().startswith("ONE = 'mine'")
    assert place.update() == [], "it is offered once"


def test_update_leaves_a_file_that_the_merge_would_break(place: Workspace, kit: Path) -> None:
    """Their changes do not meet, but Python cannot read both together: the learner put all of it into a string."""
    mine = f'"""\n{SHOP["data/indexing.py"]}"""\n'
    place.file("data/indexing.py").write_text(mine)
    write(kit, {"data/indexing.py": SHOP["data/indexing.py"].replace("TWO = 2", 'TWO = """two"""')})
    (outcome,) = place.update()
    assert outcome.kind is Kind.OFFERED
    assert outcome.why == "with the kit's changes in it Python could not read it"
    assert place.file("data/indexing.py").read_text() == mine


def test_update_follows_an_untouched_file_and_adds_and_removes(place: Workspace, kit: Path) -> None:
    write(kit, {"models.py": "new\n", "api/more.py": "more\n"})
    (kit / "data/indexing.py").unlink()
    outcomes = {outcome.name: outcome.kind for outcome in place.update()}
    assert outcomes == {"models.py": Kind.UPDATED, "api/more.py": Kind.ADDED, "data/indexing.py": Kind.REMOVED}
    assert place.file("models.py").read_text() == "new\n"
    assert place.file("api/more.py").read_text() == "more\n"
    assert not place.file("data/indexing.py").exists()


def test_update_leaves_a_changed_file_that_the_kit_no_longer_has(place: Workspace, kit: Path) -> None:
    place.file("models.py").write_text("mine\n")
    (kit / "models.py").unlink()
    assert [outcome.kind for outcome in place.update()] == [Kind.STAYS]
    assert place.file("models.py").read_text() == "mine\n"


def test_update_does_not_bring_a_deleted_file_back(place: Workspace, kit: Path) -> None:
    place.file("models.py").unlink()
    assert place.update() == []
    write(kit, {"models.py": "new\n"})
    (outcome,) = place.update()
    assert outcome.kind is Kind.OFFERED
    assert outcome.why == "you deleted the file"
    assert not place.file("models.py").exists()


def test_update_leaves_a_file_of_the_learners_own(place: Workspace, kit: Path) -> None:
    place.file("own.py").write_text("mine\n")
    write(kit, {"own.py": "the kit's\n"})
    assert [outcome.kind for outcome in place.update()] == [Kind.OFFERED]
    assert place.file("own.py").read_text() == "mine\n"


@pytest.mark.parametrize("blocked", ["models.py", "data"])
def test_update_leaves_what_the_learner_made_of_a_name(place: Workspace, kit: Path, blocked: str) -> None:
    path = place.file(blocked)
    path.rename(place.folder / "away")
    if blocked == "data":
        path.write_text("a file, not a folder\n")
    else:
        path.mkdir()
    write(kit, {"models.py": "new\n", "data/indexing.py": "new\n", "data/more.py": "more\n"})
    outcomes = {outcome.name: outcome.kind for outcome in place.update()}
    assert outcomes["models.py" if blocked == "models.py" else "data/more.py"] is Kind.OFFERED
    assert place.update() == []


def test_without_a_base_nothing_of_the_learners_is_merged(place: Workspace, kit: Path) -> None:
    place.file("models.py").write_text("mine\n")
    place.base.parent.rename(place.folder / "lost")
    assert [(outcome.name, outcome.kind) for outcome in place.update()] == [("models.py", Kind.OFFERED)]


def test_line_ends_of_another_system_are_no_conflict() -> None:
    merged, _ = merge(b"a\nb\nc\n", b"a\r\nb\r\nmine\r\n", b"kit\nb\nc\n")
    assert merged == b"kit\r\nb\r\nmine\r\n"


def test_what_the_system_refuses_is_said_in_words(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    place.file("models.py").write_text("mine\n")
    monkeypatch.setattr(module.files, "_write_new", refuse)
    with pytest.raises(UserError, match=r"No space left on device. No line of yours was lost"):
        place.reset("models.py")
    assert place.file("models.py").read_text() == "mine\n"
