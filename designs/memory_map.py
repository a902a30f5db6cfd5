"""The memory map of the whole machine: of hardware, kernel, and what designs keep beside their own fields."""

from allocator import memory_map as kernel
from cpus.segment import assemble
from designs import held

MACHINE = assemble("machine", (*kernel.MODULES, held))
