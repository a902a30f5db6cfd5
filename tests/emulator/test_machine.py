"""Machine files: what they hold, what scaling keeps, and the sentence that each mistake gets."""

from __future__ import annotations

import errno
import pickle
import re
import resource
from pathlib import Path

import numpy as np
import pytest

import emulator.host_facts
from emulator.host_facts import HostError, check_host, files_needed, memory_for
from emulator.machine import MACHINES, MachineError, load_machine, machine_names, machine_table
from emulator.run_folder import toml_text

CPU_LIST_RULE = "'nodes[0].cpus' must be true, false, or a list of CPUs below 256 such as \"0-15,32-47\""


def test_the_talks_machine():
    """64 CPUs in node 0, DRAM 42 GiB, CXL 96 GiB without CPUs, tiering, demotion, Golden Cove's TLBs."""
    machine = load_machine("xeon6430-cxl", scale=1)
    assert machine.cpus == 64
    assert [(node.memory_mib, node.cpus) for node in machine.nodes] == [(42 * 1024, True), (96 * 1024, False)]
    assert (machine.sysctl.numa_balancing, machine.sysctl.demotion_enabled, machine.swap_mib) == (2, True, 0)
    tlb = machine.tlb
    assert [(a.entries, a.ways, a.sets) for a in (tlb.dtlb_load, tlb.dtlb_store, tlb.itlb, tlb.stlb)] == [
        *[(96, 6, 16), (16, 16, 1), (256, 8, 32), (2048, 16, 128)]
    ]
    assert machine.summary() == "64 CPUs, DRAM 42 GiB + CXL 96 GiB, no swap, tiering on"


def test_scaling_divides_memory_and_nothing_else():
    """At 1/1024 the nodes have 42 and 96 MiB; TLBs, sysctls and costs are the full-size machine's."""
    full, scaled = load_machine("xeon6430-cxl", scale=1), load_machine("xeon6430-cxl", scale=1024)
    assert [pages * 1024 for pages in scaled.pages] == full.pages == [11010048, 25165824]
    assert (scaled.tlb, scaled.sysctl, scaled.costs) == (full.tlb, full.sysctl, full.costs)
    assert scaled.scaled_summary() == "scale 1/1024: 42 MiB + 96 MiB"


def test_a_scale_that_is_not_given_is_the_files_own():
    """default_scale is a fact of the machine file, and what --machine takes without --scale."""
    machine = load_machine("xeon6430-cxl")
    assert machine.scale == machine.default_scale == 256
    assert machine == load_machine("xeon6430-cxl", scale=None) == load_machine("xeon6430-cxl", scale=256)
    assert load_machine("guest-8cpu").pages == [65536, 131072]


def test_like_changes_only_what_a_file_names(tmp_path):
    """A file of four lines is a machine."""
    file = tmp_path / "slow.toml"
    file.write_text('like = "guest-8cpu"\nname = "slow"\n[costs]\nipi_latency = 9000\n')
    slow, guest = load_machine(file), load_machine("guest-8cpu")
    assert (slow.name, slow.costs.ipi_latency) == ("slow", 9000)
    assert slow.costs.ipi_send == guest.costs.ipi_send
    assert slow.nodes == guest.nodes


def test_a_machine_like_another_is_not_called_by_its_name(tmp_path):
    """Without a name of its own it has that of its file; a screen must not say that the other one ran."""
    file = tmp_path / "slow.toml"
    file.write_text('like = "guest-8cpu"\n[sysctl]\nnuma_balancing = 1\n')
    machine = load_machine(file)
    assert machine.name == "slow"
    assert machine.summary().endswith("NUMA balancing 1, which does nothing here")


def test_the_config_of_a_run_is_its_machine(tmp_path):
    """Written as a run folder's config.toml and read again, it is the same machine at the same scale; another
    scale can be asked for.
    """
    machine = load_machine("two-socket", scale=64, cpus=3, overrides={"costs.ipi_send": 77})
    file = tmp_path / "config.toml"
    file.write_text(
        toml_text(
            {
                "command": "run",
                "designs": ["luf"],
                "scale": 64.0,
                "set": {},
                "machine": machine_table(machine),
            }
        )
    )
    again = load_machine(file, scale=None)
    assert machine_table(again) == machine_table(machine) | {"default_scale": 64.0}
    assert (again.pages, again.watermarks, again.costs.ipi_send) == (machine.pages, machine.watermarks, 77)
    assert load_machine(file, scale=32).pages == load_machine("two-socket", scale=32).pages


