"""Checks of `api/rate_limiting`.

They ask several processes of the shop over HTTP as several callers, turn the clock of one of them, take Valkey away,
and look into it. None of them looks at the file. The clock that counts is Valkey's, which nobody can turn; so where the
length of a window is the point it is short, and a check compares only what must be so however slow the machine is:
between sending the first of some requests and having the answer to the last there was less than a window, or more.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import count
from uuid import UUID

import pytest
from redis import Redis

from shopfloor.checks import waiting
from shopfloor.checks.judge import StartShop
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop

USER, ADDRESS = 5, 3  # most requests in a window, of a user and of an address
WINDOW = 60  # seconds
FEW = 3  # most requests of a user in a short window: the fewer, the sooner they have all come
SHORT_WINDOWS = (0.3, 1.0, 3.5)  # seconds: the next one only when the machine was too slow for the last
SLACK = 0.005  # seconds: Valkey's expiry counts in milliseconds
PATIENT, SHORT = "4", "0.2"  # seconds that a shop waits for Valkey: so long that none is lost, and so short
TOO_LONG = 2.0  # seconds to an answer without Valkey: ten times the short one
PATIENCE = 1.5  # seconds until what must happen at once has not happened
until = partial(waiting.until, patience=PATIENCE)
TOGETHER = 6  # requests at once at each of two workers
KEYS = [f"key-of-user-{number}-7d3f" for number in range(400)]
PATH = f"/v1/products/{UUID(int=0xABCDEF)}"  # there is none: the cheapest answer of the shop
ANSWERED = 404  # what it is


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """Small limits, many users, and a proxy in front."""
    return {
        "RATE_LIMIT_PER_USER": str(USER),
        "RATE_LIMIT_PER_ADDRESS": str(ADDRESS),
        "RATE_LIMIT_WINDOW_SECONDS": str(WINDOW),
        "API_KEYS": ",".join(KEYS),
        "TRUSTED_PROXIES": "127.0.0.0/8,10.0.0.0/8",
        "CACHE_TIMEOUT_SECONDS": PATIENT,
    }


@pytest.fixture(scope="session", autouse=True)
def scenes(start: StartShop) -> Iterator["Scenes"]:
    """What takes time and no work is played beside the checks."""
    with ThreadPoolExecutor(3) as run:
        outages = [run.submit(play_outage, start, fail_open) for fail_open in ("true", "false")]
        yield Scenes(run.submit(play_windows, start), *outages)


@pytest.fixture(scope="session")
def other(start: StartShop) -> Iterator[Shop]:
    """A second worker, which nobody has told of a proxy."""
    with start(TRUSTED_PROXIES="") as shop:
        yield shop


# --- Callers ----------------------------------------------------------------------------------------------------------

Headers = Mapping[str, str]
_users = count()
_addresses = count(1)


def user() -> Headers:
    """One who has not asked before."""
    return {"X-API-Key": KEYS[next(_users)]}


def address() -> str:
    """One that nobody has asked from before."""
    return f"203.0.113.{next(_addresses)}"


def forwarded(*hops: str) -> Headers:
    """As a proxy in front of the shop would pass a request on."""
    return {"X-Forwarded-For": ", ".join(hops)}


def ask(shop: Shop, caller: Headers, times: int = 1, path: str = PATH) -> list[Answer]:
    """Ask so often, one after another."""
    return [shop.ask(Request("GET", path, headers=caller)) for _ in range(times)]


def passes(answer: Answer) -> bool:
    """Whether a request was let through.

    Raises:
        NotRight: it was neither let through nor refused.
    """
    if answer.status not in {ANSWERED, 429}:
        differs(
            did=answer.did,
            got=answer.status,
            expected=f"{ANSWERED}, as there is no such product, or 429",
            matters="A limit lets a request through as it is, or refuses it.",
        )
    return answer.status == ANSWERED


# --- One caller at one worker -----------------------------------------------------------------------------------------


def test_so_many_and_no_more(shop: Shop) -> None:
    """A user may ask as often as the limit says, and no more."""
    answers = ask(shop, user(), USER + 3)
    let_through = sum(map(passes, answers))
    told = [answer.headers.get("x-ratelimit-remaining") for answer in answers]
    did = f"GET {PATH} {len(answers)} times at once, with the key of one user, of whom {USER} are let through"
    if let_through > USER and len(set(told) - {None}) < let_through and None not in told:
        wrong(
            "same_moment_counts_once",
            did=did,
            got=f"{let_through} were let through, and X-RateLimit-Remaining said {', '.join(map(str, told))}",
            expected=f"{USER}, each counted",
        )
    if let_through != USER:
        differs(
            did=did,
            got=f"{let_through} were let through",
            expected=USER,
            matters="A limit that is not kept protects nobody, and one that is kept too early turns users away.",
        )


def test_the_headers_say_where_one_stands(shop: Shop, scenes: "Scenes") -> None:
    """Each answer says how much may be asked, how much is left, and when there is more."""
    caller, began = user(), time.time()
    for number in range(USER + 1):
        (answer,) = ask(shop, caller)
        remaining = max(0, USER - 1 - number)
        did = f"request {number + 1} of a user who has {USER}: {answer.did}"
        limits = {"x-ratelimit-limit": str(USER), "x-ratelimit-remaining": str(remaining)}
        shown = {name: answer.headers.get(name) for name in (*limits, "x-ratelimit-reset")}
        for name, expected in limits.items():
            if shown[name] != expected:
                differs(
                    did=did,
                    got=f"{name}: {shown[name]}",
                    expected=f"{name}: {expected}",
                    matters="A client that wants to behave slows down by these; by wrong ones it does so too late.",
                )
        reset = require_moment(did, shown["x-ratelimit-reset"])
        if reset < began + WINDOW - 2 * SLACK:
            test_the_window_slides(scenes)  # which says why, if there is room as early as that
            differs(
                did=did,
                got=f"X-RateLimit-Reset: {reset}, {began + WINDOW - reset:.2f} s before there is room for one more",
                expected=f"{math.ceil(began + WINDOW)}: when the oldest request leaves the window, rounded up",
                matters="Whoever comes back then is refused once more.",
            )


def require_moment(did: str, reset: str | None) -> int:
    """X-RateLimit-Reset, if it is a time of day within the next window.

    Raises:
        NotRight: it is not.
    """
    now = time.time()
    expected = f"a time of day as Unix seconds, {now:.0f} to {now + WINDOW + 1:.0f}"
    if reset is not None and reset.isdigit() and int(reset) <= WINDOW + 1:
        wrong("reset_is_a_duration", did=did, got=f"X-RateLimit-Reset: {reset}", expected=expected)
    if reset is None or not reset.isdigit() or not now - 1 <= int(reset) <= now + WINDOW + 1:
        differs(
            did=did,
            got=f"X-RateLimit-Reset: {reset}",
            expected=expected,
            matters="It tells a client when to come back.",
        )
    return int(reset)


def test_a_refusal_says_when_to_come_back(shop: Shop, scenes: "Scenes") -> None:
    """A refusal is a problem document that says in Retry-After how long to wait, and not less."""
    caller = user()
    began = time.monotonic()
    *_, refusal = ask(shop, caller, USER + 1)
    least = WINDOW - (time.monotonic() - began)  # so long at least until the first one leaves the window
    require_problem(refusal, 429)
    told = refusal.headers.get("retry-after", "")
    seconds = seconds_of(told)
    if seconds is None or not 1 <= seconds <= WINDOW + 1:
        differs(
            did=f"one request too many: {refusal.did}",
            got=f"Retry-After: {told or 'missing'}",
            expected=f"seconds from now, 1 to {WINDOW}, or a date",
            matters="Without it clients come back at once, all of them.",
        )
    if seconds < least - 0.05:
        did = f"{USER} requests within a moment, and one more: {refusal.did}"
        got = f"Retry-After: {told}, though there is no room for another {least:.2f} s"
        if seconds > least - 1.5:
            wrong("rounds_down", did=did, got=got, expected=f"{WINDOW}: rounded up")
        test_the_window_slides(scenes)  # which says why, if there is room as early as it was told
        differs(
            did=did,
            got=got,
            expected=WINDOW,
            matters="A client that does as it is told comes back, and is refused again.",
        )


def seconds_of(told: str) -> float | None:
    """Retry-After in either of its forms, RFC 9110, 10.2.3."""
    if told.isdigit():
        return int(told)
    try:
        return parsedate_to_datetime(told).timestamp() - time.time() + 1  # a date has no fractions
    except ValueError:
        return None


def require_problem(answer: Answer, status: int) -> None:
    """Go on if an answer is a problem document with this status.

    Raises:
        NotRight: it is not.
    """
    kind = answer.headers.get("content-type", "")
    body = answer.body if isinstance(answer.body, dict) else {}
    if answer.status != status or kind != "application/problem+json" or body.get("status") != status:
        differs(
            did=f"a request that is to be refused: {answer.did}",
            got=f"{answer.status}, {kind or 'no Content-Type'}: {str(answer.body)[:80]}",
            expected=f"{status}, application/problem+json, with status {status} in it as well",
            matters="Clients read the errors of this shop in one form, also when they are told to wait.",
        )


def test_whatever_is_asked_counts(shop: Shop) -> None:
    """Requests for different pages are counted together."""
    caller = user()
    paths = [f"/v1/products/{UUID(int=number)}" for number in range(1, USER + 1)]
    for path in paths:
        ask(shop, caller, path=path)
    (answer,) = ask(shop, caller, path="/v1/products?limit=1")
    if answer.status != 429:
        wrong(
            "counted_by_path",
            did=f"GET of {USER} products, and then {answer.did}, all by one user",
            got=answer.status,
            expected=429,
        )


def test_the_shop_can_be_watched(shop: Shop) -> None:
    """The probes are answered however much was asked from where they come."""
    ask(shop, {}, ADDRESS + 1)
    for path in ("/livez", "/readyz", "/metrics"):
        answer = shop.get(path)
        if answer.status == 429:
            wrong(
                "probes_are_limited",
                did=f"{ADDRESS + 1} requests from 127.0.0.1, then {answer.did} from there",
                got=429,
                expected=200,
            )


# --- Who it is --------------------------------------------------------------------------------------------------------


def test_nobody_chooses_an_address(shop: Shop, other: Shop) -> None:
    """X-Forwarded-For is believed as far as our own proxies wrote it."""
    answers = [answer for _ in range(ADDRESS + 1) for answer in ask(other, forwarded(address()))]
    if passes(answers[-1]):
        wrong(
            "believes_forwarded_for",
            did=f"GET {PATH} {len(answers)} times at a shop without a proxy, with another X-Forwarded-For each time",
            got="all were let through",
            expected=f"{ADDRESS}: the header is the caller's own invention",
        )
    one, two = address(), address()
    ask(shop, forwarded(one), ADDRESS)
    for hops in ((two,), (address(), "10.0.0.7")):
        (answer,) = ask(shop, forwarded(*hops))
        if not passes(answer):
            wrong(
                "counts_the_proxy",
                did=f"exhausted {one} behind our proxy, then {answer.did} with X-Forwarded-For: {', '.join(hops)}",
                got=429,
                expected=f"{ANSWERED}: somebody else, who asks through the same proxy",
            )
        ask(shop, forwarded(*hops), ADDRESS - 1)
    (answer,) = ask(shop, forwarded(one))
    if passes(answer):
        differs(
            did=f"GET {PATH} {ADDRESS + 1} times through our proxy, from one address",
            got="all were let through",
            expected=f"{ADDRESS}",
            matters="Who asks too much from behind a proxy asks too much.",
        )
    here = address()
    answers = [answer for _ in range(ADDRESS + 1) for answer in ask(shop, forwarded(address(), here))]
    if passes(answers[-1]):
        wrong(
            "believes_the_first_address",
            did=f"GET {PATH} {len(answers)} times through our proxy from {here}, with an invented address before it in"
            " X-Forwarded-For",
            got="all were let through",
            expected=f"{ADDRESS}: our proxy wrote the last entry, the caller what stands before it",
        )
    ask(shop, forwarded("unknown"))  # must not be an error
    passes(*ask(shop, forwarded(address(), "not-an-address")))


def test_addresses_of_both_kinds(shop: Shop) -> None:
    """A subscriber's IPv6 network counts as one address, and an IPv4 address as one however it is written."""
    site = [f"2001:db8:0:2:{4 * number:x}000::1" for number in range(ADDRESS + 1)]
    answers = [answer for each in site for answer in ask(shop, forwarded(each))]
    if passes(answers[-1]):
        wrong(
            "each_address_of_a_subscriber",
            did=f"GET {PATH} from {', '.join(site)}",
            got="all were let through",
            expected=f"{ADDRESS}: they are in one /64, which a single subscriber has",
        )
    if not passes(*ask(shop, forwarded("2001:db8:0:3::1"))):
        differs(
            did=f"exhausted {site[0]}, then GET {PATH} from 2001:db8:0:3::1",
            got=429,
            expected=f"{ANSWERED}: it is in another /64",
            matters="Whole networks would share one limit.",
        )
    ask(shop, forwarded(f"::ffff:{address()}"), ADDRESS)
    (answer,) = ask(shop, forwarded(f"::ffff:{address()}"))
    if not passes(answer):
        wrong(
            "all_of_ipv4_in_one_network",
            did="exhausted an address written as ::ffff:203.0.113.x, then asked from another one",
            got=429,
            expected=f"{ANSWERED}: they are two addresses of IPv4, as a server that listens on :: sees them",
        )


