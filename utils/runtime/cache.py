"""A folder of arrays that need not be made again: .npz files,
of which the longest unused go when there are too many.
"""

import contextlib
import os
from pathlib import Path

import numpy as np

from .errors import UserError
from .files import remove_left, write_files
from .regular import open_regular

# bytes of one cache; a WRN-40-2's outputs take about 80 MB for CIFAR's training
# images and the six OOD sets
LIMIT = 4e9


class Cache:
    """Arrays by name below a folder; a name may begin with a sub-folder's,
    the same depth for all names.

    Whatever goes wrong with a file costs its making again, and nothing else.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of that name; None where there are none, or the file is damaged."""
        with contextlib.suppress(Exception):  # missing, or half of a file
            with open_regular(self.path(name)) as file:
                length = os.fstat(file.fileno()).st_size
                content = np.load(file, allow_pickle=False)
                # as ``save`` writes them: nothing is packed
                if sum(member.file_size for member in content.zip.infolist()) > length:
                    return None
                arrays = {key: content[key] for key in content.files}
            with contextlib.suppress(OSError):
                os.utime(self.path(name))  # used just now: it goes last
            return arrays
        return None

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write the arrays, then remove what is above ``LIMIT``;
        a full or read-only disk costs the next run its work.
        """
        with contextlib.suppress(OSError, UserError):
            # straight into the file: the arrays may take half of the memory
            write_files({self.path(name): lambda file: np.savez(file, **arrays)})
            self.prune(keep=self.path(name))

    def prune(self, keep: Path) -> None:
        """Remove the files that have not been used for longest until at most ``LIMIT`` bytes
        are left; never ``keep``.
        """
        # other folders than the cache's own lie below it
        depth = len(keep.relative_to(self.folder).parts) - 1
        folders = self.folder.glob("*/" * depth) if depth else [self.folder]
        files = []
        for folder in folders:
            remove_left(folder)
            files += [(f.stat().st_mtime_ns, f.stat().st_size, f) for f in folder.glob("*.npz")]
        excess = sum(size for _, size, _ in files) - LIMIT
        for _, size, file in sorted(files):
            if excess > 0 and file != keep:
                file.unlink(missing_ok=True)
                excess -= size
