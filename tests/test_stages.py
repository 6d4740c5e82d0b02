import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from sqlalchemy import text

from shopfloor import databases, dependencies, stages
from shopfloor.errors import UserError
from shopfloor.paths import Material, material
from shopfloor.services import Services
from shopfloor.stages import build, serve
from tests.helpers import wait_until

APPLICATION = """
import json, os

def create_app():
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"environment": dict(os.environ), "shop": __file__}).encode()]
    return application
"""

DATABASE = """
from contextlib import contextmanager

class Engine:
    @contextmanager
    def begin(self):
        yield "a connection"

def make_engine(url):
    assert url == "postgresql://nowhere/shop"
    return Engine()

def create_indexes(connection):
    from shop.data.indexing import INDEXES
    for index in INDEXES:
        open("created", "a").write(index + " through " + connection)
"""


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Material:
    """Material with a shop of a few lines."""
    files = {
        "labs/shop/__init__.py": APPLICATION,
        "labs/shop/database.py": DATABASE,
        "labs/shop/data/__init__.py": "",
        "labs/shop/data/indexing.py": "INDEXES = ()",
        "labs/shop/data/n_plus_one.py": "NAIVE = True",
        "labs/shop/data/__pycache__/indexing.pyc": "x",
        "solutions/shop/data/indexing.py": "INDEXES = ('an index',)",
        "solutions/shop/data/n_plus_one.py": "NAIVE = False",
        "solutions/shop/data/__pycache__/indexing.pyc": "x",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(stages, "material", lambda: Material(tmp_path))
    return Material(tmp_path)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def test_the_naive_stage_is_the_shop_of_the_labs(kit: Material) -> None:
    stage = build("naive")
    assert stage.name == "naive"
    assert contents(stage.path) == contents(kit.labs)
    assert not list(stage.path.rglob("*.pyc"))


def test_the_solved_stage_has_all_solutions_over_it(kit: Material) -> None:
    stage = build("solved")
    assert stage.name == "solved"
    assert contents(stage.path) == contents(kit.labs) | contents(kit.solutions)


def test_named_topics_alone_are_solved(kit: Material) -> None:
    stage = build(["data/indexing"])
    assert stage.name == "data/indexing"
    solved = {"shop/data/indexing.py": "INDEXES = ('an index',)"}
    assert contents(stage.path) == contents(kit.labs) | solved
    assert build(["data/n_plus_one", "data/indexing"]).name == "data/indexing+data/n_plus_one"
    assert build([]).name == "naive"


def test_a_stage_knows_what_it_was_made_of_and_the_page_is_told(kit: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[Path] = []
    monkeypatch.setattr(dependencies, "note", lambda *paths: noted.extend(paths))
    stage = build(["data/indexing"])
    sources = {str(path.relative_to(kit.root)) for path in stage.sources}
    assert sources == {
        "labs/shop/__init__.py",
        "labs/shop/database.py",
        "labs/shop/data/__init__.py",
        "labs/shop/data/n_plus_one.py",
        "solutions/shop/data/indexing.py",
    }
    assert set(noted) == set(stage.sources)


def test_the_same_content_is_the_same_folder_and_other_content_another(kit: Material) -> None:
    first = build(["data/indexing"])
    assert build(["data/indexing"]).path == first.path
    (kit.solutions / "shop/data/indexing.py").write_text("INDEXES = ('another',)")
    second = build(["data/indexing"])
    assert second.path != first.path
    assert "another" in (second.path / "shop/data/indexing.py").read_text()
    assert "an index" in (first.path / "shop/data/indexing.py").read_text()


def test_stages_made_at_the_same_time_do_not_collide(kit: Material) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: build("solved"), range(24)))
    assert len({stage.path for stage in made}) == 1
    assert contents(made[0].path) == contents(kit.labs) | contents(kit.solutions)
    assert [path.name for path in (kit.state / "stages").iterdir()] == [made[0].path.name]


def test_an_unknown_topic_names_the_ones_like_it(kit: Material) -> None:
    with pytest.raises(UserError, match=r"No topic data/indexng .* Did you mean data/indexing\?"):
        build(["data/indexng"])
    with pytest.raises(UserError, match=r"There are: data/indexing, data/n_plus_one\."):
        build(["zzz"])


def test_one_topic_without_its_list_is_explained(kit: Material) -> None:
    with pytest.raises(UserError, match=r'write \["data/indexing"\]'):
        build("data/indexing")  # type: ignore[arg-type]