def test_the_other_machines():
    """The series' QEMU guest, two sockets with CPUs each, and twice the talk's CPUs; each at its own scale
    has room to run in.
    """
    qemu, sockets, many = (load_machine(name, scale=None) for name in ("qemu-16", "two-socket", "cpu-128"))
    assert (qemu.cpus, [node.memory_mib for node in qemu.nodes]) == (16, [1024, 8192])
    assert ([node.cpus for node in sockets.nodes], sockets.distances) == ([True, True], [[10, 21], [21, 10]])
    assert many.cpus == 128
    assert all(pages >= 4096 for machine in (qemu, sockets, many) for pages in machine.pages)


def test_each_cpu_has_a_node():
    """Nodes that say true share out the CPUs in order, as many as there are; a list says it exactly, and may
    name more than there are.
    """
    assert load_machine("two-socket", scale=None).cpu_nodes == [0] * 32 + [1] * 32
    assert load_machine("two-socket", scale=None, cpus=5).cpu_nodes == [0, 0, 1, 1, 1]
    assert set(load_machine("xeon6430-cxl").cpu_nodes) == {0}
    crossed = {"nodes.0.cpus": "0-1,4", "nodes.1.cpus": True}
    assert load_machine("two-socket", scale=None, cpus=6, overrides=crossed).cpu_nodes == [0, 0, 1, 1, 0, 1]
    assert load_machine("two-socket", scale=None, cpus=2, overrides=crossed).cpu_nodes == [0, 0]


def test_switches_are_off_unless_asked_for():
    """init_on_free and KASAN are choices of the kernel that was built and booted."""
    off = load_machine("xeon6430-cxl").sysctl
    on = load_machine("xeon6430-cxl", overrides={"sysctl.init_on_free": True}).sysctl
    assert (off.init_on_free, off.kasan_poison, on.init_on_free) == (False, False, True)


def test_a_cost_without_a_figure_is_named(tmp_path):
    """The engine declares it, and no file gives it: whoever adds a cost hears where it is missing."""
    base = (MACHINES / "xeon6430-cxl.toml").read_text()
    file = tmp_path / "halfway.toml"
    file.write_text(re.sub(r"\nwalk = .*", "", base))
    with pytest.raises(MachineError, match=r"^halfway.toml: 'costs.walk' is missing$"):
        load_machine(file)


def test_a_cost_that_nobody_charges_is_named(tmp_path):
    file = tmp_path / "idle.toml"
    file.write_text('like = "xeon6430-cxl"\n[costs]\nwlak = 5\n')
    with pytest.raises(
        MachineError, match=r"^idle.toml: 'costs.wlak' is not a key of a machine; did you mean 'walk'"
    ):
        load_machine(file)


def test_a_machine_travels():
    """To another process, say: its cost table is of a type that is made at run time."""
    machine = load_machine("two-socket", overrides={"costs.walk": 77})
    assert pickle.loads(pickle.dumps(machine)) == machine


