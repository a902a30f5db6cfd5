"""Debugged: flushes that LUF forgets, under its own debug feature and under the oracle (docs/debug-luf.md).

Covers:
- `debug_luf=True` (--debug-luf): records in pages, looked at where a page is written or a PTE made writable
- Designs made from one on the shelf, each with a bug
- A violation that the debug feature cannot see

Scenario:
  Two designs skip a flush; no CPU reads in the windows that they leave, and only the debug feature notices.
  Then a thread has the pages of a file reclaimed and writes one; another reads it again. LUF v12 as posted
  does not flush for that, and the debug feature sees nothing.
"""

from pathlib import Path

from designs.design import hook, replaced
from designs.luf.fields import luf_state
from designs.luf.luf import Luf, luf_write_fault
from designs.luf.published import publish_generation
from emulator import load_machine, run_design


@hook("take_done")
def publish_only(ram, cpu, a, b, c, d):
    """Say that the generations which were claimed are flushed, and flush nobody."""
    state = luf_state(ram)
    for zone in range(ram.nr_zones):
        if state.own_generation[cpu, zone]:
            publish_generation(ram, state, cpu, zone, state.own_generation[cpu, zone], ram.cpu_clock[cpu])
            state.own_generation[cpu, zone] = 0
    return 0


class SkipsTakeOff(Luf):
    """LUF that hands pages out unflushed"""

    name = "skips_take_off"

    def __init__(self, **given):
        super().__init__(**given)
        self.hooks = replaced(self.hooks, publish_only)


class ForgetsWriteFault(Luf):
    """LUF whose write faults flush nobody"""

    name = "forgets_write_fault"
    hooks = tuple(item for item in Luf.hooks if item is not luf_write_fault)


if __name__ == "__main__":
    machine = load_machine("xeon6430-cxl", scale=4096, cpus=4)
    written = str(Path(__file__).with_name("written.toml"))
    talk = "llama3x15"
    for design, workload in ((SkipsTakeOff(), talk), (ForgetsWriteFault(), talk), ("luf_v12", written)):
        run = run_design(design, machine, workload, tokens=1, leases=1, debug_luf=True)
        found = [f"{first['function']}, record of the {first['record']}" for first in run.debug_findings[:1]]
        seen = [violation["kind"] for violation in run.violations]
        feature, oracle = ", ".join(found) or "nothing", ", ".join(seen) or "nothing"
        print(f"{run.design:<20} debug feature: {feature:<55} oracle: {oracle}")
