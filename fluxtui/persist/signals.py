"""The signals that a program of ours begins with, whatever the shell, scheduler or supervisor that started it left."""

from __future__ import annotations

import signal


def begin() -> None:
    """First act of a process: children leave an exit code, and no signal waits for ever.

    An ignored SIGCHLD (`trap '' CHLD`, some supervisors of containers) and a mask of blocked signals outlive exec. With the one
    the kernel reaps each child itself: `waitpid` knows none, and Python reads that as exit code 0. With the other a SIGTERM never
    comes, nor the SIGUSR1 that asks for the stacks. What is ignored otherwise stays so: `nohup` means it.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
