"""Freed memory stays with the process."""

import ctypes
from contextlib import suppress

# of glibc's malloc.h: what may lie free at the top, from which size a block is mapped alone,
# and how many blocks may be
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, however large; call it before the first tensor.
    Nothing where there is no mallopt.

    glibc returns every tensor above 32 MB to the system,
    so that each step faults its pages in anew.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        if not mallopt(M_MMAP_THRESHOLD, LARGEST):  # an older glibc allows 32 MB at most
            mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, LARGEST)
