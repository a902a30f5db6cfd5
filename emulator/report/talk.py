"""The figures of the talk that this emulator is measured against: its slides' numbers, typed in once, parsed
never.

"While the workload of llama.cpp runs for 4000 secs", vanilla Linux and vanilla + LUF on an Intel Xeon Gold
6430.
"""

from __future__ import annotations

# the generated workload that stands for the talk's; others have no figures to be put beside
WORKLOAD = "llama3x15"

# Slides "TLB Shootdown Number": the TLB row of /proc/interrupts, summed over the 64 CPUs.
TLB_SHOOTDOWNS = {"linux": 7_859_322_631, "luf": 219_066_035}  # -97.2 %

# Slides "TLB Miss Number": perf stat -a.
DTLB_LOAD_MISSES = {"linux": 25_296_288_810, "luf": 12_892_995_056}  # -49.0 %
DTLB_STORE_MISSES = {"linux": 21_592_110_362, "luf": 5_357_137_957}  # -75.2 %
ITLB_LOAD_MISSES = {"linux": 3_985_725_200, "luf": 669_019_529}  # -83.2 %

# Slides "Runtime of the Workload": total time of llama_print_timings, 15 runs each, in ms.
RUNTIMES_MS = {
    "linux": (
        *(883450.54, 861665.91, 898079.02, 879897.69, 892360.75, 884587.85, 861023.19, 900022.18),
        *(878771.88, 889027.98, 880783.90, 856475.29, 896842.21, 878883.53, 890122.10),
    ),
    "luf": (
        *(871060.86, 825609.53, 836854.81, 843147.99, 831426.65, 873939.23, 826127.69, 835489.26),
        *(842589.62, 833700.66, 875996.19, 826401.73, 839341.28, 841075.10, 835136.41),
    ),
}  # mean -4.49 %

# Slide "RO : RW Ratio, collected on unmapping": 99 % : 1 %.
READ_ONLY_SHARE = 0.99

# Slides "When to TLB Shootdowns": no numbers, a picture of who sends them.
SHOT_DOWN_BY = {"linux": "kswapd, direct reclaim", "luf": "page allocation"}


def change(pair: dict[str, int]) -> float:
    """Return the talk's change from vanilla to LUF as a fraction: -0.972 for the shootdowns."""
    return pair["luf"] / pair["linux"] - 1


def runtime_change() -> float:
    """Return the change of the mean runtime from vanilla to LUF."""
    return (sum(RUNTIMES_MS["luf"]) / len(RUNTIMES_MS["luf"])) / (
        sum(RUNTIMES_MS["linux"]) / len(RUNTIMES_MS["linux"])
    ) - 1
