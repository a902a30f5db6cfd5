"""What two calls on the same pages flush under Linux: a small model, read in its source and written apart
from ours.

One process maps a region of PAGES pages that are all in the same state, between neighbours that keep its
page table; a second thread, on CPU 1, runs all the time, so that each flush reaches it. `CALLS` says of each
call which method of `Model` knows what it flushes, and which function of linux-source-6.12 says so. A flush
is the number of pages that its range has, or ALL (flush_tlb_mm, arch_tlbbatch_flush).
Left out: what needs pressure (kswapd), huge pages, more than one table, concurrent calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

PAGES, ALL = 8, "all0"
ANON, PRIVATE, SHARED, CODE = "anon", "private", "shared", "code"
KINDS = (ANON, PRIVATE, SHARED, CODE)
ZERO, FILE, COPY = "the zero page", "the file's page", "an anonymous page"
READ, NONE = "PROT_READ", "PROT_NONE"
WRITE, EXEC, BOTH = "PROT_READ|PROT_WRITE", "PROT_READ|PROT_EXEC", "PROT_READ|PROT_WRITE|PROT_EXEC"


@dataclass(frozen=True)
class Pte:
    """What each PTE of the region is (None: empty)."""

    shows: str
    write: bool = False
    dirty: bool = False
    young: bool = True
    present: bool = True  # False: PROT_NONE, mapped but in no TLB
    execute: bool = False


@dataclass
class Page:
    """What each PTE shows, if that is anonymous; or the file's page, cached or not."""

    mapcount: int = 1
    exclusive: bool = True
    dirty: bool = False
    lazy: bool = False  # MADV_FREE: swapbacked is clear
    node: int = 0


