"""A result that was read has figures that can be, and that do not contradict each other."""

from __future__ import annotations

import copy
import json

import pytest

from emulator.cli import main
from emulator.report.text import report_text
from emulator.report.timeline import timeline_text
from emulator.result import ResultError, compare, from_json, read_comparison, to_json
from tests.emulator.fixed import REUSE, comparison, run

DEBUGGED = {"records": 4, "checks": 9, "findings": 1}
FINDING = {
    "site": "KMAP_WRITE", "function": "f(), mm/filemap.c", "cpu": 0, "task": "p, thread 0", "t_ns": 1000,
    "frame": 7, "record": "file", "record_of": "file data", "request": 9, "lagging": [1], "done": [12, 3],
}  # fmt: skip
TIMELINE = {"end_ns": 10, "piece_ns": 2, "sites": {"kswapd": [1, 2, 3], "fault": [0, 1, 0]}}


def whole():
    """Give a result with something of everything, as plain tables."""
    full = comparison(
        run("linux", timeline=TIMELINE, overrides={"costs.walk": 1}),
        run("luf", debug_luf=DEBUGGED, debug_findings=[FINDING], violations=[REUSE],
            design_stats={"findings": ["a ring ran over"]}, overrides={"costs.walk": 1}),
    )  # fmt: skip
    return json.loads(to_json(full))


def changed(path, value):
    """Give the text of that result with one value replaced; the path is dotted, with numbers for lists."""
    table = whole()
    place = table
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    for step in steps:
        place = place[step]
    place[last] = value
    return json.dumps(table)


