"""User threads: executes the rows of a workload's programs on the CPU that the task is on.

A thread runs until its slice of virtual time is over (RAN), it must sleep for a page from disk (SLEEP), it
waits for another thread's doing (BLOCKED), spins while others want its CPU (YIELD), or its program ends
(ENDED). Every operation can be resumed in the middle: position lies in the task, never on a stack. The row
kinds, and what their fields are, stand in cpus/abi/row_kinds.py.
Left out: signals; exit of an address space unless a row asks for it (mappings stay until the run ends).
"""

from allocator.direct_io import direct_io
from allocator.direct_reclaim import memory_reclaim
from allocator.futex import flag_reached, futex_wait, post_flag, spin_on_flag, spin_until
from allocator.outcome import BLOCKED, ENDED, NEXT, RAN, SLEEP, YIELD
from allocator.panic import BAD_OPERATION, panic
from allocator.populate import populate
from allocator.sched import wake_task
from allocator.syscalls import (
    CHANGES_FILE,
    CHANGES_MAPPING,
    change_file,
    change_mapping,
    leave_process,
    place_region,
    start_child,
)
from allocator.uprobes import uprobe
from allocator.vmstat import take_snapshot
from cpus.abi.numbers import IFETCH
from cpus.abi.row_kinds import (
    BARRIER,
    CLONE,
    DIRECT_READ,
    DIRECT_WRITE,
    DRAW,
    EXIT,
    EXIT_MM,
    FORK,
    JOIN,
    MARK,
    NANOSLEEP,
    NO_REGION,
    PLACE,
    POPULATE,
    POST,
    RECLAIM,
    SNAPSHOT,
    SPIN,
    TRY,
    UNTIL,
    UPROBE,
    VISIT,
    WAIT_FOR,
)
from cpus.access import visit_pages
from cpus.atomics import exchange, fence, fetch_add, fetch_max, load_acquire, store_release
from cpus.compiled import apart, kernel
from cpus.completion import look_for_completed_changes
from cpus.declare import CONFIG, Atomic, Constant, Field, OwnerOf, Struct
from cpus.events import CALL_ROW, EV_BARRIER, EV_CALL, EV_RETURN, EV_TASK, record
from cpus.ipi import serve_interrupts
from cpus.lease import WAIT_BARRIER, wake_all_waiting_for
from cpus.live import PROBES, REFUSED, touch_live_pages
from cpus.points import gives_way
from cpus.spans import SPAN_WAIT, end_span, span
from cpus.steal import pass_until

MAX_MARKS = 4096  # evaluations of a process whose times are kept
TASKS_CPU, MAIN = OwnerOf("task_cpu"), OwnerOf("proc_first_task", "task_cpu")
FIELDS = (
    Constant("user_tasks", "user threads; behind them kswapd of each node, and the design's thread"),
    Constant("nr_processes", "processes of the workload"),
    Struct("one", "tasks", (Field("run_tokens", Atomic("fetch_add"), "evaluations begun, all processes"),)),
    Struct("nr_tasks", "task", (
        Field("task_row", TASKS_CPU, "next row of its program"),
        Field("task_end", CONFIG, "behind its last row"),
        Field("task_visit", TASKS_CPU, "pages of the row already visited"),
        Field("task_section", TASKS_CPU, "section whose chunks it draws, -1 none"),
        Field("task_chunk_row", TASKS_CPU, "next row of the chunk"),
        Field("task_chunk_end", TASKS_CPU, "behind its last row"),
        Field("task_barrier", TASKS_CPU, "1: it has arrived at the barrier"),
    )),
    Struct("nr_rows", "", (
        Field("row_op", CONFIG, "what to do", dtype="uint8"),
        Field("row_kind", CONFIG, "LOAD, STORE, IFETCH; of some operations a number", dtype="uint8"),
        Field("row_region", CONFIG, "region, or NO_REGION", dtype="uint16"),
        Field("row_pages", CONFIG, "pages, or parties", dtype="uint32"),
        Field("row_count", CONFIG, "accesses of each page, or another number", dtype="uint32"),
        Field("row_page", CONFIG, "first page of the region, or a number", dtype="uint32"),
    )),
    Struct("nr_mms", "barrier", (
        Field("proc_barrier_arrived", Atomic("fetch_add", "store_release"), "parties at the barrier"),
        Field("proc_barrier_done", Atomic("store_release", why="the last one to arrive"),
              "barriers completed"),
    )),
    Struct("nr_mms", "workers", (
        Field("proc_exited", Atomic("fetch_add"), "workers that have executed EXIT since the last JOIN"),
        Field("proc_join_parties", Atomic("store_release"), "workers that main waits for"),
        Field("proc_join_waits", Atomic("exchange", why="main sets 1, who takes it back wakes main"),
              "main sleeps in JOIN"),
        Field("proc_start_ns", MAIN, "when main began", unit="ns"),
        Field("proc_end_ns", MAIN, "when main ended", unit="ns"),
        Field("proc_tokens", MAIN, "evaluations begun"),
        Field("proc_first_task", CONFIG, "main thread"),
        Field("proc_first_section", CONFIG, "first section"),
        Field("proc_join_ns", Atomic("fetch_max"), "virtual time of the latest EXIT", unit="ns"),
    )),
    Field("proc_barrier_ns", Atomic("fetch_max"), "latest arrival at barriers of even and odd number",
          ("nr_mms", 2), unit="ns"),
    Field("proc_token_ns", MAIN, "virtual time at each MARK", ("nr_mms", MAX_MARKS), unit="ns"),
    Field("section_next", Atomic("fetch_add"), "next undrawn chunk", ("nr_sections",)),
    Field("section_info", CONFIG, "first chunk, number of chunks", ("nr_sections", 2)),
    Field("chunk_rows", CONFIG, "first row, behind the last row", ("nr_chunks", 2)),
)  # fmt: skip

