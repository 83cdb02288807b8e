"""A process that ends with its parent, also with one that is killed.

Source: prctl(2), PR_SET_PDEATHSIG."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> bool:
    """Have the kernel kill this process as soon as its parent ends.

    Args:
        parent: its pid, as the parent has told it: who asks here may be another's child already.

    Returns False if the parent has ended meanwhile, or the kernel does not do it: end now.  (The end that
    counts is that of the parent's thread which made this process.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    # Asked after the order: a parent that ended before it is no parent now; a later end the kernel sees.
    return libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0 and os.getppid() == parent