def test_a_stage_is_served_from_its_folder_with_nothing_else_of_the_environment(
    kit: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    stage = build(["data/indexing"])
    with serve(
        stage, database_url="postgresql://nowhere/shop", settings={"PAYMENTS_URL": "http://127.0.0.1:1"}
    ) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.stage == stage
        answer = get(f"{server.url}/livez")
    environment = answer["environment"]
    assert answer["shop"] == str(stage.path / "shop/__init__.py")
    assert environment["DATABASE_URL"] == "postgresql://nowhere/shop"
    assert environment["PAYMENTS_URL"] == "http://127.0.0.1:1"
    assert not {"A_SECRET", "REDIS_URL", "HOME"} & set(environment)


def test_the_server_ends_with_the_block(kit: Material) -> None:
    with serve(build("naive"), database_url="postgresql://nowhere/shop") as server:
        tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        assert len(tree) >= 2
    wait_until(lambda: not any(process.is_running() for process in tree))
    assert not list(server.stage.path.glob("*.log"))


def test_two_servers_of_one_stage_at_once(kit: Material) -> None:
    stage = build("naive")
    url = "postgresql://nowhere/shop"
    with serve(stage, database_url=url) as one, serve(stage, database_url=url, workers=2) as other:
        assert one.url != other.url
        assert get(one.url)["shop"] == get(other.url)["shop"]
        wait_until(lambda: len(psutil.Process(other.pid).children()) == 2)


def test_a_server_is_ready_when_all_of_its_workers_are(kit: Material) -> None:
    # The second to come up waits until the first has answered: whoever took that for all would not see the second.
    second_is_slow = """
import os, time
try:
    os.close(os.open("first", os.O_CREAT | os.O_EXCL))
except FileExistsError:
    deadline = time.monotonic() + 30
    while not os.path.exists("answered") and time.monotonic() < deadline:
        time.sleep(0.005)
    open("second", "w").close()
"""
    application = APPLICATION.replace(
        "        start_response", "        open('answered', 'w').close()\n        start_response"
    )
    (kit.labs / "shop" / "__init__.py").write_text(
        application.replace("def create_app():", second_is_slow + "\ndef create_app():")
    )
    stage = build("naive")
    with serve(stage, database_url="postgresql://nowhere/shop", workers=2, create_indexes=False):
        assert (stage.path / "second").exists()


def test_a_stage_served_over_http2_answers_http1_as_well(kit: Material) -> None:
    with serve(build("naive"), database_url="postgresql://nowhere/shop", http2=True) as server:
        tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        for http2 in (True, False):
            with httpx2.Client(http1=not http2, http2=http2) as client:
                answer = client.get(server.url)
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")
    wait_until(lambda: not any(process.is_running() for process in tree))


def test_its_own_indexes_are_created_first_unless_they_are_not_wanted(kit: Material) -> None:
    stage = build(["data/indexing"])
    with serve(stage, database_url="postgresql://nowhere/shop", create_indexes=False):
        assert not (stage.path / "created").exists()
    with serve(stage, database_url="postgresql://nowhere/shop"):
        assert (stage.path / "created").read_text() == "an index through a connection"


def test_a_shop_that_does_not_start_says_why(kit: Material) -> None:
    (kit.labs / "shop/__init__.py").write_text("raise RuntimeError('the till is jammed')")
    with (
        pytest.raises(UserError, match="the till is jammed"),
        serve(build("naive"), database_url="postgresql://nowhere/shop", create_indexes=False),
    ):
        pass


def test_indexes_that_cannot_be_created_say_why(kit: Material) -> None:
    (kit.solutions / "shop/data/indexing.py").write_text("INDEXES = 1 / 0")
    with (
        pytest.raises(UserError, match=r"indexes of the data/indexing shop could not be created[\s\S]*ZeroDivision"),
        serve(build(["data/indexing"]), database_url="postgresql://nowhere/shop"),
    ):
        pass


@pytest.fixture
def database(services: Services) -> Iterator[databases.Database]:
    with databases.clone(services, "small") as database:
        yield database


def indexes(database: databases.Database) -> set[str]:
    with database.engine.connect() as connection:
        return set(connection.scalars(text("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")))


@pytest.mark.slow
@pytest.mark.parametrize("topics", ["naive", "solved", ["data/indexing"], ["data/n_plus_one"]])
def test_the_real_shop_is_served_at_each_stage(
    services: Services, database: databases.Database, topics: str | list[str]
) -> None:
    before = indexes(database)
    stage = build(topics)  # type: ignore[arg-type]
    with serve(stage, database_url=database.url, redis_url=services.redis_url) as server:
        page = get(f"{server.url}/v1/orders?limit=7")
    (orders,) = (value for value in page.values() if isinstance(value, list))
    assert len(orders) == 7
    own = "data/indexing" in topics or topics == "solved"
    assert bool(indexes(database) - before) is own


def test_the_kits_own_stages_differ() -> None:
    paths = {build("naive").path, build("solved").path, build(["data/indexing"]).path, build(["data/n_plus_one"]).path}
    assert len(paths) == 4
    assert all(path.parent == material().state / "stages" for path in paths)