def test_only_known_keys_make_a_user(shop: Shop) -> None:
    """A user has the user's limit, whatever others did; and who invents keys is nobody."""
    here = forwarded(address())
    invented = [{"X-API-Key": f"invented-{number}", **here} for number in range(ADDRESS + 1)]
    answers = [answer for caller in invented for answer in ask(shop, caller)]
    if all(map(passes, answers)):
        wrong(
            "any_key_is_a_user",
            did=f"GET {PATH} {len(answers)} times from one address, with another invented X-API-Key each time",
            got="all were let through",
            expected=f"{ADDRESS}: a key that the shop does not know makes no user, and the address counts",
        )
    if sum(map(passes, answers)) != ADDRESS:
        differs(
            did=f"GET {PATH} {len(answers)} times from one address, with invented keys",
            got=f"{sum(map(passes, answers))} were let through",
            expected=ADDRESS,
            matters="Who is no known user has the limit of the address.",
        )
    known = user()
    answers = ask(shop, {**known, **here}, USER)
    if not all(map(passes, answers)):
        differs(
            did=f"exhausted an address, and asked {USER} times from there with the key of a user who had not asked yet",
            got=f"{sum(map(passes, answers))} were let through",
            expected=USER,
            matters="An office or a mobile network shares an address. Its users are not each other's burden.",
        )
    secret = known["X-API-Key"].encode()
    shop.forget()
    ask(shop, known)
    if any(secret in argument for command in shop.cache.received for argument in command.arguments):
        differs(
            did=f"GET {PATH} with X-API-Key, and listened to what is said to Valkey",
            got="the key itself",
            expected="something made of it from which it cannot be had, such as its SHA-256",
            matters="What Valkey is told stands in its slow log and in its dumps, where nobody guards secrets.",
        )


