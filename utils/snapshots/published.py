"""Trained networks of other people, named by data/published.json and known by their checksum."""

import json
from pathlib import Path

from utils.runtime import CIFAR, DATA, UserError, sha256_file

PUBLISHED = CIFAR / "snapshots" / "published"
PREFIX = "published/"


def networks() -> dict[str, dict]:
    """{name: title, address and sha256} of the published networks."""
    return json.loads((DATA / "published.json").read_text(encoding="utf-8"))["networks"]


def find_published(name: str) -> Path:
    """The file that ``published/NAME`` means, its checksum verified; UserError with address, place
    and checksum where it is not there or is another file.
    """
    name, known = name.removeprefix(PREFIX).removesuffix(".pt"), networks()
    if name not in known:
        raise UserError(f"unknown published network '{name}'. There is: {', '.join(known)}")
    entry, file = known[name], PUBLISHED / f"{name}.pt"
    told = f"from {entry['from']} (sha256 {entry['sha256']}), put it at {file}"
    if not file.is_file():
        raise UserError(
            f"published network '{name}', {entry['title']}, is not there. Get the file {told}"
        )
    if sha256_file(file) != entry["sha256"]:
        raise UserError(
            f"{file} is not the published '{name}': its sha256 is {sha256_file(file)}. Get the "
            f"file {told}; or give another name to this one and its path to --model"
        )
    return file
