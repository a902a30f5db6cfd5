"""LUF's open question (last slides): who flushes when many allocators reach the same pending shootdown? One
file for each answer.

`owner` gives all hooks of a take-off, the others those in which they differ from it; unmapping, triggers and
generations are the same for all.
"""

from cpus.compiled import Entry
from designs.design import replaced
from designs.luf.generations import luf_page_freed
from designs.luf.sync.each import each_page_freed, each_take, each_take_done
from designs.luf.sync.help import help_take_done
from designs.luf.sync.kicker import kicker_kthread, kicker_take_done
from designs.luf.sync.machine_wide import global_take, global_take_done
from designs.luf.sync.owner import owner_take, owner_take_done
from designs.luf.sync.skip import skip_take_check
from designs.luf.sync.tick import tick_between_ticks, tick_page_freed, tick_tick
from designs.luf.take_off import luf_pend_first, luf_take_begin, luf_take_check

OWNER = (luf_page_freed, luf_pend_first, luf_take_begin, luf_take_check, owner_take, owner_take_done)
SYNC: dict[str, tuple[str, tuple[Entry, ...]]] = {
    "owner": ("who takes the first page of a zone's generation flushes, the others wait (v12)", OWNER),
    "each": ("every taker flushes for what it took, nobody waits (v12 before zone generations)",
             replaced(OWNER, each_page_freed, each_take, each_take_done)),
    "global": ("one flusher in the machine, the others try again (v9-v11)",
               replaced(OWNER, global_take, global_take_done)),
    "help": ("who would wait interrupts the CPUs that still lag", replaced(OWNER, help_take_done)),
    "skip": ("pages being flushed by another are passed over", replaced(OWNER, skip_take_check)),
    "kicker": ("a thread flushes in the background before clean pages fall to LOW, until they are above HIGH",
               replaced(OWNER, kicker_take_done, kicker_kthread)),
    "tick": ("CPUs flush themselves at their tick, interrupts on time-out",
             replaced(OWNER, tick_page_freed, tick_tick, *tick_between_ticks)),
}  # fmt: skip