def test_workers_count_together(shop: Shop, other: Shop) -> None:
    """What was let through by one worker counts at the other."""
    caller = user()
    ask(shop, caller, USER - 1)
    answers = ask(other, caller, USER + 1)
    let_through = sum(map(passes, answers))
    if let_through == USER:
        wrong(
            "counts_in_its_process",
            did=f"asked {USER - 1} times at one worker, then {USER + 1} times at a second one",
            got=f"{let_through} were let through at the second one",
            expected="1: the two have one limit between them",
        )
    if let_through != 1:
        differs(
            did=f"asked {USER - 1} times at one worker, then {USER + 1} times at a second one",
            got=f"{let_through} were let through at the second one",
            expected=1,
            matters="Twice the workers would be twice the limit.",
        )


def test_workers_need_no_common_clock(shop: Shop, other: Shop) -> None:
    """A worker whose clock is wrong counts as the others do."""
    for hours in (1, -1):
        caller = user()
        ask(shop, caller, USER)
        other.turn_clock(3600 * hours)
        try:
            (answer,) = ask(other, caller)
        finally:
            other.turn_clock(-3600 * hours)
        did = f"asked {USER} times at one worker, then at another whose clock is {hours:+} h off"
        reset = answer.headers.get("x-ratelimit-reset", "")
        off = reset.isdigit() and abs(int(reset) - time.time()) > 3600 - WINDOW - 10
        if passes(answer) or off:
            wrong(
                "clock_of_the_worker",
                did=did,
                got=f"X-RateLimit-Reset: {reset}" if off else "it was let through",
                expected="what the first one would have answered: the time is Valkey's",
            )
        # and the wrong clock has left nothing behind
        if passes(*ask(shop, caller)):
            wrong("clock_of_the_worker", did=f"{did}; then at the first", got="let through", expected=429)


