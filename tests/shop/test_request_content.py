"""Pictures and the catalogue, over HTTP: as the learner meets them, and solved."""

import io
import json
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, text
from werkzeug.test import TestResponse

from shop import scanning
from shop.foundations import request_content
from shopfloor.databases import Database
from tests.shop.helpers import load_solution, make_app

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
LIMIT = 10_000


@pytest.fixture(params=["naive", "solved"])
def client(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    database: Database,
    connection: Connection,
) -> FlaskClient:
    """The tests run twice: with the naive file, and with the solution's."""
    if request.param == "solved":
        monkeypatch.setattr(request_content, "init_app", load_solution("foundations/request_content").init_app)
    limits = {"upload_limit_bytes": LIMIT, "body_limit_bytes": LIMIT}
    return make_app(database.url, connection, uploads_folder=tmp_path / "uploads", **limits).test_client()


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch, database: Database, connection: Connection) -> FlaskClient:
    monkeypatch.setattr(request_content, "init_app", load_solution("foundations/request_content").init_app)
    return make_app(database.url, connection).test_client()


@pytest.fixture
def product(connection: Connection) -> tuple[str, str]:
    """The id and the SKU of one."""
    row = connection.execute(text("SELECT public_id, sku FROM products ORDER BY id LIMIT 1")).one()
    return str(row.public_id), row.sku


def upload(client: FlaskClient, product_id: str, content: bytes) -> TestResponse:
    form = {"picture": (io.BytesIO(content), "kettle.png", "image/png")}
    return client.post(f"/v1/products/{product_id}/pictures", data=form)


def test_a_picture_comes_back(client: FlaskClient, product: tuple[str, str], tmp_path: Path) -> None:
    answer = upload(client, product[0], PNG)
    assert answer.status_code == 201
    assert answer.json["media_type"] == "image/png"
    assert answer.json["size"] == len(PNG)
    assert answer.headers["Location"] == answer.json["url"]
    with client.get(answer.json["url"]) as served:
        assert served.data == PNG
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.parent == tmp_path / "uploads" / "pictures"


def test_what_is_no_picture_of_a_product_is_refused(client: FlaskClient, product: tuple[str, str]) -> None:
    assert upload(client, "00000000-0000-0000-0000-000000000000", PNG).status_code == 404
    assert upload(client, product[0], PNG + bytes(LIMIT)).status_code == 413
    assert upload(client, product[0], PNG + scanning.MARK).status_code == 422
    assert client.post(f"/v1/products/{product[0]}/pictures", json={}).status_code in {400, 422}
    assert client.get("/v1/pictures/nothing.png").status_code == 404


@pytest.mark.parametrize("media_type", ["application/json", "text/csv", "application/xml"])
def test_a_list_renames(client: FlaskClient, product: tuple[str, str], connection: Connection, media_type: str) -> None:
    sku = product[1]
    body = {
        "application/json": json.dumps({"data": [{"sku": sku, "name": "Kettle"}]}),
        "text/csv": f"sku,name\r\n{sku},Kettle\r\n",
        "application/xml": f'<products><product sku="{sku}">Kettle</product></products>',
    }[media_type]
    answer = client.post("/v1/catalogue", data=body, content_type=media_type)
    assert answer.json == {"data": [{"sku": sku, "name": "Kettle"}], "meta": {"count": 1}}
    named = text("SELECT name, version FROM products WHERE sku = :sku")
    assert tuple(connection.execute(named, {"sku": sku}).one()) == ("Kettle", 2)


def test_an_unknown_product_is_refused(client: FlaskClient) -> None:
    answer = client.post("/v1/catalogue", data="sku,name\r\nNO-SUCH,Kettle\r\n", content_type="text/csv")
    assert answer.status_code == 422


def test_the_catalogue_is_json_or_csv(client: FlaskClient) -> None:
    listed = client.get("/v1/catalogue").json
    table = client.get("/v1/catalogue", headers={"Accept": "text/csv"})
    assert table.mimetype == "text/csv"
    assert len(table.text.splitlines()) == listed["meta"]["count"] + 1
    first = listed["data"][0]
    assert table.text.splitlines()[1].startswith(first["sku"])


def test_the_scanner_finds_its_mark_wherever_it_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for before in (0, 1, scanning.CHUNK - 10, scanning.CHUNK, 3 * scanning.CHUNK - 1):
        file.write_bytes(bytes(before) + scanning.MARK + bytes(5))
        assert scanning.scan(file, 10**8) == "Eicar-Test-Signature"
    file.write_bytes(scanning.MARK[:-1])
    assert scanning.scan(file, 100) is None
    with pytest.raises(scanning.NotScanned):
        scanning.scan(file, 5)


@pytest.mark.parametrize("text", ["", "{}", "sku;name\r\n"])
def test_a_csv_list_without_its_columns_is_none(solved: FlaskClient, text: str) -> None:
    answer = solved.post("/v1/catalogue", data=text, content_type="text/csv")
    assert answer.status_code == 400
