"""The lock of LUF's done-numbers: one for the whole machine, taken only in a run that is debugged
(designs/luf/debug.py).

CONFIG_LUF_DEBUG "strongly synchronizes on objects for checking" (slides; v12 patch 25): every operation that
reads or raises done-numbers (check_done, diet, mark_done) holds one global spin lock, so that a check never
meets half of one, and no raise is lost to another (without it one attempt of compare-and-swap is made, and a
lost one costs a flush too many). Here a global lock is the modelled thing. It changes timing: CPUs that would
pass each other queue up for it, so where CPUs run at once a debugged run has other interleavings. Waiting for
a lock costs no virtual time here (cpus/locks.py): how much slower such a kernel is cannot be read off.
"""

from cpus.compiled import kernel
from cpus.locks import spin_lock, spin_unlock


@kernel
def lock_done(ram, cpu):
    """Hold all done-numbers still, if the run is debugged. Innermost of all locks; nobody waits for anything
    under it.
    """
    if ram.lufd:
        spin_lock(ram, cpu, ram.lufd_lock, 0)


@kernel
def unlock_done(ram, cpu):
    """Let go of them."""
    if ram.lufd:
        spin_unlock(ram, cpu, ram.lufd_lock, 0)
