"""The memory map of the whole machine: of hardware, kernel, and what designs keep beside their own fields."""

from allocator import memory_map as kernel
from cpus.layout import assemble
from designs import held, linux
from designs.luf import debug, ugen

MODULES = (*kernel.MODULES, linux, held, ugen, debug)

MACHINE = assemble("machine", MODULES)