def test_every_figure_of_the_talks_machine_says_where_it_comes_from():
    """Each cost and TLB line, or the comment lines that go on below it, ends in a grade; groups may share
    one.
    """
    text = (MACHINES / "xeon6430-cxl.toml").read_text()
    assert len(re.findall(r"\[(measured|cited|order)", text)) > 40
    for block in re.split(r"\n(?=\w)", text[text.index("\n[costs]\n") : text.index("\n[grades]\n")])[1:]:
        name = block.split(" ")[0]
        shared = name in (
            "page_alloc",
            "page_free",
            "page_cache_add",
            "unmap_page",
            "reclaim_page",
            "disk_page",
        )
        assert "#" in block, name
        assert shared or re.search(r"\[(measured|cited|order)", block), name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"nodes.0.memory_mib": 0.2}, "'nodes[0].memory_mib' must be at least 8 after scaling (got 0.2)"),
        ({"cpus": 300}, "'cpus' must be at most 256 (got 300)"),
        ({"cpus": 0}, "'cpus' must be at least 1 (got 0)"),
        ({"scale": 3}, "'scale' must be given as --scale, or be the file's 'default_scale' (got 3)"),
        ({"name": ""}, "'name' must be text of at least 1 character (got '')"),
        ({"cpus": "many"}, "'cpus' must be a whole number (got 'many')"),
        ({"swap_mib": 10}, "'swap_mib' must be at most 0 (got 10)"),
        ({"nodes": []}, "'nodes' must be a list of at least 1 (got [])"),
        ({"nodes.0.cpus": "0-x"}, f"{CPU_LIST_RULE} (got '0-x')"),
        ({"nodes.0.cpus": "0-300"}, f"{CPU_LIST_RULE} (got '0-300')"),
        (
            {"nodes.0.cpus": "0-63", "nodes.1.cpus": "63"},
            "'nodes[1].cpus' must name CPUs of no other node; nodes[0] has the same (got 63)",
        ),
        (
            {"nodes.0.cpus": "0-9,20-63"},
            "'nodes' must say to which node each of the 64 CPUs belongs (got no node for CPU 10)",
        ),
        ({"nodes.0.cpus": False}, "'nodes' must have at least one node with cpus = true (got none)"),
        (
            {"distances": [[10]]},
            "'distances' must be 2 rows of 2 numbers, one for each pair of nodes (got [[10]])",
        ),
        ({"tlb.stlb.ways": 7}, "'tlb.stlb.ways' must divide the 2048 entries (got 7)"),
        ({"tlb.itlb.entries": 24}, "'tlb.itlb' must have a power of two of sets, entries / ways (got 3)"),
        ({"sysctl.numa_balancing": 5}, "'sysctl.numa_balancing' must be at most 2 (got 5)"),
        (
            {"sysctl.fault_around_bytes": 65000},
            "'sysctl.fault_around_bytes' must be a power of two (got 65000)",
        ),
        ({"costs.ipi_sned": 3}, "'costs.ipi_sned' is not a key of a machine; did you mean 'ipi_send'?"),
        ({"tlb.stlb.way": 3}, "'tlb.stlb.way' is not a key of a machine; did you mean 'ways'?"),
        (
            {"nodes.5.cpus": True},
            "'nodes.5.cpus' must name a key of the machine (got '5', which is not there)",
        ),
        ({"costs.ipi_send": 1.5}, "'costs.ipi_send' must be a whole number (got 1.5)"),
        (
            {"sysctl.min_free_kbytes": 90_000_000},
            "'nodes[0].memory_mib' must keep its watermarks below half of the 11010048 pages",
        ),
        (
            {"nodes.0.zones": [{"name": "DMA", "managed_pages": 2**30}]},
            "'nodes[0].zones' must manage no more than the 43008 MiB",
        ),
        (
            {"nodes.0.zones": [{"name": "DMA", "managed_pages": 4096, "kernel_pages": 4000}]},
            "'nodes[0].zones' must leave half of zone DMA",
        ),
    ],
)
def test_an_impossible_machine_gets_one_sentence(change, sentence):
    """File, key, rule, value."""
    with pytest.raises(MachineError) as caught:
        load_machine("xeon6430-cxl", scale=1, overrides=change)
    assert str(caught.value).startswith("xeon6430-cxl.toml: " + sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cpus", [0, "3"])
def test_what_cpus_replaces_must_be_right_too(cpus):
    """A mistake in a file or in --set is reported, whether --cpus is given or not."""
    with pytest.raises(MachineError, match=r"^xeon6430-cxl.toml: 'cpus' must be "):
        load_machine("xeon6430-cxl", cpus=4, overrides={"cpus": cpus})


def test_a_scale_below_one_is_refused():
    """Machines are made smaller, never larger."""
    with pytest.raises(MachineError, match=r"^xeon6430-cxl.toml: 'scale' must be at least 1 \(got 0.5\)$"):
        load_machine("xeon6430-cxl", scale=0.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cpus = = 3", "is not TOML"),
        (
            'like = "nothing"',
            (
                "bad.toml: 'like' must be one of cpu-128, guest-8cpu, guest-8cpu-tcg, "
                "guest-8cpu-tcg-large, litmus, qemu-16, two-socket, "
            ),
        ),
        ("like = 3", "'like' must be the name of a machine (got 3)"),
        ('name = "x"', "'description' is missing"),
        ('like = "LOOP"', "'like' must not lead back to the file itself (got bad.toml -> bad.toml)"),
        ('like = "none.toml"', "bad.toml: 'like' leads nowhere: there is no machine file 'none.toml'"),
        ("[machine]\noverrides = 5", "bad.toml: 'machine.overrides' must be a table (got 5)"),
        ('"changed before" = 5', "bad.toml: 'changed before' is not a key of a machine; known are name, "),
        ('like = "guest-8cpu"\nname = "a\\nb"', "bad.toml: 'name' must be text on one line (got 'a\\nb')"),
        ('like = "guest-8cpu"\n[costs]\nwalk = -1', "bad.toml: 'costs.walk' must be at least 0 (got -1)"),
        (
            'like = "guest-8cpu"\n[sysctl]\nmin_free_kbytes = 0xffffffff',
            "must be at most 2147483647 (got 4294967295)",
        ),
    ],
)
def test_a_bad_file_gets_one_sentence(tmp_path, text, sentence):
    """Whatever is wrong with the file, the sentence names it."""
    file = tmp_path / "bad.toml"
    file.write_text(text.replace("LOOP", str(file)))
    with pytest.raises(MachineError, match=re.escape(sentence)):
        load_machine(file)


