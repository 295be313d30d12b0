"""Outputs of a set that streams, on disk: written a shard of images at a time, so that an
interrupted evaluation goes on with the next one.

``FOLDER/logits.npy`` and ``features.npy`` are (N,...) float32 arrays whose rows are appended;
``done.json`` says how many rows are whole.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.runtime import UserError, make_folder, open_regular, ranks, read_json, write_json

SHARD = 10_000  # images
NAMES = ("logits", "features")
WIDEST = 10**7  # values of one image


def header(count: int, width: int) -> bytes:
    """What a .npy of (count,width) float32 begins with."""
    out = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
    np.lib.format.write_array_header_1_0(out, shape)
    return out.getvalue()


class Shards:
    """The outputs of ``count`` images in a folder."""

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count

    @property
    def done(self) -> int:
        """Images whose outputs are there, whole shards of them."""
        return self.state()["done"]

    def state(self) -> dict:
        """{"done": images, "files": {name: [bytes of the header, width]}}; nothing done where the
        folder holds anything else.
        """
        with contextlib.suppress(OSError, UserError):
            state = read_json(self.folder / "done.json")
            if self.is_whole(state):
                return state
        return {"done": 0, "files": {}}

    def is_whole(self, state: object) -> bool:
        """Whether the record is one, and the files hold what it says."""
        if not isinstance(state, dict) or state.get("count") != self.count:
            return False
        done, files = state.get("done"), state.get("files")
        if type(done) is not int or not 0 <= done <= self.count or not isinstance(files, dict):
            return False
        return set(files) == set(NAMES) and all(
            self.is_file(name, file, done) for name, file in files.items()
        )

    def is_file(self, name: str, file: object, done: int) -> bool:
        """Whether the file is a .npy of this many images with at least so many rows."""
        if not (isinstance(file, list) and len(file) == 2 and all(type(n) is int for n in file)):
            return False
        start, width = file
        if not 0 <= width <= WIDEST:
            return False
        with open_regular(self.folder / f"{name}.npy") as content:
            length = os.fstat(content.fileno()).st_size
            whole = header(self.count, width)
            return (
                start == len(whole)
                and content.read(start) == whole
                and length >= start + 4 * width * done
            )

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole arrays as maps of the files, whose rows are read when they are used."""
        shapes = {name: (start, width) for name, (start, width) in self.state()["files"].items()}
        return {
            name: np.memmap(
                self.folder / f"{name}.npy", "<f4", "r", start, shape=(self.count, width)
            )
            if width
            else np.empty((self.count, 0), np.float32)
            for name, (start, width) in shapes.items()
        }

    def write(self, batches: Iterator[tuple[np.ndarray, np.ndarray]], done: int) -> None:
        """Write (logits, features) of the batches from image ``done`` on, in order; of several
        ranks the first one writes.

        Another process may write the same rows at the same time: no file is ever shortened.
        """
        if ranks.rank():
            for _ in batches:
                pass
            return
        make_folder(self.folder)
        files, pending = self.state()["files"] if done else {}, []
        waiting = 0
        for parts in batches:
            pending.append(parts)
            waiting += len(parts[0])
            if waiting >= SHARD or done + waiting == self.count:
                for name, rows in zip(NAMES, map(np.concatenate, zip(*pending))):
                    files[name] = self.put(name, rows, done)
                done, pending, waiting = done + waiting, [], 0
                state = {"count": self.count, "done": done, "files": files}
                write_json(self.folder / "done.json", state)

    def put(self, name: str, rows: np.ndarray, done: int) -> list:
        """Write rows behind the first ``done`` ones; [bytes of the header, width] of the file."""
        path, rows = self.folder / f"{name}.npy", np.ascontiguousarray(rows, dtype=np.float32)
        width = rows.shape[1]
        start = header(self.count, width)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as out:
            out.write(start)
            out.seek(len(start) + 4 * width * done)
            out.write(rows.data)
        return [len(start), width]
