"""The extension's directives, each on a book of a few lines."""

from typing import Any

import pytest

from tests.book.tiny import NOT_MEASURED, TinyBook, measured, recorded_claim

QUIZ = """
question: Which column comes *first*?
options:
  - text: "`placed_at`"
    why: Then the rows lie scattered.
  - text: "`customer_id`"
    right: true
    why: Then they lie side by side.
"""


def test_a_point_that_nothing_tells_is_not_built_yet(tiny_book: TinyBook) -> None:
    assert tiny_book.build() == ""
    assert "P1.1.1 index WHERE columns Not built yet. It belongs to data/indexing." in tiny_book.text()
    assert "0 of 2 points proved · chapter data/indexing" in tiny_book.text()
    assert "0 of 3 points proved on this machine; 0 told so far, 3 not told yet." in tiny_book.text()


def test_a_told_and_shown_point_is_proved_with_links_to_both(tiny_book: TinyBook) -> None:
    tiny_book.write_chapter()
    tiny_book.write_ledger(book__data__indexing=measured(recorded_claim()))
    assert tiny_book.build() == ""
    assert "P1.1.1 index WHERE columns Told A chapter: The cure Shown It holds 21 blocks" in tiny_book.text()
    assert "1 of 2 points proved" in tiny_book.text()
    assert 'href="data/indexing.html#the-cure"' in tiny_book.page()
    assert 'href="data/indexing.html#claim-it-holds"' in tiny_book.page()


def test_the_outline_is_made_of_real_sections(tiny_book: TinyBook) -> None:
    tiny_book.build()
    contents = tiny_book.page().split('aria-labelledby="page-contents"')[1]
    assert 'href="#p1-1"' in contents
    assert 'href="#p1-2"' in contents
    assert 'id="p1-1-1"' in tiny_book.page()


def test_a_point_only_told_is_not_proved(tiny_book: TinyBook) -> None:
    tiny_book.write_chapter()
    tiny_book.build()
    assert "P1.1.1 index WHERE columns Told A chapter: The cure" in tiny_book.text()
    assert "0 of 2 points proved" in tiny_book.text()


def test_a_point_only_shown_is_not_proved(tiny_book: TinyBook) -> None:
    tiny_book.write_chapter(tells="P1.1.2")
    tiny_book.write_ledger(book__data__indexing=measured(recorded_claim()))
    tiny_book.build()
    assert "P1.1.1 index WHERE columns Shown It holds 21 blocks" in tiny_book.text()
    assert "0 of 2 points proved" in tiny_book.text()


def test_a_claim_of_a_page_that_is_not_executed_shows_nothing(tiny_book: TinyBook) -> None:
    tiny_book.write_chapter()
    tiny_book.write_ledger(book__data__indexing=NOT_MEASURED)
    tiny_book.build()
    assert "Shown" not in tiny_book.text()


def test_a_lab_practises_its_points(tiny_book: TinyBook) -> None:
    tiny_book.write("labs/data/indexing/lab.toml", 'title = "Find it"\ncovers = ["P1.1.2"]\n')
    assert tiny_book.build() == ""
    assert "P1.1.2 index JOIN columns Practised Find it (labs/data/indexing)" in tiny_book.text()
    tiny_book.write("labs/data/indexing/brief.md", "# The brief\n")
    tiny_book.build()
    assert 'Practised</span> <a class="reference internal" href="../labs/data/indexing/brief.html">' in tiny_book.page()