MISTAKES = [
    ("cpus = 300", "'cpus' must be at most 256 (got 300)"),
    ("[costs]\nwlak = 1", "'costs.wlak' is not a key of a machine; did you mean 'walk'?"),
    ("[tlb.stlb]\nways = 7", "'tlb.stlb.ways' must divide the 2048 entries (got 7)"),
    ('like = "nothing"', "'like' must be one of cpu-128"),
    ("like = 3", "'like' must be the name of a machine (got 3)"),
    ("scale = 4", "'scale' must be given as --scale"),
]


@pytest.mark.parametrize(("text", "sentence"), MISTAKES)
def test_a_mistake_in_another_file_names_both(tmp_path, monkeypatch, text, sentence):
    """The file at hand, and the one that it is like where the mistake stands."""
    monkeypatch.chdir(tmp_path)
    like = "" if text.startswith("like") else 'like = "guest-8cpu"\n'
    Path("base.toml").write_text(like + text, encoding="utf-8")
    Path("between.toml").write_text('like = "./base.toml"\nname = "between"', encoding="utf-8")
    Path("mine.toml").write_text('like = "./between.toml"\ndescription = "mine"', encoding="utf-8")
    with pytest.raises(MachineError, match=rf"^mine\.toml \(like base\.toml\): {re.escape(sentence)}"):
        load_machine("mine.toml")
    with pytest.raises(MachineError, match=rf"^base\.toml: {re.escape(sentence)}"):
        load_machine("base.toml")


@pytest.mark.parametrize(("text", "sentence"), MISTAKES[:3])
def test_a_mistake_at_hand_names_no_other_file(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(f'like = "xeon6430-cxl"\n{text}', encoding="utf-8")
    with pytest.raises(MachineError, match=rf"^mine\.toml: {re.escape(sentence)}"):
        load_machine("mine.toml")


def test_a_file_of_the_same_name_elsewhere_is_another_file(tmp_path):
    """A file is like a machine that ships, under its name; but not like itself by way of a link."""
    file = tmp_path / "guest-8cpu.toml"
    file.write_text('like = "guest-8cpu"\ncpus = 3\n', encoding="utf-8")
    assert load_machine(file).cpus == 3
    (tmp_path / "link.toml").symlink_to(file)
    file.write_text(f'like = "{tmp_path}/link.toml"\n', encoding="utf-8")
    with pytest.raises(MachineError, match=r"lead back .* \(got guest-8cpu\.toml -> link\.toml\)$"):
        load_machine(file)


def test_what_older_files_have_is_no_mistake(tmp_path):
    """A frequency: it was asked for and meant nothing, as every cost is in ns."""
    file = tmp_path / "old.toml"
    file.write_text('like = "guest-8cpu"\ncpu_mhz = 2100\n', encoding="utf-8")
    assert "cpu_mhz" not in machine_table(load_machine(file))


@pytest.mark.parametrize(
    "words", ["0-99999999999", "9" * 5000, "5-3", "1_0", " 1", "+1", "1-", "-1", "²", "0,,1"]
)
def test_a_list_of_cpus_is_numbers(words):
    """Not what `int` takes beside them; a range of a hundred thousand million is not even begun."""
    with pytest.raises(MachineError) as refused:
        load_machine("xeon6430-cxl", overrides={"nodes.0.cpus": words})
    assert CPU_LIST_RULE in str(refused.value)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    "key", ["nodes.-1.cpus", "nodes.1_0.cpus", "nodes.².cpus", "cpus.x", "name.0", "nodes.+1", "nodes.9"]
)
def test_a_key_that_is_not_there(key):
    """A list is counted from 0 on, in digits."""
    with pytest.raises(
        MachineError, match=r"must name a key of the machine \(got '.*', which is not there\)$"
    ):
        load_machine("xeon6430-cxl", overrides={key: 1})


