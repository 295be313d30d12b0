"""Which data sets are there, and whether they are good: what --check and --list print."""

import json
from pathlib import Path

from data.archives import is_image
from data.transfer import mismatch

HERE = Path(__file__).resolve().parent


def inspect(entry: dict, path: Path) -> tuple[str, str]:
    """("good" | "missing" | "bad", what was found) for a set whose layout lies at path."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return "missing", f"nothing at {path}"
    if path.exists() and not (path.is_dir() or path.is_file()):
        return "bad", f"{path} is no file"
    if path.is_dir() == (entry["extract"] is None):
        return "bad", f"{path} should be a {'file' if path.is_dir() else 'folder'}"
    if entry["extract"] is None:
        wrong = mismatch(path, entry)
        return ("bad", wrong) if wrong else ("good", "checksum right")
    if "files" in entry:
        bad = [
            name
            for name, md5 in entry["files"].items()
            if not (path / name).is_file() or mismatch(path / name, {"md5": md5})
        ]
        if bad:
            return "bad", f"missing or changed: {', '.join(bad)}"
        return "good", f"{len(entry['files'])} files, checksums right"
    found = sum(is_image(file) for file in path.rglob("*"))
    return ("good" if found == entry["count"] else "bad"), f"{found:,} of {entry['count']:,} images"


def file_path(entry: dict, data: Path) -> Path:
    """Where the fetched file lies: the archive in the data folder,
    or the set itself if it is one file.
    """
    return data / (entry["archive"] if entry["extract"] else entry["layout"])


def print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def check_all(names: list[str], sets: dict[str, dict], data: Path) -> int:
    """Table of what is there; exit status 0 if every named set is there and
    good, else 2. No network.
    """
    rows = []
    for name in names:
        entry, archive = sets[name], "-"
        state, found = inspect(entry, data / entry["layout"])
        if entry["extract"] and file_path(entry, data).is_file():
            wrong = mismatch(file_path(entry, data), entry)
            archive = f"{wrong}; remove it" if wrong else "checksum right"
            state = "bad" if wrong and state == "good" else state
        rows.append((name, state, found, archive))
    print_table([("name", "state", "found", "archive"), *rows])
    return 0 if all(state == "good" for _, state, *_ in rows) else 2


def list_all(names: list[str], sets: dict[str, dict], data: Path) -> int:
    rows = [("name", "size", "images", "there", "from", "licence")]
    for name in names:
        entry = sets[name]
        size = (
            f"{entry['bytes'] / 1e6:,.0f} MB" if entry["bytes"] else entry["size"] or "not stated"
        )
        there = "yes" if (data / entry["layout"]).exists() else "no"
        rows.append((name, size, f"{entry['images']:,}", there, entry["url"], entry["licence"]))
    print_table(rows)
    return 0


def list_published() -> None:
    """Trained networks of other people, which are fetched by hand: address, place, checksum."""
    known = json.loads((HERE / "published.json").read_text(encoding="utf-8"))["networks"]
    folder = HERE.parent / "CIFAR" / "snapshots" / "published"
    rows = [("test.py --model", "there", "from", "sha256")]
    for name, entry in known.items():
        there = "yes" if (folder / f"{name}.pt").is_file() else "no"
        rows.append((f"published/{name}", there, entry["from"], entry["sha256"]))
    print(f"\nPublished networks, by hand: put the file as NAME.pt into {folder}")
    print_table(rows)