SYNCHRONISES = (POST, WAIT_FOR, SPIN, UNTIL, NANOSLEEP, SNAPSHOT)


@kernel
def _visit_row(ram, cpu, task, row):
    """Execute a VISIT row from where the task left it; NEXT when it is complete."""
    process = ram.task_process[task]
    first = ram.proc_region[process, ram.row_region[row]] + ram.row_page[row]
    pages = ram.row_pages[row]
    if ram.row_kind[row] == IFETCH:
        ram.cpu_last_fetch[cpu] = first + pages - 1
    done = visit_pages(ram, cpu, ram.row_kind[row], first, pages, ram.row_count[row], ram.task_visit[task])
    if done < 0:
        ram.task_visit[task] = -1 - done
        return SLEEP
    ram.task_visit[task] = done
    if done < pages:
        return RAN
    ram.task_visit[task] = 0
    return NEXT


@apart
def try_row(ram, cpu, task, row):
    """Execute a TRY row from where the task left it: a page whose fault is refused is passed over; NEXT when
    it is complete.
    """
    first = ram.proc_region[ram.task_process[task], ram.row_region[row]] + ram.row_page[row]
    kind, pages, count = ram.row_kind[row], ram.row_pages[row], ram.row_count[row]
    done, result = ram.task_visit[task], NEXT
    while done < pages and result == NEXT:
        ram.cpu_probing[cpu] = PROBES
        done = visit_pages(ram, cpu, kind, first, pages, count, done)
        refused = ram.cpu_probing[cpu] == REFUSED
        ram.cpu_probing[cpu] = 0
        if done >= 0:
            result = RAN if done < pages else NEXT
        elif refused:
            done = -done  # behind that page
        else:
            done, result = -1 - done, SLEEP
    ram.task_visit[task] = 0 if result == NEXT else done
    return result


@kernel
def _barrier(ram, cpu, task, row):
    """Spin at a barrier of the process until all parties are there, at most for its time slice if another
    task wants the CPU.
    """
    process, number = ram.task_process[task], ram.row_page[row]
    slot = (process, number & 1)
    if ram.task_barrier[task] == 0:
        ram.task_barrier[task] = 1
        fetch_max(ram.proc_barrier_ns, slot, ram.cpu_clock[cpu])
        if fetch_add(ram.proc_barrier_arrived, process, 1) + 1 == ram.row_pages[row]:
            store_release(ram.proc_barrier_arrived, process, 0)
            store_release(ram.proc_barrier_done, process, number + 1)
            record(ram, cpu, EV_BARRIER, process, number, 0, 0)
            fence()
            wake_all_waiting_for(ram, WAIT_BARRIER, process, ram.cpu_clock[cpu])
    span(ram, cpu, SPAN_WAIT, WAIT_BARRIER, process)
    ram.cpu_spin_page[cpu] = 1 + ram.proc_region[process, ram.row_region[row]] + ram.row_count[row]
    completed = spin_until(ram, cpu, task, ram.proc_barrier_done, process, number + 1, WAIT_BARRIER)
    ram.cpu_spin_page[cpu] = 0
    if not completed:
        pass_until(ram, cpu, ram.task_slice_ns[task])  # spins its time slice away
        end_span(ram, cpu, SPAN_WAIT)
        return YIELD
    ram.task_barrier[task] = 0
    pass_until(ram, cpu, load_acquire(ram.proc_barrier_ns, slot))
    end_span(ram, cpu, SPAN_WAIT)
    return NEXT


