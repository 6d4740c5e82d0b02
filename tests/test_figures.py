import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing

from shopfloor.figures import INK, MAX_BYTES, PALETTE, RULE, Figure, figure, label_lines, style

ALT = 'Statements grow from 1 to 101; "solved" stays at 3.'


def draw(last: int = 101) -> Drawing:
    with style():
        drawing, axes = plt.subplots()
        axes.plot([0, 50], [1, last], marker="o", label="naive")
        axes.plot([0, 50], [3, 3.14159], marker="o", label="solved")
        label_lines(axes)
    return drawing


@pytest.fixture
def drawn() -> Figure:
    return figure(draw(), ALT, caption="Statements <sent>")


def test_text_and_axes_take_the_pages_colours(drawn):
    assert "currentColor" in drawn.svg
    assert f"var(--sf-series-1, {PALETTE[0]})" in drawn.svg
    assert f"var(--sf-series-2, {PALETTE[1]})" in drawn.svg
    assert "var(--sf-rule," in drawn.svg
    assert INK not in drawn.svg
    assert RULE not in drawn.svg


def test_every_colour_is_the_pages_or_has_a_variable(drawn):
    bare = re.sub(r"var\([^)]*\)", "", drawn.svg)
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]*)", bare)) <= {"none", "currentColor", ""}


def test_it_scales_and_is_described(drawn):
    root = ElementTree.fromstring(drawn.svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == ALT
    assert root.get("viewBox") == "0 0 432 237.6"
    assert root.get("width") is None
    assert "width:100%" in root.get("style")
    assert repr(drawn) == ALT


def test_text_stays_text_in_the_pages_font(drawn):
    root = ElementTree.fromstring(drawn.svg)
    texts = [element for element in root.iter() if element.tag.endswith("}text")]
    assert {"naive", "solved"} <= {element.text for element in texts}
    assert all("font-family: inherit" in element.get("style") for element in texts)


def test_no_rule_in_it_holds_for_the_whole_page(drawn):
    assert "<style" not in drawn.svg
    assert "<metadata" not in drawn.svg
    assert "xlink" not in drawn.svg


def test_the_caption_is_escaped_below_it(drawn):
    assert drawn._repr_html_().startswith('<figure class="sf-figure"')
    assert drawn._repr_html_().endswith("<figcaption>Statements &lt;sent&gt;</figcaption></figure>")


def test_ids_of_two_figures_differ_and_every_reference_leads_somewhere(drawn):
    def ids(svg: str) -> set[str]:
        return set(re.findall(r' id="([^"]+)"', svg))

    def references(svg: str) -> set[str]:
        return set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))

    other = figure(draw(last=202), ALT)
    assert references(drawn.svg)
    assert references(drawn.svg) == ids(drawn.svg)
    assert references(other.svg) == ids(other.svg)
    assert not ids(drawn.svg) & ids(other.svg)


def test_the_same_data_gives_the_same_bytes_in_another_process(drawn):
    again = (
        "from tests.test_figures import ALT, draw\nfrom shopfloor.figures import figure\n"
        "print(figure(draw(), ALT).svg, end='')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MPLBACKEND": "agg", "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run(
        [sys.executable, "-c", again], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert output == drawn.svg


def test_lines_are_named_at_their_ends_in_their_colours(drawn):
    root = ElementTree.fromstring(drawn.svg)
    styles = {element.text: element.get("style") for element in root.iter() if element.tag.endswith("}text")}
    assert PALETTE[0] in styles["naive"]
    assert PALETTE[1] in styles["solved"]


def test_names_of_lines_that_end_close_together_do_not_overlap():
    with style():
        drawing, axes = plt.subplots()
        for end in (10, 10.1, 10.2):
            axes.plot([0, 1], [0, end], label=f"to {end}")
        label_lines(axes)
    root = ElementTree.fromstring(figure(drawing, ALT).svg)
    texts = {element.text: float(element.get("y")) for element in root.iter() if element.tag.endswith("}text")}
    heights = sorted(texts[f"to {end}"] for end in (10, 10.1, 10.2))
    assert np.diff(heights).min() >= 11


def test_the_drawing_is_closed():
    drawing = draw()
    figure(drawing, ALT)
    assert not plt.fignum_exists(drawing.number)


@pytest.mark.parametrize("alt", ["", "  "])
def test_alt_text_is_required(alt):
    with pytest.raises(ValueError, match="alt text"):
        figure(Drawing(), alt)


def test_a_figure_too_large_for_the_page_is_refused():
    with style():
        drawing, axes = plt.subplots()
        axes.scatter(np.arange(2000), np.arange(2000) % 7)
    with pytest.raises(ValueError, match=f"more than {MAX_BYTES:,}"):
        figure(drawing, ALT)
