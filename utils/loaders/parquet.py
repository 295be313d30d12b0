"""Parquet exports, as the Hugging Face hub gives data sets: a column of images ({bytes, path}, or
bytes) and one of labels. Read with pyarrow, where that is installed.
"""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.runtime import UserError, open_regular, printable

from . import bounds, splits

ENDING = ".parquet"
MAGIC = b"PAR1"
LABELS = ("label", "labels", "fine_label", "target", "class")
BATCH_BYTES = 1 << 28  # of the rows that are in memory at once


def is_parquet(path: Path) -> bool:
    return bounds.first_bytes(path)[:4] == MAGIC


def files_below(folder: Path) -> list[Path]:
    """The parquet files of a folder, also below ``data/`` and folders of parts, sorted."""
    found = (Path(name) for name in bounds.list_files(folder) if name.endswith(ENDING))
    return sorted(file for file in found if file.suffix == ENDING)


def kind_of(file: Path) -> str:
    """The part that a file's name, or that of its folder, says: train-00000-of-00002, train/0000."""
    return splits.kind_of(file.stem.split("-")[0]) or splits.kind_of(file.parent.name) or ""


def parts_of(path: Path) -> dict[str, list[str]]:
    """{part: [its name]} of a folder of parquet files whose names say parts; {} else."""
    kinds = [kind_of(file) for file in files_below(path)]
    return {kind: [kind] for kind in kinds} if kinds and all(kinds) else {}


def pyarrow_parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"{path} is a parquet export, which pyarrow reads: pip install pyarrow. Or bring its "
            "images as class folders or as an .npz"
        ) from None
    return pyarrow.parquet


class Table:
    """The images of one or more parquet files, in the order of their rows; ``inside``: of the files
    of one part alone. ``labels`` (N,) int64 or None, ``classes`` as the hub's description names them.
    """

    def __init__(self, path: Path, inside: str = ""):
        self.path, self.inside = path, inside
        files = files_below(path) if path.is_dir() else [path]
        self.files = [file for file in files if not inside or kind_of(file) == inside]
        parquet, self.handles, self.rows = pyarrow_parquet(path), [], []
        labels, self.classes, self.column, self.names = [], None, None, []
        for number, file in enumerate(self.files):
            try:
                handle = parquet.ParquetFile(open_regular(file))
                self.column, wanted = columns_of(handle.schema_arrow)
                check(handle, file)
                for group in range(handle.num_row_groups):
                    count = handle.metadata.row_group(group).num_rows
                    self.rows += [(number, group, row) for row in range(count)]
                if wanted:
                    labels += handle.read([wanted], use_threads=False)[wanted].to_pylist()
                    self.classes = self.classes or classes_of(handle.schema_arrow, wanted)
            except UserError:
                raise
            except Exception as error:
                raise UserError(f"{file} cannot be read as parquet ({error})") from None
            self.handles.append(handle)
            start = len(self.names)
            stem = os.path.relpath(file, path) if path.is_dir() else file.name
            self.names += [f"{stem}:{row:07d}" for row in range(len(self.rows) - start)]
        self.order = range(len(self.rows))
        self.places = dict(zip(self.names, self.rows))
        self.labels = label_array(labels, len(self.rows), path)
        self.at, self.values = None, iter(())

    def reopened(self) -> "Table":
        """The same rows, read by handles of its own, for another process."""
        other = Table(self.path, self.inside)
        if other.names != self.names:
            raise UserError(f"{self.path} has been changed since it was listed. Run it again")
        return other

    def open(self, name: str) -> io.BytesIO:
        """The image file in a row; rows in their order are read once."""
        number, group, row = self.places[name]
        if self.at is None or self.at[:2] != (number, group) or self.at[2] > row:
            self.at, self.values = (number, group, 0), self.group_values(number, group)
        before, self.at = (
            self.at[2],
            None,
        )  # a row that cannot be read ends the reading of its group
        for _ in range(row - before):
            next(self.values)
        value = next(self.values)
        self.at = (number, group, row + 1)
        if value is None:
            raise ValueError("the row holds no image")
        return io.BytesIO(value)

    def group_values(self, number: int, group: int) -> Iterator[bytes | None]:
        """The image files of a row group, a few rows in memory at a time."""
        handle, field = self.handles[number], self.column.split(".")
        rows = max(1, min(256, BATCH_BYTES // (column_bytes(handle, group) + 1)))
        batches = handle.iter_batches(rows, [group], [self.column], use_threads=False)
        for batch in batches:
            column = batch.column(0)
            for value in column.field("bytes") if len(field) > 1 else column:
                yield value.as_py()


def columns_of(schema: Any) -> tuple[str, str | None]:
    """(column of images, column of labels or None); ValueError: there is no column of images."""
    import pyarrow

    types = pyarrow.types
    structs = [
        f"{field.name}.bytes"
        for field in schema
        if types.is_struct(field.type)
        and field.type.get_field_index("bytes") >= 0
        and types.is_binary(field.type.field("bytes").type)
    ]
    plain = [f.name for f in schema if types.is_binary(f.type) or types.is_large_binary(f.type)]
    labels = [name for name in LABELS if name in schema.names]
    if not structs + plain:
        names = ", ".join(map(str, schema.names[:20]))
        raise ValueError(f"there is no column of images in it, but {names}")
    return (structs + plain)[0], labels[0] if labels else None


def column_bytes(handle: Any, group: int) -> int:
    found = handle.metadata.row_group(group)
    return max(found.column(i).total_uncompressed_size for i in range(found.num_columns))


def check(handle: Any, file: Path) -> None:
    """UserError where a file's head says of more rows or bytes than a set has, or can have."""
    if handle.metadata.num_rows > bounds.FILES:
        raise UserError(f"{file} says that it has {handle.metadata.num_rows:,} rows")
    sizes = [column_bytes(handle, group) for group in range(handle.num_row_groups)]
    bounds.check_packed(sum(sizes), file.stat().st_size, str(file))


def classes_of(schema: Any, column: str) -> tuple[str, ...] | None:
    """The names of the classes, of the hub's description in the file's head."""
    try:
        text = (schema.metadata or {})[b"huggingface"]
        names = json.loads(text)["info"]["features"][column]["names"]
        return tuple(printable(str(name)) for name in names)
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def label_array(labels: list, count: int, path: Path) -> np.ndarray | None:
    if not labels:
        return None
    if len(labels) != count or not all(type(label) is int for label in labels):
        raise UserError(f"{path}: labels are not an integer a row")
    if not all(0 <= label < bounds.CLASSES for label in labels):
        return None  # as hidden labels of a test set are -1
    return np.array(labels, dtype=np.int64)