def test_the_whole_one_is_read():
    """What is changed below was right before."""
    assert len(from_json(json.dumps(whole())).runs) == 2


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("runs/0/tlb_shootdowns", -5, "tlb_shootdowns' must be at least 0 (got -5)"),
        ("runs/0/tlb_shootdowns", 41, "tlb_shootdowns' must be the sum of those of all CPUs, 1,580"),
        ("runs/1/unmap/ro", -3, "unmap.ro' must be at least 0 (got -3)"),
        ("runs/0/runtime_ns", [-1], "runtime_ns[0]' must be at least 0 (got -1)"),
        ("runs/1/token_ns", [[5, -1]], "token_ns[0][1]' must be at least 0 (got -1)"),
        ("runs/0/accounted/frame", [-1, 0], "accounted.frame[0]' must be at least 0 (got -1)"),
        ("runs/0/cpu_points", [1], "cpu_points' must have a number for each of 4 CPUs, or none (got [1])"),
        ("runs/0/series/free_mib/0/0", 1e20, "free_mib[0][0]' must be at most 1e+19 (got 1e+20)"),
        ("runs/0/vmstat/pgfault", -1, "vmstat.pgfault' must be at least 0 (got -1)"),
        ("runs/0/flush_sites/kswapd", "x", "flush_sites.kswapd' must be a whole number (got 'x')"),
        ("runs/0/counters/irq_call", [1], "counters.irq_call' must have a number for each of 4 CPUs"),
        ("runs/0/counters/irq_call", [1, 2, 3, -4], "counters.irq_call[3]' must be at least 0 (got -4)"),
        ("runs/0/counters/irq_tlb", [1, 2, 3, 4], "counters.irq_tlb' must be tlb_shootdowns_per_cpu"),
        ("runs/0/accounted/frame", [200], "accounted.frame' must be a list of at least 2 (got [200])"),
        ("runs/0/accounted/frame", [1, 2, 3], "accounted.frame' must be a list of at most 2"),
        ("runs/0/host_seconds", -0.5, "host_seconds' must be at least 0 (got -0.5)"),
        ("runs/0/scale", 0, "scale' must be at least 1 (got 0)"),
        ("runs/0/leases", 63, "leases' must be at most 62 (got 63)"),
        ("runs/0/check", "none", "check' must be full or accesses or states or bounds or off (got 'none')"),
        ("runs/0/tokens", 2, "'tokens' must be the same in all runs of a comparison (got 2, 4)"),
        ("runs/0/overrides", {}, "'overrides' must be the same in all runs of a comparison (got "),
        ("runs/1/design", "linux", "'design' must be another one in each run (got ['linux', 'linux'])"),
        ("runs/1/design", "a\nb", "design' must be text on one line (got 'a\\nb')"),
        ("runs/0/series/free_mib/0", [1.0], "series.free_mib[0]' must have as many points as t_ns, 2"),
        ("runs/0/series/t_ns", [5, 4], "series.t_ns' must grow (got [5, 4])"),
        ("runs/0/node_names", [], "node_names' must name the 2 nodes of series.free_mib (got [])"),
        ("runs/0/timeline/sites/fault", [], "timeline.sites' must have as many pieces for each site"),
        ("runs/0/timeline/end_ns", 0, "timeline.end_ns' must be above 0 where sites have pieces"),
        ("runs/0/timeline/complete_from_ns", 2**62, "complete_from_ns' must be at most end_ns, 10 (got 46"),
        ("runs/0/timeline/rings_wrapped", 5, "timeline.rings_wrapped' must be at most the 4 CPUs (got 5)"),
        ("runs/0/timeline/piece_ns", 2**63, "timeline.piece_ns' must be at most 9223372036854775807"),
        ("runs/1/violations/0/events", 5, "violations[0].events' must be a list (got 5)"),
        ("runs/1/violations/0/t_ns", "soon", "violations[0].t_ns' must be a whole number (got 'soon')"),
        ("runs/1/violations/0/frame", -2, "violations[0].frame' must be at least -1 (got -2)"),
        ("runs/1/violations/0/cpu", 4, "violations[0].cpu' must be one of 4 CPUs (got 4)"),
        ("runs/1/debug_findings/0/cpu", 4, "debug_findings[0].cpu' must be one of 4 CPUs (got 4)"),
        ("runs/1/violations/0/address", -1, "violations[0].address' must be at least 0 (got -1)"),
        ("runs/1/violations/0/events/0/t_ns", None, "violations[0].events[0].t_ns' must be a whole"),
        ("runs/1/debug_luf", {"findings": 1}, "debug_luf' must have records, checks, findings, or nothing"),
        ("runs/1/debug_luf/findings", 0, "debug_findings' must be at most debug_luf.findings, 0 (got 1)"),
        ("runs/1/debug_findings/0/site", "ELSE", "debug_findings[0].site' must have the form (KMAP|"),
        ("runs/1/debug_findings/0/lagging", [2], "debug_findings[0].lagging' must go with its record"),
        ("runs/1/debug_findings/0/record", "page", "debug_findings[0].held' must go with its record"),
        ("runs/1/debug_findings/0/record", "mm", ""),
        ("runs/1/debug_findings/0/address", 4096, "debug_findings[0].mm' must go with its record"),
        ("runs/1/design_stats", {"findings": 5}, "design_stats.findings' must be a list of sentences"),
        ("host", {"cores": "two"}, "'host.cores' must be a whole number (got 'two')"),
        ("versions", {"python": 3}, "'versions.python' must be text (got 3)"),
        ("command", "luf", "'command' must be a list (got 'luf')"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(path, value, sentence):
    """By type, by bound, or by another figure: key, rule and value."""
    text = changed(path, value)
    if not sentence:
        assert from_json(text)
        return
    with pytest.raises(ResultError) as refused:
        from_json(text)
    said = str(refused.value)
    assert said.startswith(("this is not a result of luf: ", "this result contradicts itself: "))
    assert sentence in said
    assert len(said) < 300


def leaves(value, path=()):
    """Give the path of every value of a table."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from leaves(one, (*path, key))


@pytest.mark.parametrize("odd", [None, -1, 2**63, 1.5, "x", [], {}, [[]], True, ""])
def test_any_value_in_any_place_is_refused_or_reported(odd):
    """A report of what is accepted can be printed: nothing of another shape reaches it."""
    table = whole()
    for path in leaves(table):
        mutated = copy.deepcopy(table)
        place = mutated
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = odd
        try:
            read = from_json(json.dumps(mutated))
        except ResultError as error:
            said = str(error)
        else:
            said = "" if report_text(read) + timeline_text(read.runs) else "nothing"
        assert len(said) < 400, path


@pytest.mark.parametrize("text", ["\x1b[31m", "\x7f", "\x9b31m", "\udcff", "\u202e"])
def test_text_of_others_is_visible_wherever_it_goes(tmp_path, capsys, text):
    """In a fresh run's report and JSON, and in one that somebody has made: nothing a terminal would obey."""
    odd = compare(
        [run("none", machine=text, workload=text, violations=[REUSE | {"expected": text}],
             overrides={"name": text}, design_stats={"findings": [text]})],
        command=["luf", text], folder=text,
    )  # fmt: skip
    assert text not in report_text(odd)
    assert from_json(to_json(odd)) == odd
    table = whole()
    table["runs"][0]["workload_text"] = table["folder"] = "red" + text
    file = tmp_path / "result.json"
    file.write_bytes(json.dumps(table).encode("utf-8"))
    if text != "\udcff":  # which JSON cannot have
        assert "red" + ascii(text)[1:-1] in report_text(read_comparison(file))
        assert main(["report", str(file)]) == 1
        assert text not in capsys.readouterr().out


def test_an_odd_name_of_a_file_is_told_visibly(tmp_path, capsys):
    """Wherever a sentence names it."""
    assert main(["report", f"{tmp_path}/\x1b[31mred"]) == 2
    assert capsys.readouterr().err.endswith("/\\x1b[31mred: cannot be read (No such file or directory)\n")
