"""The signals with which somebody ends a run: Ctrl-C, kill, a terminal that goes away, Ctrl-\\.

The command line and the supervisor answer them; processes that these have forked ignore them, and are ended
by their parent. Left out: SIGKILL, which nobody can answer (the janitor and PDEATHSIG see to that).
"""

from __future__ import annotations

import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def go_on(_number: int, _frame: object) -> None:
    """Be the handler of SIGCONT, and do nothing: whoever was stopped goes on.

    Without a handler a process that is just being forked gets its group's SIGSTOP, and not the SIGCONT after
    it (Linux, kernel/signal.c: prepare_signal drops what is ignored before __send_signal_locked looks at
    forks under way): a CPU stood still for ever.
    """