def test_a_section_links_to_the_points_it_tells(tiny_book: TinyBook) -> None:
    tiny_book.write_chapter(tells="P1.1.1, P1.1.2")
    tiny_book.build()
    assert "Tells P1.1.1 P1.1.2" in tiny_book.text("book/data/indexing")
    assert 'href="../P.html#p1-1-2" title="index JOIN columns"' in tiny_book.page("book/data/indexing")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("book/a.md", "# A\n\n```{tells} P9.9.9\n```\n", "the syllabus has no point P9.9.9"),
        ("book/a.md", "# A\n\n```{tells}\n```\n", "1 argument(s) required"),
        ("book/a.md", "# A\n\n```{document} Z\n```\n", "the syllabus has no document Z"),
        ("labs/data/a/lab.toml", 'title = "A"\ncovers = ["P9.9.9"]\n', "the lab data/a covers P9.9.9"),
    ],
)
def test_what_the_syllabus_does_not_have_is_a_warning(
    tiny_book: TinyBook, name: str, text: str, complaint: str
) -> None:
    tiny_book.write(name, text)
    assert complaint in tiny_book.build()


def test_a_claim_that_covers_what_the_syllabus_does_not_have_is_a_warning(tiny_book: TinyBook) -> None:
    tiny_book.write_chapter()
    tiny_book.write_ledger(book__data__indexing=measured(recorded_claim(covers="P9.9.9")))
    assert "the claim “It holds” covers P9.9.9" in tiny_book.build()


def test_the_summary_counts_what_was_executed(tiny_book: TinyBook) -> None:
    tiny_book.write("book/welcome.md", "# Welcome\n\n```{summary}\n```\n")
    tiny_book.write_chapter()
    tiny_book.write_chapter("book/data/locks", tells="P1.2.1")
    tiny_book.write_ledger(book__data__indexing=measured(recorded_claim()), book__data__locks=NOT_MEASURED)
    assert tiny_book.build() == ""
    text = tiny_book.text("book/welcome")
    assert "Claims executed 1 Claims that hold 1 Points proved 1 of 3 Pages measured 1 of 2" in text
    assert "Machine Test processor, 2 cores, 7.8 GiB, Linux 6 Last measured 21 November 2025" in text
    assert "The other pages are being measured" in text


def test_the_summary_of_a_book_of_which_nothing_is_measured_says_so(tiny_book: TinyBook) -> None:
    tiny_book.write("book/welcome.md", "# Welcome\n\n```{summary}\n```\n")
    assert tiny_book.build() == ""
    assert "Nothing has been measured on this machine yet." in tiny_book.text("book/welcome")


def test_a_figure_is_quoted_from_another_page(tiny_book: TinyBook) -> None:
    tiny_book.write("book/welcome.md", "# Welcome\n\nIt read {measured}`book/data/indexing#it-holds` here.\n")
    tiny_book.write_chapter()
    assert tiny_book.build() == ""
    assert "It read (being measured) here." in tiny_book.text("book/welcome")
    tiny_book.write_ledger(book__data__indexing=measured(recorded_claim()))
    assert tiny_book.build() == ""
    assert "It read 21 blocks here." in tiny_book.text("book/welcome")
    assert 'href="data/indexing.html#claim-it-holds"' in tiny_book.page("book/welcome")


@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        ("book/data/indexing#other", "book/data/indexing has no claim other. It has: it-holds"),
        ("book/data/none#it-holds", "there is no page book/data/none"),
    ],
)
def test_a_figure_that_is_not_there_is_a_warning(tiny_book: TinyBook, named: str, complaint: str) -> None:
    tiny_book.write("book/welcome.md", f"# Welcome\n\nIt read {{measured}}`{named}` here.\n")
    tiny_book.write_chapter()
    tiny_book.write_ledger(book__data__indexing=measured(recorded_claim()))
    assert complaint in tiny_book.build()


def test_a_quiz_folds_a_reason_under_each_answer(tiny_book: TinyBook) -> None:
    tiny_book.write("book/a.md", f"# A\n\n```{{quiz}}\n{QUIZ}```\n")
    assert tiny_book.build() == ""
    assert "Which column comes first? placed_at No. Then the rows lie scattered. customer_id Right. Then" in (
        tiny_book.text("book/a")
    )
    answers = tiny_book.page("book/a").split("<details")[1:]
    assert ['class="sf-quiz-wrong"' in answer for answer in answers] == [True, False]
    assert all("<p" not in answer.split("</summary>")[0] for answer in answers)


