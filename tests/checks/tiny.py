"""Labs of the tests' own, in a folder of theirs, on the real shop."""

from dataclasses import dataclass
from pathlib import Path

from shopfloor.databases import Size
from shopfloor.labs import Lab
from shopfloor.paths import material

ORDERS = "data/n_plus_one"
INDEXES = "data/indexing"

ORDERS_CHECKS = '''
from sqlalchemy import text

from shopfloor.checks.say import differs, wrong


def test_nothing_is_missing(database):
    """The database holds all orders."""
    orders, items = (database.scalar(text(f"SELECT count(*) FROM {name}")) for name in ("orders", "order_items"))
    if orders != 2000 or items < 2000:
        differs(did="counted the orders", got=f"{orders}, {items} items", expected="2000", matters="They are orders.")


def test_a_page_is_there(shop):
    """A page of three orders has three orders."""
    answer = shop.get("/v1/orders", limit=3)
    shown = len(answer.body["data"]) if answer.status == 200 else f"status {answer.status}"
    if shown == 0:
        wrong("an_empty_page", did=answer.did, got="no order", expected="three orders")
    if shown != 3:
        differs(did=answer.did, got=shown, expected="three orders", matters="A page shows what was asked for.")


def test_a_page_takes_few_statements(shop):
    """A page of three orders takes at most three statements."""
    answer = shop.get("/v1/orders", limit=3)
    if len(answer.statements) > 3:
        differs(
            did=answer.did,
            got=f"{len(answer.statements)} statements",
            expected="at most 3",
            matters="Each statement is a round trip to the database.",
        )
'''

INDEXES_CHECKS = '''
from shopfloor.checks.say import differs


def test_a_history_uses_an_index(tables):
    """A customer's orders are found by an index."""
    plan = tables.explain("SELECT * FROM orders WHERE customer_id = 7")
    if plan.uses("Seq Scan"):
        differs(did="asked for the orders of customer 7", got="all were read", expected="an index", matters="")
'''

PROCESS_CHECKS = '''
import pytest

from shopfloor.checks.learner import LearnerFailed


def test_a_command_runs(run):
    """A command of the shop ends well, and one that is none does not."""
    done, unknown, failed = run("settle"), run("nonsense"), run("settle", DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert (done.code, done.printed) == (0, "")
    assert unknown.code == 2 and "No such command" in unknown.printed
    assert failed.code == 1


def test_a_shop_is_killed(start):
    """A shop that is killed answers no more, and another can be started."""
    with start() as shop:
        assert shop.get("/livez").status == 200
        shop.kill()
        with pytest.raises(LearnerFailed, match="signal 9"):
            shop.get("/livez")
    with start() as shop:
        assert shop.get("/livez").status == 200
'''

EMPTY_PAGE = '''"""The page is empty.

In production nobody sees an order, and nobody sees an error either.

Read: "Pages" in the chapter N+1 queries.
"""


def orders_page(session, **_):
    return []


def order_detail(session, public_id):
    return None
'''


@dataclass(frozen=True)
class TinyLab(Lab):
    """A lab whose starter and solution lie beside its folder."""

    @property
    def starter(self) -> Path:
        return self.folder.parent / f"{self.folder.name}_starter.py"

    @property
    def solution(self) -> Path:
        return self.folder.parent / f"{self.folder.name}_solution.py"


def tiny_lab(folder: Path, address: str, checks: str, data: Size = "small") -> TinyLab:
    """A lab at an address of the shop, with these checks and the book's own starter and solution."""
    lab = TinyLab(
        address=address,
        folder=folder / address.partition("/")[2],
        title="A tiny lab",
        minutes=1,
        read=(),
        data=data,
        hints=("one", "two", "three"),
        covers=(),
    )
    lab.folder.mkdir(parents=True)
    lab.tests.write_text(checks)
    lab.starter.write_bytes((material().labs / "shop" / lab.file).read_bytes())
    lab.solution.write_bytes((material().solutions / "shop" / lab.file).read_bytes())
    return lab


def orders_lab(folder: Path) -> TinyLab:
    """The page of orders, with one mistake that its checks know."""
    lab = tiny_lab(folder, ORDERS, ORDERS_CHECKS)
    (lab.folder / "mistakes").mkdir()
    (lab.folder / "mistakes" / "an_empty_page.py").write_text(EMPTY_PAGE)
    return lab


def indexes_lab(folder: Path) -> TinyLab:
    """An index on a customer's orders."""
    return tiny_lab(folder, INDEXES, INDEXES_CHECKS)