@kernel
def _draw(ram, cpu, task, row):
    """Execute chunks of a section: the own one first, then whatever the shared counter gives."""
    section = ram.proc_first_section[ram.task_process[task]] + ram.row_page[row]
    first, count = ram.section_info[section, 0], ram.section_info[section, 1]
    if ram.task_section[task] < 0:
        ram.task_section[task] = section
        chunk = ram.row_count[row]
    elif ram.task_chunk_row[task] < ram.task_chunk_end[task]:
        chunk = -1
    else:
        chunk = fetch_add(ram.section_next, section, 1)
    while True:
        if chunk >= count:
            ram.task_section[task] = -1
            return NEXT
        if chunk >= 0:
            ram.task_chunk_row[task] = ram.chunk_rows[first + chunk, 0]
            ram.task_chunk_end[task] = ram.chunk_rows[first + chunk, 1]
        while ram.task_chunk_row[task] < ram.task_chunk_end[task]:
            result = _visit_row(ram, cpu, task, ram.task_chunk_row[task])
            if result != NEXT:
                return result
            ram.task_chunk_row[task] += 1
        chunk = fetch_add(ram.section_next, section, 1)


@kernel
def _clone(ram, cpu, task, row):
    """Start a worker at its next row, on a CPU that the scheduler chooses."""
    worker = ram.proc_first_task[ram.task_process[task]] + ram.row_page[row]
    ram.cpu_clock[cpu] += ram.cost_syscall
    record(ram, cpu, EV_TASK, worker, 1, 0, 0)
    wake_task(ram, cpu, worker, ram.cpu_clock[cpu])
    return NEXT


@kernel
def _exit(ram, cpu, task):
    """A worker ends: it sleeps until it is cloned again. The last one that JOIN waits for wakes main."""
    process = ram.task_process[task]
    fetch_max(ram.proc_join_ns, process, ram.cpu_clock[cpu])
    ram.task_row[task] += 1  # before main can clone it again
    ended = ram.task_row[task] >= ram.task_end[task]
    exited = fetch_add(ram.proc_exited, process, 1) + 1
    fence()
    if load_acquire(ram.proc_join_waits, process) and exited >= load_acquire(ram.proc_join_parties, process):
        if exchange(ram.proc_join_waits, process, 0):
            wake_task(ram, cpu, ram.proc_first_task[process], ram.cpu_clock[cpu])
    return ENDED if ended else BLOCKED


@kernel
def _join(ram, cpu, task, row):
    """Main sleeps until its workers have ended."""
    process, parties = ram.task_process[task], ram.row_pages[row]
    if load_acquire(ram.proc_exited, process) < parties:
        store_release(ram.proc_join_parties, process, parties)
        exchange(ram.proc_join_waits, process, 1)
        fence()
        if load_acquire(ram.proc_exited, process) < parties or exchange(ram.proc_join_waits, process, 0) == 0:
            return BLOCKED  # whoever took the flag back wakes us; the row is looked at again then
    fetch_add(ram.proc_exited, process, -parties)
    pass_until(ram, cpu, load_acquire(ram.proc_join_ns, process))
    return NEXT


@kernel
def _mark(ram, cpu, task, row):
    """An evaluation begins: note when, for progress and times per token."""
    process, number = ram.task_process[task], ram.row_page[row]
    ram.proc_token_ns[process, number] = ram.cpu_clock[cpu]
    ram.proc_tokens[process] = number
    fetch_add(ram.run_tokens, 0, 1)
    return NEXT


@kernel
def _spin(ram, cpu, task, row):
    """Spin in user mode until flag `page` has been posted `pages` times."""
    if ram.row_region[row] != NO_REGION:
        ram.cpu_spin_page[cpu] = (
            1 + ram.proc_region[ram.task_process[task], ram.row_region[row]] + ram.row_count[row]
        )
    reached = spin_on_flag(ram, cpu, task, ram.row_page[row], ram.row_pages[row])
    ram.cpu_spin_page[cpu] = 0
    if reached:
        return NEXT
    pass_until(ram, cpu, ram.task_slice_ns[task])  # spins its time slice away
    return YIELD


@kernel
def _until(ram, cpu, task, row):
    """Go back `count` rows, unless flag `page` has been posted `pages` times."""
    if flag_reached(ram, cpu, ram.row_page[row], ram.row_pages[row]):
        return NEXT
    ram.cpu_clock[cpu] += 1  # no turn is free: who posts the flag may be behind in virtual time
    gives_way(ram)
    ram.task_row[task] -= ram.row_count[row]
    return RAN


@kernel
def _nanosleep(ram, cpu, task, row):
    """Sleep for `count` ns of virtual time."""
    if ram.task_visit[task] == 0:
        ram.task_visit[task] = 1
        ram.task_wait_ns[task] = ram.cpu_clock[cpu] + ram.row_count[row]
        return SLEEP
    ram.task_visit[task] = 0
    return NEXT