@dataclass
class Model:
    """One region of a kind, and what was flushed since `flushes` was emptied."""

    kind: str
    rights: str = ""
    pte: Pte | None = None
    copy: Page = field(default_factory=Page)
    file: Page | None = None  # its page in the cache; mapcount: by children alone
    has_anon: bool = False  # vma->anon_vma
    pending: bool = False  # mm->tlb_flush_batched: pending and flushed differ
    children: int = 0
    flushes: list[int | str] = field(default_factory=list)

    # -- the ways of flushing

    def flush(self, *what: int | str) -> None:
        """Send these flushes to whoever runs the process."""
        self.flushes += what

    def complete_pending(self) -> None:
        """flush_tlb_batched_pending: whoever changes a page table for its process, under the PTE lock."""
        if self.pending:
            self.flush(ALL)
        self.pending = False

    def flush_batch(self, gather_is_open: bool = False) -> None:
        """set_tlb_ubc_flush_pending, try_to_unmap_flush: what is not accessible is in no TLB, unless
        somebody, perhaps the caller, is changing PTEs (pte_accessible, tlb_flush_pending).
        """
        if self.pte and (self.pte.present or gather_is_open):
            self.pending = True
            self.flush(ALL)

    # -- parts of calls

    def mapcount(self) -> int:
        """How many PTEs show the page that ours shows."""
        if self.pte.shows == COPY:
            return self.copy.mapcount
        return 1 + self.file.mapcount

    def page(self) -> Page:
        """The page that the PTE shows."""
        return self.copy if self.pte.shows == COPY else self.file

    def read_file(self) -> None:
        """The page is in the cache."""
        self.file = self.file or Page(mapcount=0)

    def new_copy(self) -> None:
        """Map a new anonymous page that was written to; what was mapped loses a PTE."""
        if self.pte and self.pte.shows == COPY:
            self.copy.mapcount -= 1
        self.copy, self.has_anon = Page(), True
        self.pte = Pte(COPY, write=True, dirty=True, execute="EXEC" in self.rights)

    def map_file(self, write: bool) -> None:
        """do_read_fault, do_shared_fault."""
        self.read_file()
        self.file.dirty |= write
        self.pte = Pte(FILE, write, write, execute="EXEC" in self.rights)

    def zap(self, copies: bool = True) -> None:
        """zap_pte_range and the end of its gather: one range."""
        self.complete_pending()
        if self.pte is None or (self.pte.shows == COPY and not copies):
            return
        self.flush(PAGES)
        if self.pte.shows == COPY:
            self.copy.mapcount -= 1
        elif self.pte.shows == FILE:
            self.file.dirty |= self.pte.dirty
        self.pte = None

    def write_fault(self) -> None:
        """do_wp_page, do_anonymous_page, do_cow_fault, do_shared_fault."""
        if self.pte is None:
            if self.kind == SHARED:
                self.map_file(write=True)
            else:
                if self.kind != ANON:
                    self.read_file()
                self.new_copy()
        elif self.kind == SHARED:  # wp_page_shared
            self.file.dirty = True
            self.pte = replace(self.pte, write=True, dirty=True, young=True)
        elif self.pte.shows == COPY and (self.copy.exclusive or self.copy.mapcount == 1):  # wp_page_reuse
            self.copy.exclusive = True
            self.pte = replace(self.pte, write=True, dirty=True, young=True)
        else:
            self.flush(*[1] * PAGES)
            self.new_copy()

    def clean_file(self) -> None:
        """page_vma_mkclean_one, for each dirty page that is written."""
        pte = self.pte
        if self.file and pte and pte.shows == FILE and (pte.write or pte.dirty):
            if pte.present:
                self.flush(*[1] * PAGES)
            self.pte = replace(pte, write=False, dirty=False)
        if self.file:
            self.file.dirty = False

    # -- calls

    def map(self) -> None:
        """A new VMA."""
        self.rights = EXEC if self.kind == CODE else WRITE
        self.has_anon = False

    def load(self) -> None:
        if self.pte is None and self.kind == ANON:
            self.pte = Pte(ZERO, execute="EXEC" in self.rights)
        elif self.pte is None:
            self.map_file(write=False)
        else:
            self.pte = replace(self.pte, young=True)

    def store(self) -> None:
        if self.pte and self.pte.write:
            self.pte = replace(self.pte, dirty=True, young=True)
        else:
            self.write_fault()

    def remap(self) -> None:
        self.zap()
        self.map()

    def needs_flush(self, old: Pte, new: Pte) -> bool:
        """pte_needs_flush: what was not present is in no TLB; RW and NX both ways; access only if it goes."""
        changed = old.write != new.write or old.execute != new.execute
        return old.present and (changed or not new.present)

    def mprotect(self, rights: str) -> None:
        if rights == self.rights:
            return
        self.rights = rights
        self.complete_pending()
        if self.pte is None:
            return
        new = replace(self.pte, write=False, present=rights != NONE, execute="EXEC" in rights)
        if "WRITE" in rights:  # can_change_pte_writable
            ready = new.dirty if self.kind == SHARED else new.shows == COPY and self.copy.exclusive
            new = replace(new, write=ready)
        if self.needs_flush(self.pte, new):
            self.flush(PAGES)
        self.pte = new

    def mremap(self) -> None:
        for _ in range(2):  # there, and back
            self.complete_pending()
            if self.pte:
                self.flush(PAGES)

    def madvise_free(self) -> None:
        self.complete_pending()
        if self.pte is None or self.pte.shows == ZERO:
            return
        if self.copy.dirty and self.copy.mapcount != 1:
            return
        self.copy.dirty = False
        if self.pte.young or self.pte.dirty:
            self.pte = replace(self.pte, young=False, dirty=False)
            self.flush(PAGES)
        self.copy.lazy = True

    def madvise_cold(self) -> None:
        self.complete_pending()
        if self.pte and self.pte.shows != ZERO and self.mapcount() == 1 and self.pte.young:
            self.pte = replace(self.pte, young=False)
            self.flush(PAGES)

    def madvise_pageout(self) -> None:
        self.complete_pending()
        if self.pte is None or self.pte.shows == ZERO or self.mapcount() != 1:
            return
        if self.pte.shows == COPY and not self.copy.lazy:
            return  # no swap: activate_locked
        self.flush_batch(gather_is_open=True)
        page = self.page()
        page.dirty |= self.pte.dirty
        if self.pte.shows == FILE:
            self.file = page if page.dirty else None
            self.pte = None
        elif page.dirty:  # remapped, folio_set_swapbacked
            page.lazy = False
        else:
            self.pte = None

    def fork(self) -> None:
        self.children += 1
        if self.has_anon and self.pte and self.pte.shows == COPY:
            self.copy.mapcount, self.copy.exclusive = self.copy.mapcount + 1, False
            self.pte = replace(self.pte, write=False)
        elif self.has_anon and self.pte and self.pte.shows == FILE:
            self.file.mapcount += 1
        self.flush(ALL)

    def truncate(self) -> None:
        self.zap()
        self.file = None

    def punch_hole(self) -> None:
        self.zap(copies=False)
        self.file = None

    def write(self) -> None:
        self.read_file()
        self.file.dirty = True

    def direct_write(self) -> None:
        self.clean_file()
        mapped = self.file and (self.file.mapcount or (self.pte and self.pte.shows == FILE))
        if mapped:
            self.zap(copies=False)
        self.file = None

    def direct_read_into(self) -> None:
        if self.pte is None or not self.pte.write:
            self.write_fault()
        self.page().dirty = True

    def populate(self) -> None:
        writes = "WRITE" in self.rights and self.kind != SHARED
        if self.rights == NONE:
            return
        if writes and (self.pte is None or not self.pte.write):
            self.write_fault()
        elif writes and not self.pte.dirty:
            self.page().dirty = True  # FOLL_TOUCH
        elif self.pte is None:
            self.load()

    def move_pages(self) -> None:
        if self.pte is None or self.pte.shows == ZERO or self.mapcount() != 1 or self.page().node == 1:
            return
        self.flush_batch()
        self.page().dirty |= self.pte.dirty
        self.page().node = 1

    def uprobe_register(self) -> None:
        if self.pte is None:
            self.load()
        if self.pte.shows == FILE:
            self.flush(*[1] * PAGES)
            self.new_copy()
            self.pte = replace(self.pte, write=False, dirty=False)
            self.file.mapcount = 0

    def uprobe_unregister(self) -> None:
        if self.pte is None:
            self.load()
        if self.pte.shows == COPY:
            self.flush(*[1] * PAGES)
            self.pte = None
            if self.file is None:
                self.new_copy()
                self.pte = replace(self.pte, write=False, dirty=False)

    def fadvise_dontneed(self) -> None:
        unused = self.file and not self.file.mapcount and not (self.pte and self.pte.shows == FILE)
        if unused and not self.file.dirty:
            self.file = None


