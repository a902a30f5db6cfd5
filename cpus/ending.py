"""The signals with which somebody ends a run: Ctrl-C, kill, a terminal that goes away, Ctrl-\\.

The command line and the supervisor answer them; processes that these have forked ignore them, and are ended
by their parent. Left out: SIGKILL, which nobody can answer (the janitor and PDEATHSIG see to that).
"""

from __future__ import annotations

import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