def test_requests_at_the_same_moment(shop: Shop, other: Shop) -> None:
    """Requests that come at the same moment are not let through on the same count."""
    caller = user()
    requests = [Request("GET", PATH, headers=caller)] * TOGETHER
    with ThreadPoolExecutor(2) as run, shop.cache.tap.slow(0.02), other.cache.tap.slow(0.02):
        both = [run.submit(each.together, requests) for each in (shop, other)]
        let_through = sum(passes(answer) for each in both for answer in each.result())
    did = f"asked {TOGETHER} times at once at each of two workers, with Valkey 20 ms away"
    if let_through > USER:
        wrong("looks_then_writes", did=did, got=f"{let_through} were let through", expected=USER)
    if let_through < USER:
        differs(
            did=did,
            got=f"{let_through} were let through",
            expected=USER,
            matters="A limit that turns users away before it is reached is another, unknown limit.",
        )


# --- The window slides ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request and when it was decided: after it was sent, and before its answer was there."""

    sent: float
    received: float
    passes: bool


@dataclass
class Played:
    """What came of the windows' scene.

    Attributes:
        window: how long one was, in seconds.
        begun: when a window began by the time of day, on the monotonic clock; the scene begins shortly after it.
        steady: of a caller who asks as much as there is, and once more before the window's end, and after it.
        edge: of one who asks once, and then on both sides of the moment at which the next window begins.
        stubborn: of one who goes on asking while refused.
    """

    window: float
    begun: float
    steady: list[Asked] = field(default_factory=list)
    edge: list[Asked] = field(default_factory=list)
    stubborn: list[Asked] = field(default_factory=list)

    @property
    def in_time(self) -> bool:
        """Whether the requests came when they should, so that it shows what it is to show."""
        one_of_them = [
            (self.steady[0], self.steady[FEW]),
            (self.edge[2], self.edge[FEW + 2]),
            (self.edge[1], self.edge[-1]),
            (self.stubborn[FEW], self.stubborn[-1]),
        ]
        within_a_window = all(last.received - first.sent < self.window - SLACK for first, last in one_of_them)
        # ... and slow enough: a bucket must have had the time for another token
        paused = self.steady[FEW].sent - self.steady[FEW - 1].received > 1.1 * self.window / FEW
        before_the_edge = self.edge[FEW - 1].received < self.begun + self.window
        before_the_end = self.edge[-1].received < self.begun + 1.75 * self.window
        return within_a_window and paused and before_the_edge and before_the_end


