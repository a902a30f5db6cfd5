"""A recording is read as it is written; a mistake in it is one sentence with file, key, rule and value."""

from __future__ import annotations

import re

import pytest

from emulator.golden.data import DERIVED, GoldenError, kernel_folder, read_recording
from emulator.golden.pressure import PRESSURE_ROWS, pressure_machine
from emulator.golden.rules import Explained, Explanation, Rules, read_explained, read_rules
from tests.golden.recorded import cell, run, write


def test_a_recording_is_read(tmp_path):
    """Cells and runs in their order; a counter that is absent was 0; a run finds its environment."""
    cells = [cell("b", 1), cell("a", 8, pgfault=[1, 2, 3])]
    runs = [run("x", env="guest"), run("x_rep2", env="guest")]
    folder = write(
        tmp_path,
        cells,
        runs,
        environments={"guest": {"uname": "Linux (none) 6.12.117+deb12-amd64 x86_64"}},
        docs={"a": "an a"},
    )
    found = read_recording(folder)
    assert [one.key for one in found.micro] == [("b", 1, 16), ("a", 8, 16)]
    assert (found.micro[0].counter("pgfault"), found.micro[1].counter("pgfault")) == ((0, 0, 0), (1, 2, 3))
    assert (found.scenarios, found.kernel, found.docs) == (("b", "a"), "6.12", {"a": "an a"})
    assert [(one.tag, one.repeats, one.policy) for one in found.pressure] == [
        ("x", "x", ("true", "2")),
        ("x_rep2", "x", ("true", "2")),
    ]
    assert found.pressure[0].entry["environment"]["uname"].startswith("Linux")
    assert found.raw["pressure"][1] == found.pressure[1].entry


def test_the_mean_of_events_is_a_sum_again():
    """8.667 over three repetitions were 26 events."""
    from msgspec import convert

    from emulator.golden.data import RecordedCell

    one = convert(cell(events={"remote_send_ipi/1": 8.667, "local_shootdown/all0": 2}), RecordedCell)
    assert (
        one.event_sum("remote_send_ipi/1"),
        one.event_sum("local_shootdown/all0"),
        one.event_sum("other/1"),
    ) == (26, 6, 0)


def test_a_part_of_a_recording(tmp_path):
    """--only takes scenarios and tags; a pattern that matches nothing is refused with what there is."""
    found = read_recording(write(tmp_path, [cell("f_fork"), cell("a_munmap")], [run("f8_d1n2")]))
    part = found.only("f*")
    assert ([one.scenario for one in part.micro], [one.tag for one in part.pressure]) == (
        ["f_fork"],
        ["f8_d1n2"],
    )
    with pytest.raises(
        GoldenError, match=r"^'--only' must match .* \(got 'z\*'\); there are f_fork, a_munmap, f8_d1n2$"
    ):
        found.only("z*")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "golden.json: must be a table with 'micro' and 'pressure' (got a list)"),
        ("{", "golden.json: is not JSON ("),
        ("{}", "golden.json: 'micro' or 'pressure' must have at least one entry (got none)"),
        ('{"micro": 3}', "golden.json: 'micro' must be a list (got 3)"),
        ('{"micro": [{"scenario": "a", "T": 1}]}', "golden.json: micro[0]: 'P' is missing"),
    ],
)
def test_a_file_that_is_no_recording(tmp_path, text, sentence):
    """Not JSON, not a table, nothing in it."""
    (tmp_path / "golden.json").write_text(text)
    with pytest.raises(GoldenError, match=re.escape(sentence)):
        read_recording(tmp_path)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (cell(T=0), "micro[0]: 'T' must be at least 1 (got 0)"),
        (cell(P="many"), "micro[0]: 'P' must be a whole number (got 'many')"),
        (cell(scenario=""), "micro[0]: 'scenario' must be text of at least 1 character (got '')"),
        (
            cell(ipis=(3, 2, 4)),
            "micro[0]: 'counters.tlb_ipi' must be [min, median, max] in this order (got [3, 2, 4])",
        ),
        (
            cell(events={"remote/x": 1}),
            "'traced.events_per_rep' must have keys reason/pages, pages a number or all0 (got 'remote/x')",
        ),
        (
            cell(events={"a/1": 1.5}),
            "micro[0]: 'traced.events_per_rep.a/1' must be a mean of 3 whole numbers (got 1.5)",
        ),
        (cell(T=257), "micro[0]: 'T' must be at most 256 (got 257)"),
        (cell(P=10**9), "micro[0]: 'P' must be at most 1048576 (got 1000000000)"),
        (cell(ipis=(-1, 0, 0)), "micro[0]: 'counters.tlb_ipi[0]' must be at least 0 (got -1)"),
        (cell(ipis=(0, 0)), "micro[0]: 'counters.tlb_ipi' must be a list of 3 (got [0, 0])"),
        (cell() | {"reps": 2}, "micro[0]: 'traced.reps' must be at most reps, 2 (got 3)"),
        (cell(events={"a/²": 1}), "must have keys reason/pages, pages a number or all0 (got 'a/²')"),
        (cell(events={"a/1\n": 1}), "must have keys reason/pages, pages a number or all0 (got 'a/1\\n')"),
        (cell(events={"a/" + "9" * 5000: 1}), "pages a number or all0 (got 'a/9999"),
        (cell(scenario="a\nb"), "micro[0]: 'scenario' must be text on one line (got 'a\\nb')"),
    ],
)
def test_a_cell_that_breaks_a_rule(tmp_path, entry, sentence):
    """Place, key, rule and value."""
    with pytest.raises(GoldenError, match=re.escape(sentence)) as refused:
        read_recording(write(tmp_path, [entry]))
    assert len(str(refused.value)) < 300 + len(str(tmp_path))


