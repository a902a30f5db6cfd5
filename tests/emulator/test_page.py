"""The page of a result: whole, by itself, escaped, and with the figures of the screen."""

from __future__ import annotations

import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

from emulator.cli import main
from emulator.page.page import page_of
from emulator.page.sweep import Swept, sweep_page
from emulator.repeats.result import repeats
from emulator.result import to_json
from emulator.sweep.points import Ended, points_of
from tests.emulator.fixed import REUSE, comparison, run
from tests.emulator.test_repeats import runs

ALONE = {"meta", "br", "path", "use", "rect", "circle", "line", "polyline", "image", "link"}
BYTES = 400_000


class Reader(HTMLParser):
    """Checks that tags are closed in turn, and keeps what matters."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links = [], [], []

    def handle_starttag(self, tag, given):
        named = dict(given)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named[name] for name in ("href", "src", "xlink:href") if name in named]
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag, given):
        self.handle_starttag(tag, given)
        if tag not in ALONE:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in ALONE:
            assert self.open.pop() == tag


def read(text):
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert len(set(reader.ids)) == len(reader.ids), "ids are of one element each"
    return reader


def swept(**changes):
    """Two designs at two points, a luf that saves nine tenths at one of them; and something wrong."""
    ended = [
        Ended({"design": design, "cpus": cpus}, one)
        for cpus, times in (("2", 1), ("<4>", 10))
        for design in ("linux", "luf")
        for one in runs(design, 6, first=400 if design == "linux" else 400 // times)
    ]
    return Swept(points_of(ended), **({"code": 0, "said": "clean, exit code 0"} | changes))


FOUND = {
    "one each": comparison(),
    "several": repeats([*runs("linux", 6), *runs("luf", 6, first=40)], command=["luf", "compare"]),
    "wrong": comparison(run("linux"), run("none", violations=[REUSE], accounted={}, runtime_ns=[])),
}


PAGES = {name: partial(page_of, found) for name, found in FOUND.items()}
PAGES["sweep"] = lambda: sweep_page(swept())


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_small_and_by_itself(name):
    text = PAGES[name]()
    reader = read(text)
    assert all(link.startswith("#") for link in reader.links), "nothing comes from elsewhere"
    assert not re.search(r"url\((?!#)|@import|<link", text)
    assert len(text.encode()) < BYTES
    assert PAGES[name]() == text


def test_a_sweeps_page_has_each_point_and_what_was_wrong():
    text = sweep_page(swept(code=1, said="not clean", wrong=["design=<x>: stopped by a deadlock"]))
    assert re.findall(r'rowgroup" colspan="4">(.*?)<', text)[0] == "TLB shootdowns"
    rows = re.findall(r'<tr><th scope="row">cpus=(.*?)</th>.*?<td class="(.*?)">(.*?)</td>', text)
    assert [(place, kind) for place, kind, _ in rows[:2]] == [("2", "quiet"), ("&lt;4&gt;", "good")]
    assert rows[1][2].startswith("-")
    assert 'class="bad">not clean' in text
    assert "<li>design=&lt;x&gt;: stopped by a deadlock</li>" in text
    assert "Medians of 6 runs, and changes against linux" in text


def test_it_has_the_figures_and_what_was_wrong():
    text = page_of(FOUND["one each"])
    assert "<td>1,580</td>" in text
    assert "<td>-97.3 %</td>" in text
    assert ">kswapd</text>" in text, "text of pictures is text"
    assert "-89.4 % [-89.9, -88.9]" in page_of(FOUND["several"])
    wrong = page_of(FOUND["wrong"])
    assert "VIOLATION  reuse" in wrong
    assert 'class="bad">not clean, exit code 1' in wrong


def test_names_of_users_are_text():
    hostile = "<script>alert(1)</script>&\"'"
    text = page_of(comparison(run(hostile, workload=hostile), run("luf", workload=hostile)))
    read(text)
    assert text.count("<script") == 1
    assert "&lt;script&gt;" in text


def test_the_command_writes_it(tmp_path, capsys):
    (tmp_path / "r.json").write_text(to_json(comparison()))
    assert main(["report", str(tmp_path / "r.json"), "--html", str(tmp_path / "p.html")]) == 0
    assert capsys.readouterr().out == ""
    assert Path(tmp_path / "p.html").read_text().startswith("<!doctype html>")
    assert main(["report", str(tmp_path / "r.json"), "--html", "/nowhere/p.html"]) == 2
    assert "'--html' must be a file that can be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", FOUND)
def test_a_notebook_shows_a_result_small_and_escaped(name):
    """One piece of HTML by itself: verdict, what ran, figures; nothing of it is taken for a tag."""
    found = FOUND[name]
    text = found._repr_html_()
    read(text)
    assert "<script" not in text
    assert len(text) < 5_000
    assert ("not clean, exit code 1" in text) == (name == "wrong")
    odd = run("<b>mine", workload="a&b", seed=7)._repr_html_()
    assert "&lt;b&gt;mine" in odd
    assert "a&amp;b" in odd
    assert "seed 7" in odd
    assert "<b>" not in odd