@dataclass(frozen=True)
class Scenes:
    """What is played beside the checks."""

    windows: "Future[Played]"
    open: "Future[Outage]"
    closed: "Future[Outage]"


def play_windows(start: StartShop) -> Played:
    """Three callers ask through some windows; longer ones, if the machine was too slow."""
    for window in SHORT_WINDOWS:
        with start(RATE_LIMIT_PER_USER=str(FEW), RATE_LIMIT_WINDOW_SECONDS=str(window)) as shop:
            played = play(shop, window)
        if played.in_time:
            break
    return played


def play(shop: Shop, window: float) -> Played:
    """Ask through one and a half windows, from a moment at which one begins by the time of day."""
    time.sleep(window - time.time() % window + 0.04 * window)
    played = Played(window, time.monotonic() - time.time() % window)
    steady, edge, stubborn = user(), user(), user()

    def once(caller: Headers, log: list[Asked], times: int = 1) -> None:
        for _ in range(times):
            sent = time.monotonic()
            (answer,) = ask(shop, caller)
            log.append(Asked(sent, time.monotonic(), answer.status != 429))

    def at(moment: float) -> None:
        """Go on at a moment, in windows since the beginning."""
        time.sleep(max(0.0, played.begun + moment * window - time.monotonic()))

    once(edge, played.edge)
    once(stubborn, played.stubborn, FEW)
    once(steady, played.steady, FEW)
    at(0.5)
    once(steady, played.steady)
    once(stubborn, played.stubborn, FEW)
    at(0.75)
    once(edge, played.edge, FEW - 1)
    at(1.06)
    once(edge, played.edge, FEW)
    for caller, log in ((stubborn, played.stubborn), (steady, played.steady)):
        at((log[FEW - 1].received + 2 * SLACK - played.begun) / window + 1)
        once(caller, log)
    at(1.6)
    once(edge, played.edge, 2)
    return played