def without(path: str, entry: dict) -> dict:
    """Return an entry without a key; a dotted path names one in a table in it."""
    key, _, rest = path.partition(".")
    return {
        name: without(rest, value) if rest and name == key else value
        for name, value in entry.items()
        if rest or name != key
    }


@pytest.mark.parametrize("key", ["traced.reps", "traced.events_per_rep"])
def test_a_cell_with_half_a_trace_is_refused(tmp_path, key):
    with pytest.raises(GoldenError, match=rf"golden.json: micro\[0\]: '{key}' is missing$"):
        read_recording(write(tmp_path, [without(key, cell())]))


NEEDED = ("tag", "T", "workload", "mb_per_proc", "sweeps", "page_touches", "env", "settings.numa_balancing",
          "settings.demotion_enabled", "counters", "tlb_flush.send_ipi_by_site",
          *(f"derived.{name}" for name in DERIVED))  # fmt: skip


@pytest.mark.parametrize("key", NEEDED)
def test_a_run_that_lacks_what_is_read(tmp_path, key):
    """Said while the recording is read, not when the run's turn has come."""
    with pytest.raises(GoldenError, match=rf"golden.json: pressure\[0\]: '{key}' is missing$"):
        read_recording(write(tmp_path, [], [without(key, run())]))


def test_the_format_is_described_where_the_recording_is():
    """golden.json refers to its README.md: it names every key that is needed, and those of the two tables
    beside it.
    """
    text = (kernel_folder("6.12") / "README.md").read_text(encoding="utf-8")
    keys = {
        part for key in (*NEEDED, *cell(), *cell()["traced"]) for part in key.split(".") if key != "derived"
    }
    tables = {name for table in (Rules, Explanation, Explained) for name in table.__struct_fields__} - {
        "difference",
        "not_modelled",
    }
    assert {key for key in keys | tables if not re.search(rf"`([\w.]+\.)?{key}(\.\w+)?`", text)} == set()


def test_needed_is_enough():
    """A run with just these keys can be compared in every row."""
    entry = run()
    entry["derived"] = {name: entry["derived"][name] for name in DERIVED}
    tables = ("settings", "tlb_flush", "derived")
    assert {key for key in entry if key not in tables} | {
        f"{key}.{name}" for key in tables for name in entry[key]
    } == set(NEEDED)
    for kind in ("file_ro", "anon_rw"):
        for row in PRESSURE_ROWS:
            row.value(entry | {"workload": kind})
        pressure_machine(entry | {"workload": kind})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"settings": {"numa_balancing": "on", "demotion_enabled": "1"}},
            "'settings.numa_balancing' must be 0 or 1 or 2 (got 'on')",
        ),
        (
            {"tlb_flush": {"send_ipi_by_site": {"kswapd": 1}}},
            "'tlb_flush.send_ipi_by_site' must have keys actor/why (got 'kswapd')",
        ),
        ({"derived": dict.fromkeys(DERIVED)}, "'derived.shootdown_broadcasts' must be a number (got None)"),
        ({"secs": "25 s"}, "'secs' must be"),
        ({"page_touches": 0}, "'page_touches' must be at least 1 (got 0)"),
        ({"T": 10**9}, "'T' must be at most 256 (got 1000000000)"),
        ({"mb_per_proc": 10**12}, "'mb_per_proc' must be at most 65536 (got 1000000000000)"),
        ({"sweeps": 2**40}, "'sweeps' must be at most 65536 (got 1099511627776)"),
        (
            {"settings": {"numa_balancing": "2" * 5000, "demotion_enabled": "true"}},
            "'settings.numa_balancing' must be 0 or 1 or 2 (got '2222",
        ),
        (
            {"settings": {"numa_balancing": "²", "demotion_enabled": "true"}},
            "'settings.numa_balancing' must be 0 or 1 or 2 (got '²')",
        ),
        (
            {"settings": {"numa_balancing": "2", "demotion_enabled": "yes"}},
            "'settings.demotion_enabled' must be true or false (got 'yes')",
        ),
        (
            {"counters": {"pgfault": -1}},
            "'counters.pgfault' must be at least 0, as it counts events (got -1)",
        ),
        (
            {"counters": {"nr_free_pages": -1, "workingset_nodes": -1, "tlb_ipi": -1000}},
            "'counters.tlb_ipi' must be at least 0, as it counts events (got -1000)",
        ),
        (
            {"tlb_flush": {"send_ipi_by_site": {"a/b": -1}}},
            "'tlb_flush.send_ipi_by_site.a/b' must be at least 0 (got -1)",
        ),
        (
            {"derived": dict.fromkeys(DERIVED, 1) | {"pages_demoted": -1}},
            "'derived.pages_demoted' must be at least 0 (got -1)",
        ),
        (
            {"migrations": {"demotion": {"calls": -1}}},
            "'migrations.demotion.calls' must be at least 0 (got -1)",
        ),
        ({"secs": -1.0}, "'secs' must be at least 0 (got -1.0)"),
    ],
)
def test_a_run_that_breaks_a_rule(tmp_path, changes, sentence):
    """Place, key, rule and value."""
    with pytest.raises(GoldenError, match=re.escape(f"pressure[0]: {sentence}")):
        read_recording(write(tmp_path, [], [run(**changes)]))


