from pathlib import Path

from shopfloor.links import broken_links


def site_of(tmp_path: Path, **pages: str) -> Path:
    for name, body in pages.items():
        (tmp_path / f"{name}.html").write_text(f"<html><body>{body}</body></html>")
    return tmp_path


def test_a_whole_site_has_no_broken_link(tmp_path: Path) -> None:
    (tmp_path / "x y.svg").write_text("<svg/>")
    site = site_of(
        tmp_path,
        a='<h1 id="top">A</h1><a href="b.html#end">b</a><a href="#top">up</a><img src="x%20y.svg"><a href="https://x">',
        b='<p id="end">B</p><a href="a.html?q=1">a</a><a href="mailto:x@y">m</a>',
    )
    assert broken_links(site) == []


def test_a_missing_page_a_missing_file_and_a_missing_anchor_are_named(tmp_path: Path) -> None:
    site = site_of(tmp_path, a='<a href="gone.html">g</a><img src="gone.png"><a href="b.html#no">n</a>', b="")
    assert broken_links(site) == [
        "a.html links to b.html#no, which has no such anchor",
        "a.html links to gone.html, which is not there",
        "a.html links to gone.png, which is not there",
    ]


def test_an_anchor_of_the_own_page_is_checked(tmp_path: Path) -> None:
    assert broken_links(site_of(tmp_path, a='<a href="#nowhere">x</a>')) == [
        "a.html links to #nowhere, which has no such anchor"
    ]