def overfull(asked: Sequence[Asked], window: float) -> list[Asked]:
    """The requests that were let through though the limit had been reached in their window, beyond any doubt."""
    through = [each for each in asked if each.passes]
    return [
        last for first, last in zip(through, through[FEW:], strict=False) if last.received - first.sent < window - SLACK
    ]


def test_the_window_slides(scenes: Scenes) -> None:
    """In no stretch of time that is as long as a window are there more than the limit, wherever it begins."""
    played = scenes.windows.result()
    window = played.window
    if too_many := overfull(played.steady, window):
        first = played.steady[0].sent
        wrong(
            "bucket_of_the_whole_limit",
            did=f"asked {FEW} times within a moment, and again {too_many[0].sent - first:.2f} s later, in a window of"
            f" {window} s",
            got="it was let through",
            expected=f"429: there were {FEW} in the last {window} s",
        )
    if too_many := overfull(played.edge, window):
        early = [each for each in too_many if each not in played.edge[-2:]]
        did = f"asked once; {FEW - 1} times shortly before a window of {window} s ended by the time of day;"
        if len(early) > 1:
            wrong(
                "fixed_window",
                did=f"{did} and {FEW} times shortly after",
                got=f"{sum(each.passes for each in played.edge[1:-2])} of the last {2 * FEW - 1} were let through,"
                f" within {played.edge[-3].received - played.edge[1].sent:.2f} s",
                expected=f"{FEW}: as many as in any other {window} s",
            )
        wrong(
            "weighs_two_windows",
            did=f"{did} {FEW} times shortly after; and once more half a window later",
            got="it was let through",
            expected=f"429: there were {FEW} in the last {window} s",
        )


def test_who_waited_is_let_through(scenes: Scenes) -> None:
    """As soon as a window has passed there is room again, also for whoever asked while there was none."""
    played = scenes.windows.result()
    if not played.steady[-1].passes:
        differs(
            did=f"asked {FEW} times, once more, and then when a window of {played.window} s had passed",
            got=429,
            expected=f"{ANSWERED}: only one of these requests could be counted still",
            matters="Users would be kept out longer than they are told.",
        )
    if not played.stubborn[-1].passes:
        wrong(
            "refused_are_counted",
            did=f"asked {FEW} times, went on while refused, and asked again when a window of {played.window} s had"
            " passed since the last that was let through",
            got=429,
            expected=f"{ANSWERED}: what was refused was not served, and does not count",
        )


# --- Without Valkey ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outage:
    """What came of a shop's requests while Valkey was away.

    Attributes:
        answers: by what had become of Valkey.
        seconds: how long those took.
        after: of one user, who asked once more than there is, when it was back.
    """

    answers: dict[str, Answer]
    seconds: dict[str, float]
    after: list[Answer]


def play_outage(start: StartShop, fail_open: str) -> Outage:
    """Take Valkey away in several ways."""
    answers: dict[str, Answer] = {}
    seconds: dict[str, float] = {}
    with start(CACHE_TIMEOUT_SECONDS=SHORT, RATE_LIMIT_FAIL_OPEN=fail_open) as shop:
        for state in ("gone", "silent"):
            with ThreadPoolExecutor(1) as run:
                with shop.cache.tap.being(state):
                    began = time.monotonic()
                    asked = run.submit(ask, shop, user())
                    wait([asked], TOO_LONG)
                    seconds[state] = time.monotonic() - began
                (answers[state],) = asked.result()
        asking = user()
        until(lambda: "x-ratelimit-limit" in ask(shop, user())[0].headers, every=0.02)
        after = ask(shop, asking, USER + 1)
    return Outage(answers, seconds, after)


