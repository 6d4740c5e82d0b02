"""Every page of the built book in a real browser: on a desk and on a phone, in light and in dark."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Response, Route
from sphinx_external_toc.parsing import parse_toc_yaml

from shopfloor.paths import material

pytestmark = [pytest.mark.browser, pytest.mark.book, pytest.mark.slow]

DESK, PHONE = 1280, 390
HEAVIEST = 300_000  # bytes of a first load, gzipped
LEAST_CONTRAST = 4.5  # WCAG 2.2 AA, text
PAGES = [*parse_toc_yaml(material().root / "_toc.yml"), "search"]

# The contrast of each visible piece of text with what lies behind it, colours with alpha and opacity blended.
LOW_CONTRAST = """
least => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
    return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const opacity = element => {
    let product = 1;
    for (let e = element; e; e = e.parentElement) product *= getComputedStyle(e).opacity;
    return product;
  };
  const luminance = colour => {
    const [r, g, b] = colour.slice(0, 3).map(c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const low = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.getClientRects().length) continue;
    if (["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    const style = getComputedStyle(element), seen = opacity(element);
    if (seen < .05 || style.visibility === "hidden") continue;
    const ground = behind(element), ink = rgba(element.closest("svg") ? style.fill : style.color);
    const drawn = over([...ink.slice(0, 3), ink[3] * seen], ground);
    const [light, dark] = [luminance(drawn), luminance(ground)].sort((a, b) => b - a);
    const ratio = (light + .05) / (dark + .05);
    if (ratio < least) low.add(`${element.tagName}.${element.getAttribute("class")} ${ratio.toFixed(2)}`);
  }
  return [...low];
}
"""


@contextmanager
def visit(
    browser: Browser, url: str, width: int = DESK, javascript: bool = True
) -> Iterator[tuple[Page, list[str], list[Response]]]:
    """Open a page; give it, the problems seen meanwhile (console, requests to elsewhere), and all responses."""
    problems: list[str] = []
    responses: list[Response] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=javascript)

    def only_loopback(route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            problems.append(f"asked another host: {route.request.url}")
            route.abort()

    try:
        context.route("**/*", only_loopback)
        page = context.new_page()
        page.on("console", lambda message: problems.append(f"console: {message.type}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"script: {error}"))
        page.on("response", lambda response: responses.append(response))  # noqa: PLW0108 - Playwright marks the function
        page.goto(url, wait_until="networkidle")
        yield page, problems, responses
    finally:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_reads_well_and_is_quiet(browser: Browser, address: str, name: str) -> None:
    with visit(browser, f"{address}{name}.html") as (page, problems, responses):
        assert [response.url for response in responses if response.status >= 400] == []
        assert sum(len(gzip.compress(response.body())) for response in responses) <= HEAVIEST
        grounds = set()
        for width, scheme in product((DESK, PHONE), ("light", "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            view = f"{width} pixels wide, {scheme}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{view}: the page scrolls sideways"
            assert page.evaluate(LOW_CONTRAST, LEAST_CONTRAST) == [], view
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(grounds) == 2, "light and dark were not both looked at"
        assert problems == []


def test_dark_and_light_differ_and_a_choice_is_kept(browser: Browser, address: str) -> None:
    with visit(browser, f"{address}{PAGES[0]}.html") as (page, _, _responses):
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        button = page.get_by_role("button", name="Dark")
        assert button.get_attribute("aria-pressed") == "false"
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert page.evaluate(ground) != light
        page.goto(f"{address}{PAGES[1]}.html")
        assert page.evaluate(ground) != light


def test_contents_unfold_on_a_phone(browser: Browser, address: str) -> None:
    with visit(browser, f"{address}{PAGES[0]}.html", PHONE) as (page, _, _responses):
        link = page.get_by_role("navigation", name="The book").get_by_role("link", name="Glossary")
        assert not link.is_visible()
        page.get_by_role("button", name="Contents").click()
        link.click()
        assert page.get_by_role("heading", level=1).inner_text().startswith("Glossary")


def test_one_search_box_finds_a_term(browser: Browser, address: str) -> None:
    with visit(browser, f"{address}{PAGES[0]}.html") as (page, problems, _):
        box = page.get_by_role("searchbox")
        assert box.count() == 1
        box.fill("selectivity")
        box.press("Enter")
        page.locator('#search-results li a[href*="glossary.html"]').first.wait_for()  # they come one by one
        assert page.get_by_role("searchbox").count() == 1
        assert problems == []


def test_an_answer_unfolds_by_keyboard_alone_and_without_scripts(
    browser: Browser, address: str, built_book: Path
) -> None:
    asking = next(name for name in PAGES if "sf-quiz" in (built_book / f"{name}.html").read_text(encoding="utf8"))
    with visit(browser, f"{address}{asking}.html", javascript=False) as (page, _, _responses):
        answer = page.locator(".sf-quiz details").first
        assert not answer.locator("p").last.is_visible()
        answer.locator("summary").focus()
        page.keyboard.press("Enter")
        assert answer.locator("p").last.is_visible()


def test_the_book_reads_without_scripts(browser: Browser, address: str) -> None:
    with visit(browser, f"{address}{PAGES[0]}.html", PHONE, javascript=False) as (page, _, _responses):
        assert page.get_by_role("navigation", name="The book").is_visible()
        assert page.locator(".sf-needs-js:visible").count() == 0


def test_the_address_alone_leads_to_the_welcome_page(browser: Browser, address: str) -> None:
    with visit(browser, address) as (page, problems, _):
        page.wait_for_url(f"{address}{PAGES[0]}.html")
        assert problems == []


def test_print_shows_the_text_and_not_the_furniture(browser: Browser, address: str) -> None:
    with visit(browser, f"{address}{PAGES[0]}.html") as (page, _, _responses):
        page.emulate_media(media="print")
        assert page.get_by_role("heading", level=1).is_visible()
        assert not page.locator(".sf-header, .sf-contents, .sf-footer").first.is_visible()