def test_two_entries_of_the_same_cell_and_an_unknown_environment(tmp_path):
    """One of them would silently win."""
    twice = "'micro' must not have two entries of the same scenario, T and P (got ('a', 4, 16) twice)"
    with pytest.raises(GoldenError, match=re.escape(twice)):
        read_recording(write(tmp_path, [cell("a"), cell("a")]))
    with pytest.raises(
        GoldenError,
        match=re.escape("pressure[0]: 'env' must be one of none, as there are none (got 'guest')"),
    ):
        read_recording(write(tmp_path, [], [run(env="guest")], environments={}))


def test_no_folder_and_no_such_kernel(tmp_path):
    """Said with what would do."""
    with pytest.raises(
        GoldenError, match=r"^'--data' must be a folder with a file golden.json \(got '.*nowhere'\)$"
    ):
        read_recording(tmp_path / "nowhere")
    with pytest.raises(GoldenError, match=r"^'--kernel' must be one of 6.12 \(got '6.18'\)$"):
        kernel_folder("6.18")


RULES = """\
kernel = "6.12"
recorded = "here"
constants = { tlb_single_page_flush_ceiling = 33, folio_batch_size = 31, migrate_batch_pages = 512, swap_cluster_max = 32, pgsteal_includes_demoted = true }
names = { counters = ["tlb_ipi"], full_flush = "all0" }
"""  # noqa: E501


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("6.12", "6.13", "'kernel' must be its folder's name '6.12' (got '6.13')"),
        ("33", "0", "'constants.tlb_single_page_flush_ceiling' must be at least 1 (got 0)"),
        ("swap_cluster_max", "swap_cluster", "'constants.swap_cluster' is not a key that is known"),
        ('recorded = "here"', "", "'recorded' is missing"),
        ("kernel =", "kernel", "is not TOML"),
    ],
)
def test_rules_that_break_a_rule(tmp_path, old, new, sentence):
    """rules.toml names its kernel and has all constants, and no others."""
    folder = tmp_path / "6.12"
    folder.mkdir()
    (folder / "rules.toml").write_text(RULES)
    assert read_rules(folder).constants.folio_batch_size == 31
    (folder / "rules.toml").write_text(RULES.replace(old, new, 1))
    with pytest.raises(GoldenError, match=re.escape(sentence)):
        read_rules(folder)


def test_explanations_name_a_linux_function_and_cover_what_they_say(tmp_path):
    """First entry wins; T, P, scenario and metric must all fit; a bound on P covers no pressure run."""
    (tmp_path / "explained.toml").write_text(
        '[[difference]]\nscenario = "f_*"\nmetric = "remote_*"\nT = [4, 8]\nP_max = 33\n'
        'mechanism = "dup_mmap() flushes."\n'
        '[[difference]]\nscenario = "f*"\nmechanism = "Everything else is fork()."\n'
    )
    explained = read_explained(tmp_path)
    assert explained.of("f_fork", "remote_send_ipi/1", 4, 33) == "dup_mmap() flushes."
    others = [
        ("f_fork", "tlb_ipi", 4, 33),
        ("f_fork", "remote_send_ipi/1", 1, 33),
        ("f_fork", "remote_send_ipi/1", 4, 34),
    ]
    assert {explained.of(*other) for other in others} == {"Everything else is fork()."}
    assert (explained.of("f_8", "remote_x", 4), explained.of("a", "tlb_ipi", 1, 1)) == (
        "Everything else is fork().",
        "",
    )
    (tmp_path / "explained.toml").write_text('[[difference]]\nscenario = "f"\nmechanism = "Because."\n')
    with pytest.raises(
        GoldenError,
        match=re.escape("'difference[0].mechanism' must name the Linux function as name() (got 'Because.')"),
    ):
        read_explained(tmp_path)
