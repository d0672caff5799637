"""What a program of ours inherits from the shell, scheduler or supervisor that started it, put right before its first act."""

from __future__ import annotations

import os
import signal


def put_right() -> None:
    """Children leave an exit code, no signal waits for ever, and what we make is ours to read.

    An ignored SIGCHLD (`trap '' CHLD`, some supervisors of containers) and a mask of blocked signals outlive exec. With the one
    the kernel reaps each child itself: `waitpid` knows none, and Python reads that as exit code 0. With the other a SIGTERM never
    comes, nor the SIGUSR1 that asks for the stacks. What is ignored otherwise stays so: `nohup` means it.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(os.umask(0o077) & 0o077)
