"""A folder of arrays that need not be made again: .npz files,
of which the longest unused go when there are too many.
"""

import contextlib
import os
import re
from pathlib import Path

import numpy as np

from .errors import UserError
from .files import remove_left, write_files
from .regular import open_regular

# bytes of one cache; a WRN-40-2's outputs take about 80 MB for CIFAR's training
# images and the six OOD sets
LIMIT = 4e9
named_by_files: set[Path] = set()  # folders whose caches are read and not written


def only_read(folder: str | Path) -> None:
    """Write no cache below a folder that only a file names, a state, say: whoever made the file
    chose it.
    """
    named_by_files.add(Path(folder).expanduser().resolve())


class Cache:
    """Arrays by name below a folder; a name may begin with a sub-folder's,
    the same depth for all names.

    Whatever goes wrong with a file costs its making again, and nothing else. ``own``: what the
    names of its files look like, where it shares the folder with others', which never go.
    """

    def __init__(self, folder: str | Path, own: str = ".*"):
        self.folder, self.own = Path(folder), re.compile(own, re.DOTALL)

    def is_written(self) -> bool:
        place = self.folder.expanduser().resolve()
        return not any(place.is_relative_to(folder) for folder in named_by_files)

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
                if self.is_written():
                    os.utime(self.path(name))  # used just now: it goes last
            return arrays
        return None

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write the arrays, then remove what is above ``LIMIT``;
        a full or read-only disk costs the next run its work.
        """
        if not self.is_written():
            return
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
            own = [file for file in folder.glob("*.npz") if self.own.fullmatch(file.stem)]
            files += [(f.stat().st_mtime_ns, f.stat().st_size, f) for f in own]
        excess = sum(size for _, size, _ in files) - LIMIT
        for _, size, file in sorted(files):
            if excess > 0 and file != keep:
                file.unlink(missing_ok=True)
                excess -= size
