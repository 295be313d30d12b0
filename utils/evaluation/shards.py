"""Outputs of a set that streams, on disk: written a shard of images at a time, so that an
interrupted evaluation goes on with the next one.

``FOLDER/logits.npy`` and ``features.npy`` are (N,...) float32 arrays whose rows are appended;
``done.json`` says how many rows are whole.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.runtime import make_folder, ranks, write_json

SHARD = 10_000  # images


class Shards:
    """The outputs of ``count`` images in a folder."""

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count

    @property
    def done(self) -> int:
        """Images whose outputs are there, whole shards of them."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            state = json.loads((self.folder / "done.json").read_text())
            if state["count"] == self.count and all(
                path.stat().st_size >= end for path, end in self.ends(state).items()
            ):
                return state["done"]
        return 0

    def ends(self, state: dict) -> dict[Path, int]:
        """{file: bytes that the rows which are done take}."""
        return {
            self.folder / f"{name}.npy": start + 4 * width * state["done"]
            for name, (start, width) in state["files"].items()
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole arrays as maps of the files, whose rows are read when they are used."""
        files = json.loads((self.folder / "done.json").read_text())["files"]
        return {
            name: np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            if width
            else np.empty((self.count, 0), np.float32)
            for name, (_, width) in files.items()
        }

    def write(self, batches: Iterator[tuple[np.ndarray, np.ndarray]], done: int) -> None:
        """Append (logits, features) of the batches from image ``done`` on, in order; of several
        ranks the first one writes.
        """
        if ranks.rank():
            for _ in batches:
                pass
            return
        make_folder(self.folder)
        files, pending = {}, []
        if done:
            files = json.loads((self.folder / "done.json").read_text())["files"]
        waiting = 0
        for parts in batches:
            pending.append(parts)
            waiting += len(parts[0])
            if waiting >= SHARD or done + waiting == self.count:
                for name, rows in zip(("logits", "features"), map(np.concatenate, zip(*pending))):
                    files[name] = self.append(name, rows, done, files.get(name))
                done, pending, waiting = done + waiting, [], 0
                state = {"count": self.count, "done": done, "files": files}
                write_json(self.folder / "done.json", state)

    def append(self, name: str, rows: np.ndarray, done: int, file: list | None) -> list:
        """Write rows behind the first ``done`` ones; [bytes of the header, width] of the file."""
        path, rows = self.folder / f"{name}.npy", np.ascontiguousarray(rows, dtype=np.float32)
        width = rows.shape[1]
        if file is None:
            with open(path, "wb") as out:
                shape = {"descr": "<f4", "fortran_order": False, "shape": (self.count, width)}
                np.lib.format.write_array_header_1_0(out, shape)
                file = [out.tell(), width]
        with open(path, "r+b") as out:
            out.truncate(file[0] + 4 * width * done)
            out.seek(0, 2)
            out.write(rows.data)
        return file
