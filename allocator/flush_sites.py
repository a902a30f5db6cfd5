"""What a flush is counted under: the site that asked for it, and the reason that Linux traces.

The *site* is what the asking CPU was doing (`ram.cpu_site`); results, pictures and the comparison with a real
kernel name it as said here. A *reason* is one of tlb:tlb_flush (include/linux/mm_types.h: enum
tlb_flush_reason).
"""

from __future__ import annotations

from dataclasses import dataclass

from cpus.abi.numbered import Numbered

OTHERWISE = "task/other"


@dataclass(frozen=True, slots=True)
class Site:
    """`text` in results and reports, `colour` in pictures, `recorded` as actor/why in the record of a real
    kernel (emulator/golden/pressure.py).
    """

    text: str
    colour: str
    recorded: str = OTHERWISE


SITES = Numbered[Site]()
SITE_OTHER = SITES.add(Site("other", "#666666"))  # 0: what a CPU does until it says otherwise
SITE_KSWAPD = SITES.add(Site("kswapd", "#0072B2", "kswapd/reclaim_unmap"))
SITE_DIRECT = SITES.add(Site("direct reclaim", "#56B4E9", "direct/reclaim_unmap"))
SITE_KSWAPD_DEMOTION = SITES.add(Site("kswapd demotion", "#009E73", "kswapd/demotion_migrate"))
SITE_DIRECT_DEMOTION = SITES.add(Site("direct demotion", "#88CCAA", "direct/demotion_migrate"))
SITE_PROMOTION = SITES.add(Site("promotion", "#882255", "task/promotion_migrate"))
SITE_ALLOC = SITES.add(Site("page allocation", "#D55E00"))
SITE_WRITE_FAULT = SITES.add(Site("write fault", "#E69F00"))
SITE_USER = SITES.add(Site("munmap/madvise", "#F0E442"))
SITE_NUMA = SITES.add(Site("NUMA balancing", "#44AA99", "task/numa_hint_scan"))
SITE_FAULT = SITES.add(Site("fault", "#CC79A7"))
SITE_FILE = SITES.add(Site("file write", "#999999"))
NR_SITES = len(SITES)
SITE_NAMES = tuple(site.text for site in SITES.values())

REASONS = Numbered[str]()
ON_TASK_SWITCH = REASONS.add("task_switch")
REMOTE_SHOOTDOWN = REASONS.add("remote_shootdown")
LOCAL_SHOOTDOWN = REASONS.add("local_shootdown")
LOCAL_MM_SHOOTDOWN = REASONS.add("local_mm_shootdown")
REMOTE_SEND_IPI = REASONS.add("remote_send_ipi")
