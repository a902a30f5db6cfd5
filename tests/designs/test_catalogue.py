"""Designs by name, with parameters, from files; what is wrong is said in one sentence."""

import pytest

from designs import design, names
from designs.shelf import SHELF

OWN = '''from designs.design import Design


class Mine(Design):
    """mine"""

    name = "mine"
    parameters = {"speed": {"slow": "as ever", "fast": "at once"}}
'''


def test_a_parameter_has_a_default_and_the_name_stays_plain():
    assert (design("luf").name, design("luf").chosen) == ("luf", {"sync": "owner"})


def test_the_name_says_what_was_given():
    assert (design("luf:sync=help").name, design("luf:sync=help").chosen) == (
        "luf:sync=help",
        {"sync": "help"},
    )
    assert design("luf_v12:records=required").name == "luf_v12:records=required"


def test_each_way_to_synchronise_has_hooks_of_its_own_and_each_hook_once():
    for name in names():
        places = [entry.text for entry in design(name).hooks]
        assert len(places) == len(set(places)), name
    assert design("luf:sync=help").hooks != design("luf:sync=owner").hooks == design("luf").hooks


def test_all_values_are_listed():
    assert {
        "luf",
        "luf:sync=each",
        "luf:sync=tick",
        "luf_v12",
        "luf_v12:records=required",
        "luf_hold",
    } <= set(names())
    assert names()["luf:sync=owner"].endswith("(the default)")


@pytest.mark.parametrize(
    "name, sentence",
    [
        (
            "luf:sync=sometimes",
            "'luf:sync' must be one of owner, each, global, help, skip, kicker, tick (got 'sometimes')",
        ),
        ("luf:when=now", "'parameter of luf' must be one of sync (got 'when')"),
        (
            "linux:sync=each",
            "'parameter of linux' must be one of none: this design has no parameters (got 'sync')",
        ),
        ("luf:sync", "'parameter of a design' must be written key=value (got 'sync' in 'luf:sync')"),
        ("luf:sync=each:sync=each", "'sync' must be given once (got it twice in 'luf:sync=each:sync=each')"),
        (
            "luv",
            f"'design' must be one of {', '.join(kind.name for kind in SHELF)}, or FILE.py:CLASS "
            "(got 'luv'); did you mean 'luf'?",
        ),
        (
            "no.py:Mine:speed=fast",
            "'design' must be a name or FILE.py:CLASS (got 'no.py:Mine:speed=fast', and there is no file "
            "'no.py')",
        ),
    ],
)
def test_what_is_wrong_is_said(name, sentence):
    with pytest.raises(ValueError) as found:
        design(name)
    assert str(found.value) == sentence


def test_a_users_design_takes_parameters(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert design(f"{file}:Mine").chosen == {"speed": "slow"}
    assert design(f"{file}:Mine:speed=fast").name == "mine:speed=fast"
    with pytest.raises(ValueError, match="'mine:speed' must be one of slow, fast"):
        design(f"{file}:Mine:speed=warp")
