"""A flush site is declared in one statement, with all that reports need; and some kernel flushes under it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from allocator import flush_sites
from allocator.flush_sites import NR_SITES, REASONS, SITE_NAMES, SITE_OTHER, SITES, Site
from allocator.tlb_flush import TRACE_REASONS
from tests.support.sources import never_read, sources

COLOUR = re.compile(r"#[0-9A-F]{6}")
RECORDED = re.compile(r"(kswapd|direct|task)/\w+")


def mistakes(sites: Iterable[Site]) -> list[str]:
    """Say what is missing in a table of sites, or there twice."""
    found, texts, colours = [], set[str](), set[str]()
    for number, site in enumerate(sites):
        if not site.text or site.text in texts:
            found.append(f"site {number} must have a text of its own for reports (got {site.text!r})")
        if not COLOUR.fullmatch(site.colour) or site.colour in colours:
            found.append(f"site {site.text!r} must have a colour of its own, #RRGGBB (got {site.colour!r})")
        if not RECORDED.fullmatch(site.recorded):
            found.append(f"site {site.text!r} must be recorded as actor/why (got {site.recorded!r})")
        texts.add(site.text)
        colours.add(site.colour)
    return found


def unused(texts: Iterable[str]) -> list[str]:
    return [
        f"{name} is declared in allocator/flush_sites.py, but nobody flushes under it"
        for name in never_read(flush_sites, "SITE_", texts)
        if name not in ("SITE_NAMES", "SITE_OTHER")  # SITE_OTHER is where a CPU begins
    ]


def test_every_site_says_what_reports_need():
    """A text, a colour, and what the record calls it; "other" is 0, what a CPU begins with."""
    assert mistakes(SITES.values()) == []
    assert SITE_NAMES[SITE_OTHER] == "other"
    assert SITE_OTHER == 0
    assert (len(SITES), len(REASONS)) == (NR_SITES, TRACE_REASONS)


@pytest.mark.parametrize(
    ("half", "sentence"),
    [
        (Site("", "#123456"), "must have a text of its own"),
        (Site("kswapd", "#123456"), "must have a text of its own"),
        (Site("mlock", ""), "site 'mlock' must have a colour of its own"),
        (Site("mlock", "#0072B2"), "site 'mlock' must have a colour of its own"),
        (Site("mlock", "#123456", "mlock"), "site 'mlock' must be recorded as actor/why"),
    ],
)
def test_a_half_declared_site_is_named(half, sentence):
    """Each half that can be forgotten, in a sentence."""
    (found,) = mistakes([*SITES.values(), half])
    assert sentence in found


def test_every_site_is_flushed_under():
    """Some kernel, or design, names it."""
    assert unused(sources("allocator", "designs").values()) == []


def test_a_site_that_nobody_flushes_under_is_named():
    """Planted: a promotion is put down to the scanner, as if its own site had been forgotten."""
    texts = [
        text.replace("= SITE_PROMOTION", "= SITE_NUMA") for text in sources("allocator", "designs").values()
    ]
    assert unused(texts) == [
        "SITE_PROMOTION is declared in allocator/flush_sites.py, but nobody flushes under it"
    ]