def test_the_shop_outlives_valkey(scenes: Scenes) -> None:
    """Without Valkey requests are let through, or refused, as the setting says, and in time."""
    outages = {"true": scenes.open.result(), "false": scenes.closed.result()}
    for setting, outage in outages.items():
        for state, answer in outage.answers.items():
            did = f"{answer.did} with Valkey {state}, and RATE_LIMIT_FAIL_OPEN={setting}"
            if outage.seconds[state] > TOO_LONG:
                wrong(
                    "waits_for_a_dead_valkey",
                    did=did,
                    got=f"an answer after {outage.seconds[state]:.1f} s",
                    expected=f"one after a few times {SHORT} s, which is CACHE_TIMEOUT_SECONDS",
                )
            if answer.status == 500:
                wrong("valkey_down_is_an_error", did=did, got=500, expected=ANSWERED if setting == "true" else 503)
            if setting == "true":
                if answer.status == 429:
                    differs(
                        did=did,
                        got=answer.status,
                        expected=ANSWERED,
                        matters="The shop would be closed to everybody because of something that it could do without.",
                    )
                passes(answer)
                continue
            require_problem(answer, 503)
            if seconds_of(answer.headers.get("retry-after", "")) is None:
                differs(
                    did=did,
                    got="503 without Retry-After",
                    expected="one",
                    matters="Whoever does not know when to come back comes back at once.",
                )


def test_the_limit_comes_back(scenes: Scenes) -> None:
    """When Valkey is back, so is the limit."""
    for outage in (scenes.open.result(), scenes.closed.result()):
        if sum(map(passes, outage.after[: USER + 1])) != USER:
            differs(
                did=f"took Valkey away and gave it back, then asked {USER + 1} times as a user",
                got=", ".join(str(answer.status) for answer in outage.after),
                expected=f"{USER} let through, and 429",
                matters="An outage of a second would be one without a limit for as long as the process lives.",
            )


# --- What is in Valkey ------------------------------------------------------------------------------------------------


def test_nothing_is_kept_for_ever(shop: Shop, valkey: Redis, scenes: "Scenes") -> None:
    """What is counted expires with its window, also when the worker dies in the middle."""
    # They count in the same Valkey.
    until(lambda: scenes.windows.done() and scenes.open.done() and scenes.closed.done(), patience=30)
    valkey.flushall()
    with ThreadPoolExecutor(1) as run, shop.cache.tap.slow(0.03):
        asked = run.submit(ask, shop, user())
        until(lambda: valkey.dbsize() or asked.done())
        with shop.cache.tap.being("gone"):  # as it looks to Valkey when the worker is killed now
            left = lives(valkey)
            asked.result()
    ask(shop, user(), 2)
    did = f"GET {PATH} by a user, and looked at the keys that it left in Valkey"
    if endless := [key for key, seconds in lives(valkey).items() if seconds < 0 and key not in left]:
        wrong("never_expires", did=did, got=f"{endless[0].decode()}: no expiry", expected=f"one, within {2 * WINDOW} s")
    if endless := [key for key, seconds in left.items() if seconds < 0]:
        wrong(
            "expires_in_a_second_step",
            did=f"{did}, with the connection cut as soon as there was one",
            got=f"{endless[0].decode()}: no expiry",
            expected="one, from the beginning",
        )
    if late := {key: seconds for key, seconds in lives(valkey).items() if seconds > 2 * WINDOW + 1}:
        differs(
            did=did,
            got=f"{min(late).decode()} expires in {max(late.values()):.0f} s",
            expected=f"within {2 * WINDOW} s",
            matters="Each address that ever asked would be kept much longer than it counts.",
        )


def lives(valkey: Redis) -> dict[bytes, float]:
    """Every key with the seconds that are left to it; less than 0 if it does not expire."""
    keys: list[bytes] = list(valkey.scan_iter(count=1000))
    return {key: milliseconds / 1000 for key in keys if (milliseconds := int(valkey.pttl(key))) != -2}


# --- Small change -----------------------------------------------------------------------------------------------------
