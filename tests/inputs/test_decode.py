"""Decoding gives plain values of bounded depth, or one sentence, whatever the decoder raises."""

from __future__ import annotations

import time

import pytest

from inputs.decode import DEPTH, NotOneValue, json_value, read_json, read_toml, toml_value
from inputs.file import InputError


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = ", "is not TOML (Invalid value (at end of document))"),
        ("x = " + "[" * 100_000, "is not TOML (it is nested more than 64 deep)"),
        ("x = " + "{x = " * 10_000, "is not TOML (it is nested more than 64 deep)"),
        ("x = " + "[" * 65 + "]" * 65, f"'x{'[0]' * 9}[0 ... {'[0]' * 10}' must be nested at most 64 deep"),
        (".".join(["a"] * 66) + " = 1", "is not TOML (a key has more than 64 parts)"),
        ("'a' . " * 65 + "b = 1", "is not TOML (a key has more than 64 parts)"),
        ("x = " + "9" * 5000, "is not TOML (it has a number of thousands of digits)"),
        ("a.b = [0, 0x" + "f" * 5000 + "]", "'a.b[1]' must be a number of at most 64 bits (got a number of"),
        ("x = nan", "'x' must be a finite number (got nan)"),
        ("x = 1e999", "'x' must be a finite number (got inf)"),
        ("x = 1979-05-27", "'x' must be text, a number, true or false, a list or a table (got datetime.date"),
        ('[[a]]\n[a.b]\nc = "\\u009b"', "'a[0].b.c' must be text without control characters (got '\\x9b')"),
        ('"\\u007f" = 1', "'\\x7f' must be a key without control characters"),
        ('x = "\x7f"', "is not TOML (Illegal character"),
        ('x = "\udcff"', "is not TOML ('utf-8' codec can't decode byte 0xff"),
    ],
)
def test_what_is_wrong_with_toml_is_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "my.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as refused:
        read_toml(file)
    assert str(refused.value).startswith(f"{file}: {sentence}")
    assert len(str(refused.value)) < 250 + len(str(file))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON (Input data was truncated)"),
        ("[" * 100_000, "is not JSON (it is nested more than 64 deep)"),
        ("[" * 65 + "0" + "]" * 65, f"'{'[0]' * 10} ... {'[0]' * 10}' must be nested at most 64 deep"),
        ('{"a": [1, 2e400]}', "is not JSON ("),
        ('{"a": [1, ' + "9" * 5000 + "]}", "is not JSON ("),
        ('{"a": [1, ' + "9" * 30 + "]}", "'a[1]' must be a number of at most 64 bits (got 99999"),
        ('"\udcff"', "is not JSON ("),
    ],
)
def test_what_is_wrong_with_json_is_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "my.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as refused:
        read_json(file)
    assert str(refused.value).startswith(f"{file}: {sentence}")
    assert len(str(refused.value)) < 250 + len(str(file))


def test_what_is_right_is_read():
    """At the deepest that is allowed, with all types; text of programs is made visible."""
    deep = "[" * DEPTH + "1" + "]" * DEPTH
    assert json_value(deep, "x") == toml_value(deep)
    assert json_value('{"\\u001b": ["a\\u009b\\n", 1, -1.5, true, null]}', "x") == {
        "\\x1b": ["a\\x9b\n", 1, -1.5, True, None]
    }


@pytest.mark.parametrize("line", ["a.", '"a".', "'a' . ", "["])
def test_long_lines_take_no_time(tmp_path, line):
    """A key of a million parts would cost the decoder the square of them."""
    file = tmp_path / "my.toml"
    file.write_text(line * 500_000, encoding="utf-8")
    began = time.process_time()
    with pytest.raises(InputError):
        read_toml(file)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("[1, 2]", [1, 2]), ('"a # b"', "a # b"), ("{a = 1}", {"a": 1}), ("true", True), ("[]", [])],
)
def test_one_value(text, value):
    assert toml_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1, 2",
        "1 # one",
        "1\nlike = 'x'",
        "1\r\nx = 2",
        "[1] #",
        "1] #",
        "1}\n[a]",
        "'''a\nb'''",
        "hello",
        "1 2",
        "=",
    ],
)
def test_more_or_less_than_one_value(text):
    """Nothing is dropped, nothing else is set."""
    with pytest.raises(NotOneValue):
        toml_value(text)


@pytest.mark.parametrize("text", ["[" * 5000, "9" * 5000, "0x" + "f" * 5000, "nan", '"\\u007f"', "12:30:00"])
def test_a_value_that_no_key_can_have(text):
    with pytest.raises(ValueError) as refused:
        toml_value(text)
    assert not isinstance(refused.value, NotOneValue)
    assert len(str(refused.value)) < 200
