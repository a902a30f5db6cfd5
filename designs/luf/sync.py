"""LUF's open question (last slides): who flushes when many allocators reach the same pending shootdown? One
file for each answer.

Each gives the hooks it needs; all have the same unmapping, the same triggers and the same pages (luf.py,
luf_take.py).
"""

from cpus.compiled import Entry
from designs.luf.each import each_page_freed, each_take, each_take_done
from designs.luf.help import help_take_done
from designs.luf.kicker import kicker_kthread, kicker_take_done
from designs.luf.machine_wide import global_take, global_take_done
from designs.luf.owner import owner_take, owner_take_done
from designs.luf.skip import skip_take_check
from designs.luf.take import luf_page_freed, luf_take_check
from designs.luf.tick import tick_between_ticks, tick_page_freed, tick_tick

OWNER = (luf_page_freed, luf_take_check, owner_take, owner_take_done)
SYNC: dict[str, tuple[str, tuple[Entry, ...]]] = {
    "owner": ("who takes the first page of a zone's generation flushes, the others wait (v12)", OWNER),
    "each": ("every taker flushes for what it took, nobody waits (v12 before zone generations)",
             (each_page_freed, luf_take_check, each_take, each_take_done)),
    "global": ("one flusher in the machine, the others try again (v9-v11)",
               (luf_page_freed, luf_take_check, global_take, global_take_done)),
    "help": ("who would wait interrupts the CPUs that still lag",
             (luf_page_freed, luf_take_check, owner_take, help_take_done)),
    "skip": ("pages being flushed by another are passed over",
             (luf_page_freed, skip_take_check, owner_take, owner_take_done)),
    "kicker": ("a thread flushes in the background before clean pages fall to LOW, until they are above HIGH",
               (luf_page_freed, luf_take_check, owner_take, kicker_take_done, kicker_kthread)),
    "tick": ("CPUs flush themselves at their tick, interrupts on time-out",
             (tick_page_freed, luf_take_check, owner_take, owner_take_done, tick_tick, *tick_between_ticks)),
}  # fmt: skip
