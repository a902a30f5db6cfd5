"""The tornado: each cost of unknown size halved and doubled, run once, resumed, and shown by how far it moves
the answer.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emulator.cli import main
from emulator.cli_arguments import parser
from emulator.machine import MACHINES, MachineError, load_machine, machine_names
from emulator.sensitivity.plan import costs_of, sensitivity_plan
from emulator.sweep.child import Answer
from tests.emulator.fixed import REUSE, run
from tests.emulator.test_page import read

SMALL = ["compare", "linux", "luf", "--sensitivity", "--machine", "mine.toml", "--leases", "1"]
COST = re.compile(r"^(\w+) = \d+", re.M)


@pytest.fixture(autouse=True)
def _beside_a_machine_with_two_such_costs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = [name for name in load_machine("guest-8cpu").grades if name not in ("ipi_handle", "syscall")]
    grades = "".join(f'{name} = "measured"\n' for name in known)
    Path("mine.toml").write_text(f'like = "guest-8cpu"\n[grades]\n{grades}')


class Emulation:
    """Stands in for the processes: shootdowns under luf go with what an interrupt's handler costs, and with
    nothing else.
    """

    def __init__(self, most=None, **changes):
        self.keys, self.most, self.changes = [], most, changes

    def __call__(self, jobs, take, room):
        for job in jobs:
            if len(self.keys) == self.most:
                raise KeyboardInterrupt
            self.keys.append(job.key)
            one = job.experiment
            luf = one.design.name == "luf"
            count = one.machine.costs.ipi_handle if luf else 4000
            count += one.seed
            per_cpu = [count, 0, 0, 0]
            given = {"tlb_shootdowns_per_cpu": per_cpu, "tlb_shootdowns": count, "seed": one.seed}
            take(job, Answer(result=run(one.design.name, **given | self.changes)))


def rows_of(text, figure):
    """The lines of a figure's table."""
    return text.split(f"{figure}, luf against linux")[1].split("\n\n")[0].splitlines()[2:]


def test_the_cost_that_matters_comes_first_and_is_marked(capsys):
    emulate = Emulation()
    assert main([*SMALL, "--seeds", "5"], emulate=emulate) == 0
    text = capsys.readouterr().out
    first, *others = rows_of(text, "TLB shootdowns")
    assert first.split() == ["ipi_handle", "400", "-94.9", "%", "[-95.0,", "-94.9]*", "-79.9", "%", "[-80.0,",
                             "-79.9]*"]  # fmt: skip
    assert [line.split()[0] for line in others] == ["syscall"]
    assert [cost.name for cost in costs_of(load_machine("mine.toml"))] == ["ipi_handle", "syscall"]
    assert not any("*" in line for line in others)
    assert not any("*" in line for line in rows_of(text, "runtime"))
    assert max(map(len, text.splitlines()[:-2])) <= 80
    assert len(emulate.keys) == len(set(emulate.keys)) == 5 * 2 * (1 + 2 * (len(others) + 1))
    (folder,) = Path("runs").iterdir()
    assert {file.name for file in folder.iterdir()} == {
        "journal.jsonl", "page.html", "picture.png", "points.csv", "runs.csv"
    }  # fmt: skip
    page = (folder / "page.html").read_text()
    assert all(link.startswith("#") for link in read(page).links)
    assert "ipi_handle 400" in page


def test_it_goes_on_where_it_was_and_no_run_is_made_twice(capsys):
    first, second, third = Emulation(most=7), Emulation(), Emulation()
    assert main(SMALL, emulate=first) == 130
    assert main(SMALL, emulate=second) == 0
    assert not set(first.keys) & set(second.keys)
    text = capsys.readouterr().out
    assert main(SMALL, emulate=third) == 0
    assert third.keys == []
    assert capsys.readouterr().out == text
    assert "one run each, and each is another schedule" in text
    assert "[" not in text


def test_a_violation_is_the_exit_code(capsys):
    assert main(SMALL, emulate=Emulation(violations=[REUSE])) == 1
    assert "verdict  not clean, exit code 1" in capsys.readouterr().out


def test_each_run_differs_in_one_cost():
    plan, costs = sensitivity_plan(parser().parse_args(SMALL))
    given = plan.jobs[0].experiment.machine.costs
    changed = []
    for job in plan.jobs:
        own = job.experiment.machine.costs
        names = [name for name in own.__struct_fields__ if getattr(own, name) != getattr(given, name)]
        changed += [(names[0], getattr(own, names[0]))] if names else []
        assert len(names) == (job.point["costs"] != "as given")
    assert set(changed) == {(cost.name, value) for cost in costs for value in (cost.half, cost.double)}
    assert len({job.key for job in plan.jobs}) == len(plan.jobs)


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["compare", "linux", "--sensitivity"], "'--sensitivity' must be asked of two designs"),
        (["compare", "linux", "linux", "--sensitivity"], "'--sensitivity' must be asked of two designs"),
        ([*SMALL, "--json", "x.json"], "'--json' must not be given with --sensitivity"),
    ],
)
def test_refusals_are_one_sentence(words, refused, capsys):
    assert main(words, emulate=Emulation()) == 2
    error = capsys.readouterr().err
    assert refused in error
    assert len(error.splitlines()) == 1


def test_grades_name_costs(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('like = "guest-8cpu"\n[grades]\nipi_latenzy = "order"\n')
    with pytest.raises(MachineError, match=r"'grades.ipi_latenzy' must name a cost"):
        load_machine(file)
    file.write_text('like = "guest-8cpu"\n[grades]\nipi_latency = "guess"\n')
    with pytest.raises(MachineError, match="grades"):
        load_machine(file)


def marked(text):
    """Give the costs of a machine file whose comment, up to the next cost or heading, says [order]."""
    text = text.partition("[costs]\n")[2].partition("\n[")[0].partition("\n# Beside")[0]
    parts = COST.split(re.sub(r"^# --.*?(?=^\w|\Z)", "", text, flags=re.M | re.S))
    return {name for name, said in zip(parts[1::2], parts[2::2]) if "[order]" in said}


def test_what_a_file_says_of_a_cost_is_what_it_grades():
    """The mark stands beside the source; `grades` is what programs read."""
    for name in machine_names():
        file = MACHINES / f"{name}.toml"
        assert marked(file.read_text()) <= {cost.name for cost in costs_of(load_machine(name))}, name
    assert len(marked((MACHINES / "xeon6430-cxl.toml").read_text())) == 15
    assert marked("[costs]\n# -- a heading [order]\na = 1 # x\n    # y [order]\nb = 2 # z\n") == {"a"}
