"""LUF (Lazy Unmap Flush). `luf.py` is the design; the rest is one idea a file, in the order of a page's way:

unmap.py        read-only mappings are not flushed; a batch of folios gets a key
records.py      the CPUs that must not be forgotten: of each file, mm and key
ugen.py         stamps, and which CPUs have flushed since
generations.py  pages of a zone that one flush serves; published.py says that it is over
take_off.py     pages leave the allocator; sync/ has who flushes then
triggers.py     what else flushes; debug.py watches all of it; fields.py lists what is shared
"""
