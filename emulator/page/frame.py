"""What all pages have in common: head, verdict, sections, pictures that zoom. Nothing on a page comes from
elsewhere: pictures are inline SVG whose text is text, the style and the few lines of script stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from pathlib import Path

import matplotlib

HERE = Path(__file__).parent
IDENTITY = re.compile(r'(\bid="|url\(#|href="#)')
DIGITS = re.compile(r"(\d\.\d\d)\d+")  # of a length in points: a hundredth is enough
COMMENT = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>", re.S)


def whole_page(title: str, code: int, said: str, first: str, sections: str) -> str:
    """Give a page: `code` and `said` are the verdict's, a keyboard skips to the section `first`."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#{first}">to the figures</a>\n'
        f"<header>\n<h1>{escape(title)}</h1>\n"
        f'<p class="{"bad" if code else "good"}">{escape(said)}</p>\n</header>\n<main>\n'
        f"{sections}</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def section(name: str, head: str, inside: str) -> str:
    """Give a section with its heading, or nothing if there is nothing in it."""
    if not inside:
        return ""
    opened = f'<section id="{name}" aria-labelledby="{name}-head">\n<h2 id="{name}-head">{head}</h2>\n'
    return f"{opened}{inside}</section>\n"


def figure(name: str, head: str, draws: Callable[..., None]) -> str:
    """Draw a picture into the page, in a frame in which it zooms."""
    drawn: list[bytes] = []
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draws(f"{name}.svg", lambda _, data: drawn.append(data))
    text = drawn[0].decode()
    text = COMMENT.sub("", text[text.index("<svg") :])
    text = DIGITS.sub(r"\1", text)
    text = IDENTITY.sub(rf"\g<1>{name}-", text)  # of several pictures in one page
    text = text.replace("<svg ", f'<svg role="img" aria-label="{head}" ', 1)
    return (
        f'<figure>\n<p><button type="button" value="2" aria-label="zoom in: {head}">+</button> '
        f'<button type="button" value="0.5" aria-label="zoom out: {head}">&minus;</button> '
        f'<output aria-live="polite" class="quiet"></output></p>\n'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{head}">\n{text}</div>\n</figure>\n'
    )
