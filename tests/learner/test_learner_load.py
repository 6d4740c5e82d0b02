"""What `shopfloor load` says of two shops, and of an outage of what stands outside of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.errors import UserError
from shopfloor.labs import LabLoad, LabOutage, read_lab
from shopfloor.learner_load import in_words, page
from shopfloor.load import LoadResult, Second, Span
from shopfloor.paths import material
from tests.learner.tiny import LAB, Kit

ADDRESS = "data/n_plus_one"

OUTAGE = """
[load]
users = 4
seconds = 5
providers = ["payments", "delivery"]
outage = {provider = "payments", start = 1, end = 3, fault = "error 503"}
settings = {RATE_LIMIT_PER_ADDRESS = "20"}
"""

PENDING = """
load_data = "SELECT public_id FROM orders WHERE status = 'pending' AND total_amount > 0 ORDER BY id LIMIT 2000"
"""

SHOPPERS = """
import json, os
from pathlib import Path
from locust import FastHttpUser, constant, task

ORDERS = iter(json.loads(Path(os.environ["SHOPFLOOR_LOAD_DATA"]).read_text()))


class Visitor(FastHttpUser):
    wait_time = constant(0.05)

    @task
    def look(self):
        self.client.get("/v1/products?limit=1", name="/v1/products")


class Buyer(FastHttpUser):
    wait_time = constant(0.05)

    @task
    def pay(self):
        self.client.post(f"/v1/orders/{next(ORDERS)}/payments", name="/v1/payments")
"""


def toml(folder: Path, load: str) -> Path:
    path = folder / "lab.toml"
    path.write_text(LAB.format(title="A lab") + load)
    return path


@pytest.fixture
def lab_folder() -> Path:
    return material().labs / ADDRESS


@pytest.fixture
def paying_kit(kit: Kit) -> Iterator[Kit]:
    """The tiny kit, of which one lab's users also pay, and the payment provider fails for two seconds."""
    folder = kit.root / "labs" / ADDRESS
    kept = {path: path.read_bytes() for path in (folder / "lab.toml", folder / "load.py")}
    about = (folder / "lab.toml").read_text().partition("load_data")[0]
    (folder / "lab.toml").write_text(about + PENDING + OUTAGE)
    (folder / "load.py").write_text(SHOPPERS)
    kit.make()
    yield kit
    for path, content in kept.items():
        path.write_bytes(content)


def test_a_lab_says_how_it_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shopfloor.labs.material", lambda: type("Here", (), {"labs": tmp_path}))
    assert read_lab(toml(tmp_path, "")).load == LabLoad(16, 8, (), None)
    load = LabLoad(
        4, 5, ("payments", "delivery"), LabOutage("payments", 1, 3, "error 503"), {"RATE_LIMIT_PER_ADDRESS": "20"}
    )
    assert read_lab(toml(tmp_path, OUTAGE)).load == load


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("users = 4", "people = 4", "people"),
        ('"delivery"', '"postman"', "no provider is called postman"),
        ('["payments", "delivery"]', '["delivery"]', "which is not among the load's providers"),
        ("end = 3", "end = 6", "ends after the load's 5 seconds"),
        ("end = 3", "end = 2", "cannot last from second 1 to second 2"),
        ("start = 1", "start = 0", "cannot last from second 0 to second 3"),
        ('"20"', "20", "RATE_LIMIT_PER_ADDRESS is not text"),
    ],
)
def test_a_load_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old: str, new: str, message: str
) -> None:
    monkeypatch.setattr("shopfloor.labs.material", lambda: type("Here", (), {"labs": tmp_path}))
    with pytest.raises(UserError, match=message):
        read_lab(toml(tmp_path, OUTAGE.replace(old, new)))


def test_for_how_long_a_lab_is_checked_is_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shopfloor.labs.material", lambda: type("Here", (), {"labs": tmp_path}))
    with pytest.raises(UserError, match=r"lab\.toml is not a well-formed lab\.toml: .*'many'"):
        read_lab(toml(tmp_path, 'seconds = "many"\n'))


def run_of(before: int, during: int, failed: int) -> list[Second]:
    well = [Second(at, before, 0, 20.0, 40.0, 50.0) for at in range(6)]
    sick = [Second(at, during + failed, failed, None, None, None) for at in range(2, 4)]
    return [*well[:2], *sick, *well[4:]]


def outage() -> LoadResult:
    payments = {"naive": run_of(50, 0, 2), "yours": run_of(50, 400, 0)}
    spans = {name: {"payments: hang": Span("payments: hang", 2.001, 4.001)} for name in payments}
    requests = {name: {"POST /v1/payments": run} for name, run in payments.items()}
    return LoadResult(payments, 16, busy=False, requests=requests, spans=spans)


def test_an_outage_is_told_request_by_request() -> None:
    assert in_words(outage()).splitlines() == [
        "The naive shop: 33 answers a second, half of them within 20 ms, 95 of 100 within 40 ms, 4 failed.",
        "Yours: 167 answers a second, half of them within 20 ms, 95 of 100 within 40 ms.",
        "Yours answers 5.0 times as many.",
        "During the outage (payments: hang), seconds 2 to 4:",
        "POST /v1/payments, the naive shop: 50 answers a second before, 0 during, 4 failed.",
        "POST /v1/payments, yours: 50 answers a second before, 400 during.",
    ]


def test_requests_of_several_kinds_are_told_one_by_one() -> None:
    """What protects one kind of visitors from another shows in neither's sum."""
    asked = {
        "GET /v1/products": [Second(0, 9, 0, 5.0, 9.0, 9.0)],
        "GET /v1/bestsellers": [Second(0, 2, 1, 7.0, 8.0, 9.0)],
    }
    runs = {name: [Second(0, 11, 1, 5.0, 9.0, 9.0)] for name in ("naive", "yours")}
    result = LoadResult(runs, 16, busy=False, requests={"naive": asked, "yours": asked})
    one, other = "GET /v1/bestsellers", "GET /v1/products"
    assert in_words(result).splitlines()[3:] == [
        f"{one}, the naive shop: 1 answers a second, half of them within 7 ms, 95 of 100 within 8 ms, 1 failed.",
        f"{one}, yours: 1 answers a second, half of them within 7 ms, 95 of 100 within 8 ms, 1 failed.",
        f"{other}, the naive shop: 9 answers a second, half of them within 5 ms, 95 of 100 within 9 ms.",
        f"{other}, yours: 9 answers a second, half of them within 5 ms, 95 of 100 within 9 ms.",
    ]


def test_the_page_shows_an_outage_as_a_timeline_and_else_a_comparison(lab_folder: Path) -> None:
    lab = read_lab(lab_folder / "lab.toml")
    assert page(lab, "words", outage()).count(">payments: hang</text>") == 2
    calm = LoadResult(outage().runs, 16, busy=False)
    assert "median and 95th percentile" in page(lab, "words", calm)


@pytest.mark.slow
def test_load_puts_both_shops_through_the_labs_outage(paying_kit: Kit) -> None:
    done = paying_kit.run("load", ADDRESS)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "During the outage (payments: error 503), seconds 1 to 3:" in said
    for shop in ("the naive shop", "yours"):
        assert f"POST /v1/payments, {shop}: " in said
        assert f"GET /v1/products, {shop}: " in said
    _, naive, yours = said.split("POST /v1/payments, ")
    assert " failed." in naive, "its provider was sick"
    assert " failed." in yours, "so was this one's"
    drawn = paying_kit.root / f"workspace/load/{ADDRESS}.html"
    assert drawn.read_text().count(">payments: error 503</text>") == 2
