"""munmap against CPUs that spin, idle lazily, or run another process; with and without freed page tables.

Covers:
- Scripts with sleeping threads and a second process on the same CPUs; parts of a region as ranges of pages
- When Linux leaves a CPU alone: lazy TLB mode, and CPUs that have switched to another process

Scenario:
  Four threads of a process have touched two regions. Then three of them spin, or sleep so that their CPUs
  idle, or sleep while another process runs there. The first thread unmaps 8 pages of a region whose other
  pages keep the page table, then the whole of the other region, with which its page table goes.
  flush_tlb_mm_range asks all CPUs that have the process loaded. One that idles has it loaded still, lazily:
  it is left alone, and flushes when it comes back, unless page tables were freed (tlb_is_not_lazy); these it
  might still walk. A CPU that runs another process has left (switch_mm_irqs_off): nobody interrupts it.
"""

from emulator import load_machine, run_script
from workloads import Region, Script

CPUS, SETTLE_NS = 4, 1_000_000
REGIONS = [Region("kept", 24, writable=True), Region("freed", 8, writable=True)]


def munmap_against(others="spin"):
    """Write the script for what the other CPUs do: spin, idle or switch."""

    def main(t):
        yield [t.store("kept"), t.store("freed"), t.meet("touched", CPUS)]
        yield [t.post("run"), t.nanosleep(SETTLE_NS)]
        yield [t.snapshot("a"), t.munmap("kept", 8, 8), t.snapshot("b"), t.munmap("freed"), t.snapshot("c")]
        yield t.post("stop")

    def other(t):
        yield [t.load("kept"), t.load("freed"), t.meet("touched", CPUS)]
        yield t.spin("stop") if others == "spin" else t.wait("stop")

    def stranger(t):
        yield [t.wait("run"), t.spin("stop")]

    script = Script(others, regions=REGIONS).process("main", [main] + [other] * (CPUS - 1), cpus=range(CPUS))
    if others == "switch":
        script.process("stranger", [stranger] * (CPUS - 1), cpus=range(1, CPUS))
    return script


if __name__ == "__main__":
    print("the others  page table  interrupts  tlb:tlb_flush events")
    for others in ("spin", "idle", "switch"):
        machine = load_machine("guest-8cpu", scale=16)
        run, noted = run_script("linux", machine, munmap_against(others), leases=1)
        for table, cost in (("kept", noted.between("a", "b")), ("freed", noted.between("b", "c"))):
            events = [f"{name} {count}" for name, count in cost.tlb_flush.items() if "switch" not in name]
            print(f"{others:<12}{table:<12}{sum(cost.interrupts):>10}  {', '.join(events)}")
