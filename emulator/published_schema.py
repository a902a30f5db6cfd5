"""The published schema of results, docs/result.schema.json: JSON Schema 2020-12, made by msgspec from the
types that read them.

It says what a result may be field by field; what fields say together (emulator/result_rules.py) it cannot.
Fields may be added within a version, so that it allows those that it does not know.

    python -m emulator report --schema > docs/result.schema.json
"""

from __future__ import annotations

from typing import Any

import msgspec

from emulator.repeats.result import SCHEMA as SEVERAL
from emulator.repeats.result import Repeats
from emulator.result import SCHEMA as ONE_EACH
from emulator.result import Comparison

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema_of_results() -> dict[str, Any]:
    """Give the schema of result.json and --json: which of the two it is, `schema` in it says."""
    kinds, parts = msgspec.json.schema_components([Comparison, Repeats])
    for name, version in (("Comparison", ONE_EACH), ("Repeats", SEVERAL)):
        parts[name]["properties"]["schema"] = {"const": version}
        parts[name]["required"] = [*parts[name]["required"], "schema"]
    return _portable({
        "$schema": DRAFT,
        "title": f"a result of luf: {ONE_EACH} or {SEVERAL}",
        "oneOf": list(kinds),
        "$defs": parts,
    })  # fmt: skip


def _portable(part: Any) -> Any:
    """Give patterns as JSON Schema has them: it knows no \\A and \\Z."""
    if isinstance(part, list):
        return [_portable(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: value.replace(r"\A", "^").replace(r"\Z", "$")
        if key == "pattern" and isinstance(value, str)
        else _portable(value)
        for key, value in part.items()
    }


def schema_text() -> str:
    """Give it as the text that is published."""
    text = msgspec.json.encode(schema_of_results())
    return msgspec.json.format(text, indent=1).decode() + "\n"
