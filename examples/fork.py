"""Copy-on-write: what fork and each write after it cost, in interrupts and tlb:tlb_flush events.

Covers:
- A script: a thread is a generator that yields system calls and accesses; threads meet, post flags and wait
  for them
- A child that is forked and exits; snapshots between the steps, and what happened between two of them

Scenario:
  Four threads of one process have touched 64 pages; three spin, so that their CPUs have the page tables
  loaded. The first one forks, writes to 1 and to 8 pages while the child lives, and to 8 more when it has
  gone. Linux write-protects all pages in fork and flushes every CPU of the process whole (dup_mmap:
  flush_tlb_mm). Each write to a shared page copies it and flushes that page everywhere (wp_page_copy:
  ptep_clear_flush): a shootdown a page, never batched. Once the child has gone the page is the writer's own
  again and only made writable (wp_page_reuse): no shootdown.
"""

from itertools import pairwise

from emulator import load_machine, run_script
from workloads import Region, Script

CPUS = 4


def parent(t):
    """Forks and writes, with a snapshot before each step."""
    yield [t.store("heap"), t.meet("touched", CPUS)]
    yield [t.snapshot("fork"), t.fork("child")]
    yield [t.snapshot("write 1 page"), t.store("heap", 0, 1)]
    yield [t.snapshot("write 8 pages"), t.store("heap", 1, 8)]
    yield [t.snapshot("the child exits"), t.post("go"), t.wait("gone")]
    yield [t.snapshot("write 8 pages, alone"), t.store("heap", 9, 8)]
    yield [t.snapshot("end"), t.post("stop")]


def spinner(t):
    """Keeps its CPU in the process."""
    yield t.load("heap", 0, 1)
    yield [t.meet("touched", CPUS), t.spin("stop")]


def child(t):
    """Shares its parent's memory until it may go."""
    yield [t.wait("go"), t.exit("gone")]


script = Script("fork", regions=[Region("heap", 64, writable=True)])
script.process("parent", [parent] + [spinner] * (CPUS - 1), cpus=range(CPUS))
script.process("child", [child], forked=True)


if __name__ == "__main__":
    run, noted = run_script("linux", load_machine("guest-8cpu", scale=16), script, leases=1)
    print("step                  interrupts  tlb:tlb_flush events")
    for step, after in pairwise(noted.names):
        cost = noted.between(step, after)
        events = [f"{name} {count}" for name, count in cost.tlb_flush.items() if "switch" not in name]
        print(f"{step:<22}{sum(cost.interrupts):>10}  {', '.join(events) or '-'}")