@pytest.mark.parametrize(
    "body",
    [
        QUIZ.replace("right: true", "right: false"),
        QUIZ.replace("right: true", "rigth: true"),
        QUIZ.replace("    why: Then the rows lie scattered.\n", ""),
        QUIZ.replace("question:", "title:"),
        QUIZ.split('  - text: "`customer_id`"', maxsplit=1)[0].replace("why:", "right: true\n    why:"),
        "options: [",
        "",
    ],
)
def test_a_malformed_quiz_is_a_warning(tiny_book: TinyBook, body: str) -> None:
    tiny_book.write("book/a.md", f"# A\n\n```{{quiz}}\n{body}\n```\n")
    assert "{quiz} wants YAML" in tiny_book.build()


def test_a_notebook_that_is_not_measured_says_so_at_its_top(tiny_book: TinyBook) -> None:
    tiny_book.write_notebook()
    assert tiny_book.build() == ""
    assert "A chapter¶ This page is being measured on your machine; its figures appear when that ends." in (
        tiny_book.text("book/data/indexing")
    )
    assert "Download" not in tiny_book.text("book/data/indexing")


def test_a_measured_notebook_says_where_and_can_be_downloaded(tiny_book: TinyBook) -> None:
    tiny_book.write_notebook(outputs=[{"text/html": '<div class="sf-claim" id="claim-it-holds">It holds</div>'}])
    tiny_book.write_ledger(book__data__indexing=measured(recorded_claim()))
    assert tiny_book.build() == ""
    text = tiny_book.text("book/data/indexing")
    origin = "Test processor, 2 cores, 7.8 GiB, Linux 6; Python 3.11.9, PostgreSQL 18.6 at commit abc1234."
    assert "being measured" not in text
    assert f"It holds Measured 21 November 2025 {origin}" in text
    assert f"1 claim executed, all hold. Measured on 21 November 2025: {origin}" in text
    assert 'href="../../_downloads/book/data/indexing.ipynb"' in tiny_book.page("book/data/indexing")
    assert "It holds" in (tiny_book.out / "_downloads/book/data/indexing.ipynb").read_text(encoding="utf8")


def test_an_output_that_measures_nothing_has_no_provenance_below_it(tiny_book: TinyBook) -> None:
    tiny_book.write_notebook(outputs=[{"text/html": "<p>Hello</p>"}])
    tiny_book.write_ledger(book__data__indexing=measured())
    tiny_book.build()
    assert "<details" not in tiny_book.page("book/data/indexing")


def test_a_busy_machine_is_said_without_unfolding(tiny_book: TinyBook) -> None:
    tiny_book.write_notebook(outputs=[{"text/html": '<div class="sf-claim">It holds</div>'}])
    tiny_book.write("book/welcome.md", "# Welcome\n\n```{summary}\n```\n")
    tiny_book.write_ledger(book__data__indexing=measured(recorded_claim(), busy=True))
    tiny_book.build()
    summary = tiny_book.page("book/data/indexing").split("<summary>")[1].split("</summary>")[0]
    assert "on a busy machine" in summary
    assert "The machine was busy" in tiny_book.text("book/data/indexing")
    assert "The machine was busy" in tiny_book.text("book/welcome")


def test_the_record_of_a_claim_is_not_drawn_and_not_warned_of(tiny_book: TinyBook) -> None:
    record: dict[str, Any] = {"text": "only for the ledger"}
    bundle = {"application/vnd.shopfloor.claim+json": record, "text/html": "<p>It holds</p>"}
    tiny_book.write_notebook(outputs=[bundle])
    assert tiny_book.build() == ""
    assert "It holds" in tiny_book.text("book/data/indexing")
    assert "only for the ledger" not in tiny_book.page("book/data/indexing")


def test_an_output_of_another_unknown_type_is_still_warned_of(tiny_book: TinyBook) -> None:
    tiny_book.write_notebook(outputs=[{"application/x-unheard-of": "x", "text/html": "<p>x</p>"}])
    assert "unknown output mime type" in tiny_book.build()