def test_an_unknown_machine_gets_a_guess():
    """A typing error is answered with the nearest name."""
    with pytest.raises(
        MachineError,
        match=r"^'machine' must be one of cpu-128, .*, xeon6430-cxl, .*; did you mean 'guest-8cpu'\?$",
    ):
        load_machine("guest8cpu")
    assert set(machine_names()) == {
        *(
            "cpu-128",
            "guest-8cpu",
            "guest-8cpu-tcg",
            "guest-8cpu-tcg-large",
            "litmus",
            "qemu-16",
            "two-socket",
            "xeon6430-cxl",
        )
    }


def test_too_little_host_memory_is_said_before_anything_starts():
    """The sentence has need, supply and what to do."""
    machine = load_machine("xeon6430-cxl", scale=1024)
    check_host(machine)
    with pytest.raises(
        HostError,
        match=r"^64 CPUs and 35,328 pages need about 1,185 MiB of host memory, "
        r"but 100 MiB are available: use",
    ):
        check_host(machine, memory_available=100 << 20)


def test_memory_that_a_workload_does_not_get_is_said_with_its_name():
    """Pages of files are counted before; what numpy or the kernel refuse is said with the workload, too."""
    refused = r"^workload 'mine\.toml': the host gives no more memory \(.*[Aa]llocate"
    too_many = r"^workload 'mine\.toml': 1,099,511,627,776 pages of files need"
    with pytest.raises(HostError, match=too_many), memory_for("mine.toml", 2**40):
        raise AssertionError("nothing is begun")
    with pytest.raises(HostError, match=refused), memory_for("mine.toml"):
        np.ones(2**45)
    with pytest.raises(HostError, match=refused), memory_for("mine.toml"):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")
    with pytest.raises(FileNotFoundError), memory_for("mine.toml"):
        raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize(("limit", "option"), [(resource.RLIMIT_AS, "-v"), (resource.RLIMIT_DATA, "-d")])
def test_a_limit_of_memory_is_said_before_anything_starts(limit, option, monkeypatch):
    """LLVM would abort without a word; the sentence has need, limit and what to do."""
    limits = {limit: 2 << 30}
    free = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits.get(which, free), free))
    machine = load_machine("xeon6430-cxl", scale=1024)
    check_host(machine)
    limits[limit] = 200 << 20
    with pytest.raises(HostError, match=rf"^a process .* but this shell allows 200 MiB \(ulimit {option}\)"):
        check_host(machine)


def test_open_files_are_raised_or_refused(monkeypatch):
    """The soft limit goes up to the hard one; a hard limit that is too low is one sentence."""
    limits = {"now": (128, 1000)}
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda which, new: limits.update(now=new))
    emulator.host_facts._raise_open_files(64)
    assert limits["now"] == (1000, 1000)
    assert files_needed(64) == 448
    limits["now"] = (128, 256)
    with pytest.raises(
        HostError,
        match=r"^64 CPUs need 448 open files, but this shell allows 256 \(ulimit -Hn\): raise it, or use",
    ):
        emulator.host_facts._raise_open_files(64)