@kernel
def _synchronise(ram, cpu, task, row):
    """Flags, sleeping, snapshots."""
    op = ram.row_op[row]
    if op == SPIN:
        return _spin(ram, cpu, task, row)
    if op == UNTIL:
        return _until(ram, cpu, task, row)
    if op == NANOSLEEP:
        return _nanosleep(ram, cpu, task, row)
    if op == WAIT_FOR:
        return NEXT if futex_wait(ram, cpu, task, ram.row_page[row], ram.row_pages[row]) else BLOCKED
    if op == POST:
        post_flag(ram, cpu, ram.row_page[row])
    elif op == SNAPSHOT:
        take_snapshot(ram, cpu, ram.row_page[row])
    else:
        panic(ram, cpu, BAD_OPERATION, row, op)
    return NEXT


@kernel
def _exit_mm(ram, cpu, task, row):
    """The process ends by its last thread, and sleeps until it is forked again."""
    leave_process(ram, cpu, task)
    ram.task_row[task] += 1  # before the parent can fork again
    ended = ram.task_row[task] >= ram.task_end[task]
    post_flag(ram, cpu, ram.row_page[row])
    return ENDED if ended else BLOCKED


@kernel
def _change_process(ram, cpu, task, row):
    """Workers and processes that come and go, where regions will lie, reclaim from the group."""
    op = ram.row_op[row]
    if op == CLONE:
        return _clone(ram, cpu, task, row)
    if op == EXIT:
        return _exit(ram, cpu, task)
    if op == JOIN:
        return _join(ram, cpu, task, row)
    if op == EXIT_MM:
        return _exit_mm(ram, cpu, task, row)
    if op == MARK:
        return _mark(ram, cpu, task, row)
    if op == PLACE:
        place_region(ram, task, row)
    elif op == FORK:
        start_child(ram, cpu, task, row)
    elif op == RECLAIM:
        memory_reclaim(ram, cpu, ram.row_pages[row])
    else:
        panic(ram, cpu, BAD_OPERATION, row, op)
    return NEXT


@kernel
def _call_kernel(ram, cpu, task, row):
    """Execute one system call, or go on with it."""
    op = ram.row_op[row]
    if op == POPULATE:
        return populate(ram, cpu, task, row)
    if op in CHANGES_MAPPING:
        change_mapping(ram, cpu, task, row)
        return NEXT
    if op in CHANGES_FILE:
        return change_file(ram, cpu, task, row)
    if op in (DIRECT_READ, DIRECT_WRITE):
        return direct_io(ram, cpu, task, row)
    if op == UPROBE:
        return uprobe(ram, cpu, task, row)
    return _change_process(ram, cpu, task, row)


@kernel
def _execute(ram, cpu, task, row):
    """Execute one row. When a call begins and returns is recorded: a witness names it."""
    op = ram.row_op[row]
    if op == VISIT:
        return _visit_row(ram, cpu, task, row)
    if op == TRY:
        return try_row(ram, cpu, task, row)
    if op == DRAW:
        return _draw(ram, cpu, task, row)
    if op == BARRIER:
        return _barrier(ram, cpu, task, row)
    if op in SYNCHRONISES:
        return _synchronise(ram, cpu, task, row)
    first = ram.proc_region[ram.task_process[task], ram.row_region[row]] + ram.row_page[row]
    record(ram, cpu, EV_CALL, CALL_ROW, row, ram.task_mm[task], first)
    result = _call_kernel(ram, cpu, task, row)
    record(ram, cpu, EV_RETURN, CALL_ROW, row, 0 if result == NEXT else 1, 0)
    return result


@apart
def run_user(ram, cpu, task):
    """Run a thread for the rest of its CPU's slice; returns RAN, SLEEP, BLOCKED, YIELD or ENDED."""
    if ram.check:
        look_for_completed_changes(ram, cpu)
    while ram.task_row[task] < ram.task_end[task]:
        if ram.cpu_live_count[cpu] > 0:
            touch_live_pages(ram, cpu)
        row = ram.task_row[task]
        result = _execute(ram, cpu, task, row)
        if ram.check and ram.row_op[row] != VISIT:  # it may have learned that somebody's call has returned
            look_for_completed_changes(ram, cpu)
        if result == NEXT:
            ram.task_row[task] += 1
        elif result != RAN:
            return result
        if ram.cpu_bell[cpu] > 0:
            serve_interrupts(ram, cpu)
        if ram.cpu_clock[cpu] >= ram.cpu_slice_end[cpu]:
            return RAN
    return ENDED
