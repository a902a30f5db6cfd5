"""What makes LUF flush before memory is allocated: something else is about to be seen at an address of an mm,
or at an offset of a file.

A user's change of mappings is another trigger; vanilla's flush_tlb_batched_pending (designs/linux.py) serves
it.
"""

from allocator.flush_sites import SITE_FILE
from allocator.vma import is_shared_file
from designs.design import hook, hooks
from designs.luf.fields import luf_state
from designs.luf.records import flush_record, of_file, of_mm


@hook("write_fault")
def luf_write_fault(ram, cpu, mm, vma, vpn, object):
    """A mapping becomes writable: nobody may go on reading the mm's, or the shared file's, old pages."""
    state = luf_state(ram)
    flush_record(ram, state, cpu, of_mm(ram, mm))
    if is_shared_file(ram, vma):
        flush_record(ram, state, cpu, of_file(object))
    return 0


@hook("file_write")
def luf_file_write(ram, cpu, object, page, c, d):
    site = ram.cpu_site[cpu]
    ram.cpu_site[cpu] = SITE_FILE
    flush_record(ram, luf_state(ram), cpu, of_file(object))
    ram.cpu_site[cpu] = site
    return 0


@hooks("truncate", "mkclean")
def luf_file_changes(ram, cpu, object, page, c, d):
    flush_record(ram, luf_state(ram), cpu, of_file(object))
    return 0
