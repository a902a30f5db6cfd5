"""What LUF keeps in shared memory, and how its hooks reach it: `state = luf_state(ram)`."""

from cpus.layout import Sizes
from designs.deferral import deferral_fields
from designs.luf.published import published_fields
from designs.luf.records import record_fields
from designs.luf.ugen import ugen_fields
from designs.measure import measure_fields
from designs.state import own_fields

# keys of batches on their way to the buddy; v12 has 65,536. Reuse only merges, it never loses
KEYS = 4096
EACH_ROWS = 256  # newest generations of a zone that sync=each remembers


def common_fields(sizes: Sizes, keys: int) -> dict[str, tuple[int, ...]]:
    """Shared fields that luf and luf_v12 begin with."""
    # owner: CPUs and newest request of the pages that a take-off has taken (tlb_ubc_takeoff)
    taken = {"take_mask": (sizes.nr_cpus, sizes.mask_words), "take_ugen": (sizes.nr_cpus,)}
    shared = deferral_fields(sizes) | ugen_fields(sizes) | record_fields(sizes, keys)
    return shared | measure_fields(sizes) | taken


def luf_fields(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shared fields of LUF."""
    words, zones = sizes.mask_words, (sizes.nr_zones,)
    claims = sizes.nr_zones * (sizes.nr_cpus + 2)
    return common_fields(sizes, KEYS) | published_fields(sizes) | {
        # zone lock held: the open generation, its CPUs and its newest request
        "zone_generation": zones, "zone_mask": (sizes.nr_zones, words), "zone_ugen": zones,
        # owner: generation this CPU has promised to flush, and one that somebody else flushes; 0 none
        "own_generation": (sizes.nr_cpus, sizes.nr_zones), "wait_generation": (sizes.nr_cpus, sizes.nr_zones),
        # zone lock held: the generations that are claimed and not done
        "claim_mask": (claims, words), "claim_ugen": (claims,),
        # of single ways to synchronise (designs/luf/sync/)
        # each: zone lock held; each_key: key of the newest generation
        "each_mask": (sizes.nr_zones * EACH_ROWS, words), "each_ugen": (sizes.nr_zones * EACH_ROWS,),
        "each_key": zones,
        # global: compare-exchange 0 -> CPU + 1; then its holder
        "flusher": (1,), "flusher_ns": (1,), "flusher_took": (1,),
        "kicking": zones,  # kicker: any; only a hint
        "kick_cpu": (1,),  # tick: compare-exchange 0 -> CPU + 1: one flusher in the background at a time
        "request_ns": zones,  # tick: zone lock held: when the open generation got its first page
    }  # fmt: skip


def _any_keys(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return common_fields(sizes, keys=1)


common_state = own_fields("luf_common", _any_keys)
luf_state = own_fields("luf", luf_fields)
