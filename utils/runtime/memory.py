"""Freed memory stays with the process."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, however large; call it before the first tensor.
    Nothing where there is no mallopt.

    glibc returns every tensor above 32 MB to the system,
    so that each step faults its pages in anew.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, LARGEST)
