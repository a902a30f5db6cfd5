"""Truncation: several processes map a file, one of them cuts it.

Covers:
- A script of several processes, pinned to a CPU each, that show the same file; calls on a file, named by a
  region that maps it
- An interrupt for each address space, where one for all would do
- A script from the command line, under two designs: luf compare --machine guest-8cpu --workload
  examples/truncate.py:truncated

Scenario:
  Up to eight processes, each spinning on a CPU of its own, have read the same 16 or 64 pages of a file. The
  first truncates it. Linux takes the file's pages out of every process before it drops them
  (unmap_mapping_range walks the VMAs that show the file, i_mmap): it gathers, zaps and flushes one address
  space after the other (tlb_finish_mmu), so each process is a broadcast of its own, to the one CPU that runs
  it. Up to 33 pages are flushed one by one, more (tlb_single_page_flush_ceiling) all at once.
"""

from emulator import load_machine, run_script
from workloads import Region, Script


def truncated(processes=4, pages=16):
    """Write the script: `processes` map `pages` pages, the first truncates."""

    def first(t):
        yield [t.load("file"), t.meet("read", processes)]
        yield [t.snapshot("before"), t.truncate("file"), t.snapshot("after")]
        yield t.post("stop")

    def other(t):
        yield [t.load("file"), t.meet("read", processes), t.spin("stop")]

    script = Script("truncate", regions=[Region("file", pages, file="data", shared=True)])
    for cpu in range(processes):
        script.process(f"process {cpu}", [other if cpu else first], cpus=[cpu])
    return script


if __name__ == "__main__":
    print("pages  processes  interrupts  broadcasts  tlb:tlb_flush events")
    for pages in (16, 64):
        for processes in (1, 2, 4, 8):
            machine = load_machine("guest-8cpu", scale=16)
            run, noted = run_script("linux", machine, truncated(processes, pages), leases=1)
            cost = noted.between("before", "after")
            events = [f"{name} {count}" for name, count in cost.tlb_flush.items() if "switch" not in name]
            counts = f"{sum(cost.interrupts):>12}{sum(cost.broadcasts.values()):>12}"
            print(f"{pages:>5}{processes:>11}{counts}  {', '.join(events)}")
