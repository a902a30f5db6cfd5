"""Names of the cost table: what each event adds to a CPU's virtual clock. The figures and sources are in the
machine file.

`ram.cost[NAME]` holds tenths of a nanosecond where the name ends in `_TENTHS` (events shorter than a few ns),
else ns.
"""

COST_NAMES = (
    "access_tenths",  # one access that hits L1 dTLB and cache
    "line_dram_tenths",  # streaming one 64-byte line from DRAM
    "line_cxl_tenths",  # the same from the CXL node
    "stlb_hit",  # an L1 TLB miss that hits the second level
    "walk",  # a page walk with its paging-structure caches warm
    "fault_entry",  # exception, entry and return
    "fault_minor",  # handle_mm_fault of a page that is there, without allocation
    "map_page",  # one more PTE set by fault-around
    "page_alloc",
    "page_free",
    "page_zero",
    "page_copy",
    "page_cache_add",
    "read_page",  # file system and block layer: submitting and completing one page of a read
    "unmap_page",  # rmap walk and PTE clear of one mapping
    "reclaim_page",  # isolate, check references, free
    "disk_latency",
    "disk_page",  # one 4 KiB page at the disk's bandwidth
    "ipi_send",  # per target
    "ipi_latency",  # until the target enters its handler
    "ipi_handle",  # handler entry, flush function, ack, return
    "flush_full",
    "flush_one",
    "context_switch",
    "syscall",
    "wakeup",
)
NR_COSTS = len(COST_NAMES)
COST = {name: i for i, name in enumerate(COST_NAMES)}

ACCESS_TENTHS, LINE_DRAM_TENTHS, LINE_CXL_TENTHS = (
    COST["access_tenths"],
    COST["line_dram_tenths"],
    COST["line_cxl_tenths"],
)
STLB_HIT, WALK = COST["stlb_hit"], COST["walk"]
FAULT_ENTRY, FAULT_MINOR, MAP_PAGE = COST["fault_entry"], COST["fault_minor"], COST["map_page"]
PAGE_ALLOC, PAGE_FREE, PAGE_ZERO, PAGE_COPY = (
    COST["page_alloc"],
    COST["page_free"],
    COST["page_zero"],
    COST["page_copy"],
)
PAGE_CACHE_ADD, READ_PAGE = COST["page_cache_add"], COST["read_page"]
UNMAP_PAGE, RECLAIM_PAGE = COST["unmap_page"], COST["reclaim_page"]
DISK_LATENCY, DISK_PAGE = COST["disk_latency"], COST["disk_page"]
IPI_SEND, IPI_LATENCY, IPI_HANDLE = COST["ipi_send"], COST["ipi_latency"], COST["ipi_handle"]
FLUSH_FULL, FLUSH_ONE = COST["flush_full"], COST["flush_one"]
CONTEXT_SWITCH, SYSCALL, WAKEUP = COST["context_switch"], COST["syscall"], COST["wakeup"]
