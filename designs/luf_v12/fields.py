"""What LUF v12 keeps in shared memory: 65,536 records by a 16-bit key, one in every mm, one in every mapping;
four batches of a task; generations of a zone.

A task's batches are vanilla's (tlb_ubc), of the folio being walked (_ro), deferred (_luf), and of pages being
taken (_takeoff). Simplified: they are its CPU's (no task is switched out between an unmap and its flush
here); locks of records are plain spin locks, not rwlocks; no record is marked as writable, which nobody would
read; generations have 64 bits where the posted `unsigned long` has.
"""

from cpus.layout import Sizes
from designs.luf.fields import common_fields
from designs.luf.published import published_fields
from designs.state import own_fields

KEYS = 65536  # NR_LUF_BATCH: luf_key has 16 bits, 0 means none


def v12_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields."""
    cpus, zones = (sizes.nr_cpus,), (sizes.nr_zones,)
    common = common_fields(sizes, KEYS)
    return common | published_fields(sizes) | {
        "record_required": common["record_ugen"],  # lock of the record held: flush_required
        # config: whether folds into mm and mapping set flush_required (as posted: 0)
        "records_required": (1,),
        # zone lock held
        "zone_batch": (sizes.nr_zones, sizes.mask_words), "zone_luf_ugen": zones, "zone_ugen": zones,
        # owner
        "ro_writable": cpus, "lazy_writable": cpus,
        "no_shootdown": cpus, "section_zone": cpus,
        "own_generation": cpus, "wait_generation": cpus,  # task's zone_ugen and wait_zone_ugen, 0 none
    }  # fmt: skip


v12_state = own_fields("luf_v12", v12_fields)
