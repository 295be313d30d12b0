"""Freed memory stays with the process; how much it has had, and how much there is."""

import ctypes
import os
import sys
from contextlib import suppress

import torch

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


def peak_memory(device: torch.device | None = None) -> int:
    """Bytes that this process has had at most: of a CUDA device, else of the machine's memory; 0
    where the system does not tell.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    # in bytes on macOS, in KiB elsewhere
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def whole_memory(device: torch.device) -> int:
    """Bytes of memory that a CUDA device, else the machine has; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
