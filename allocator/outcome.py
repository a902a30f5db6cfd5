"""What a thread's row, and so its slice, comes back with."""

RAN, SLEEP, BLOCKED, YIELD, ENDED, NEXT = range(6)
# RAN: its slice of virtual time is over. SLEEP: not before task_wait_ns. BLOCKED: until somebody wakes it.
# YIELD: it spins while others want its CPU. ENDED: the program is over. NEXT: the row is.
