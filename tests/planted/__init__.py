"""Bugs of our own, planted one at a time into a copy of the sources: what `luf stress` must find.

Each is a few lines of Python that people get wrong, with a name, a sentence that says what is wrong, and the
promise that it breaks. The tables (*.toml) hold text that is there and text that takes its place; `bugs.py`
reads them and makes the copy. tests/campaigns/planted.py runs stress on each, docs/planted.md has the result.
"""
