"""The published schema: it is that of the types, takes what luf writes, and refuses what it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from emulator.cli import main
from emulator.published_schema import schema_of_results, schema_text
from emulator.repeats.result import repeats
from emulator.result import to_json
from tests.emulator.fixed import REUSE, comparison, run

PAGE = Path(__file__).parents[2] / "docs" / "result.schema.json"


def mistakes(text):
    """Give where a result breaks the schema that is its own."""
    found = json.loads(text)
    schema = schema_of_results()
    name = "Repeats" if found["schema"].startswith("luf-repeats") else "Comparison"
    one = {**schema, "$ref": f"#/$defs/{name}"}
    del one["oneOf"]
    errors = jsonschema.Draft202012Validator(one).iter_errors(found)
    return ["/".join(map(str, error.absolute_path)) for error in errors]


def changed(path, value):
    """A result with one value replaced."""
    table = json.loads(to_json(comparison(run("linux"), run("luf", violations=[REUSE]))))
    *inner, last = path.split("/")
    place = table
    for key in inner:
        place = place[int(key) if key.isdigit() else key]
    place[last] = value
    return json.dumps(table)


def test_the_published_file_is_that_of_the_types(capsys):
    """`python -m emulator report --schema > docs/result.schema.json` writes it anew."""
    assert PAGE.read_text() == schema_text()
    assert main(["report", "--schema"]) == 0
    assert capsys.readouterr().out == schema_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


def test_what_luf_writes_is_valid():
    assert mistakes(to_json(comparison(run("linux"), run("luf", violations=[REUSE])))) == []
    assert mistakes(to_json(repeats([run("linux", seed=seed) for seed in (1, 2)]))) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("runs/0/tlb_shootdowns", -1),
        ("runs/0/design", "two\nlines"),
        ("runs/0/unit", "tokens"),
        ("runs/1/violations/0/cpu", "3"),
        ("runs/0/leases", 63),
        ("runs", []),
        ("schema", "luf-comparison/2"),
    ],
)
def test_a_planted_mistake_is_found(path, value):
    name = path if path != "schema" else "schema"
    assert mistakes(changed(path, value)) == [name]