@dataclass(frozen=True)
class Call:
    """One call: how a script makes it, and where Linux says what it flushes."""

    name: str
    rows: tuple[tuple[object, ...], ...]
    source: str
    kinds: tuple[str, ...] = KINDS
    model: str = ""  # method of Model, with the arguments behind it
    arguments: tuple[str, ...] = ()

    def does(self, model: Model) -> None:
        """Change the model as the call changes the region."""
        getattr(model, self.model or self.name)(*self.arguments)

    def allowed(self, model: Model) -> bool:
        """Could the call be made without a signal?"""
        if self.name in ("store", "direct_read_into"):
            return "WRITE" in model.rights and model.kind != CODE  # scripts do not store to code
        if self.name.startswith("uprobe"):
            return model.rights == EXEC
        return self.name != "load" or model.rights != NONE


FILES, UNSHARED = (PRIVATE, SHARED, CODE), (ANON, PRIVATE, SHARED)
CALLS = (
    Call("load", (("load", "m"),), "mm/memory.c: do_anonymous_page, do_read_fault: nothing was there"),
    Call("store", (("store", "m"),), "mm/memory.c: wp_page_copy flushes each page, wp_page_reuse none"),
    Call("remap", (("munmap", "m"), ("mmap", "m")), "mm/memory.c: zap_pte_range"),
    *(
        Call(f"mprotect {rights}", (("mprotect", "m", rights),),
             "mm/mprotect.c: mprotect_fixup, change_pte_range; asm/tlbflush.h: pte_needs_flush",
             model="mprotect", arguments=(rights,))
        for rights in (READ, WRITE, NONE, EXEC, BOTH)
    ),
    Call("mremap", (("mremap", "m", "place"), ("mremap", "place", "m")),
         "mm/mremap.c: move_ptes (force_flush)"),
    Call("MADV_DONTNEED", (("madvise", "m", "MADV_DONTNEED"),), "mm/memory.c: zap_page_range_single",
         model="zap"),
    Call("MADV_FREE", (("madvise", "m", "MADV_FREE"),), "mm/madvise.c: madvise_free_pte_range", (ANON,),
         "madvise_free"),
    Call("MADV_COLD", (("madvise", "m", "MADV_COLD"),),
         "mm/madvise.c: madvise_cold_or_pageout_pte_range", model="madvise_cold"),
    Call("MADV_PAGEOUT", (("madvise", "m", "MADV_PAGEOUT"),),
         "mm/vmscan.c: shrink_folio_list activates a dirty folio of a file; mm/rmap.c: try_to_unmap_one",
         model="madvise_pageout"),
    Call("fork", (("fork",),), "kernel/fork.c: dup_mmap; mm/memory.c: vma_needs_copy"),
    Call("truncate", (("truncate", "whole"),), "mm/truncate.c: truncate_pagecache (even_cows)", FILES),
    Call("punch_hole", (("truncate", "m"),), "mm/truncate.c: truncate_pagecache_range", FILES),
    Call("write", (("write", "m"),), "mm/filemap.c: generic_perform_write", FILES),
    Call("fdatasync", (("fdatasync", "m"),), "mm/rmap.c: page_vma_mkclean_one", FILES, "clean_file"),
    Call("direct_read_from", (("direct_read", "m", "buffer"),), "mm/filemap.c: kiocb_write_and_wait",
         FILES, "clean_file"),
    Call("direct_write", (("direct_write", "m", "buffer"),),
         "mm/truncate.c: invalidate_inode_pages2_range", FILES),
    Call("direct_read_into", (("direct_read", "source", "m"),), "mm/gup.c: gup_fast_pte_range, faultin_page",
         UNSHARED),
    Call("populate", (("populate", "m"),), "mm/gup.c: populate_vma_page_range, follow_page_pte"),
    Call("move_pages", (("move_pages", "m", 1),),
         "mm/migrate.c: migrate_pages_batch; mm/rmap.c: try_to_migrate_one"),
    Call("uprobe_register", (("uprobe_register", "m"),), "kernel/events/uprobes.c: __replace_page", (CODE,)),
    Call("uprobe_unregister", (("uprobe_unregister", "m"),), "kernel/events/uprobes.c: __replace_page",
         (CODE,)),
    Call("fadvise_dontneed", (("fadvise_dontneed", "m"),), "mm/truncate.c: mapping_try_invalidate", FILES),
)  # fmt: skip
