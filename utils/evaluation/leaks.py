"""What test.py says of images that are in two sets at once: an OOD image that is an ID image too, or
one of the outliers that the network was tuned with, is no fair question to it.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils import loaders
from utils.runtime import CIFAR, UserError, print_note, read_json, read_regular_text

RESULTS = CIFAR / "results"  # of ``data/download.py --audit``; recorded/ has the project's own
# what a file is read with that is none of the results it is taken for
NONE_OF_THESE = (UserError, OSError, KeyError, TypeError, AttributeError, ValueError, OverflowError)
told: set[str] = set()  # what has been said once


def find_leaks(
    id_set: loaders.ImageSet,
    ood_sets: list[loaders.ImageSet],
    train: loaders.ImageSet | None,
    description: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """[{"set", "also_in", "images", "of"}]: how many of the images of the ID test set and of each
    OOD set are also ID test images, ID training images or the outliers of a snapshot.

    Of what is in memory the pixels are compared. Of training images and outliers that are not, the
    snapshot's description has the fingerprints: they are those of the set itself, or of one that an
    audit has compared with it.
    """
    outliers = description.get("outliers") or {}
    fingerprints = {
        "the ID training images": description.get("data_fingerprint"),
        f"the outliers of its training, {outliers.get('name')}": outliers.get("fingerprint"),
    }
    resident = {"the ID test images": id_set, "the ID training images": train}
    resident = {what: s for what, s in resident.items() if s is not None and not s.streamed}
    numbers = {what: loaders.pixel_numbers(images) for what, images in resident.items()}
    compared, found = audited(), []
    for images in [id_set, *ood_sets]:
        own = None if images.streamed else loaders.pixel_numbers(images)
        for what in dict.fromkeys([*resident, *fingerprints]):
            known, count = fingerprints.get(what), 0
            if resident.get(what) is images:
                continue
            if images.fingerprint == known:
                count = len(images)
            elif what in resident and own is not None:
                pair = (numbers[what], own)
                count = int((loaders.find_exact(resident[what], images, pair) >= 0).sum())
            else:
                count = compared.get((known, images.fingerprint), 0)
            if count:
                found.append(
                    {"set": images.name, "also_in": what, "images": count, "of": len(images)}
                )
    return found


def find_chosen(
    ood_sets: list[loaders.ImageSet], sha256: str | None, folder: Path
) -> list[dict[str, Any]]:
    """As ``find_leaks``: how many of each OOD set's images an earlier result of this snapshot, in a
    folder of results, has chosen hyper-parameters on (--tune-scores --validation-ood).
    """
    found = []
    for path in sorted(folder.glob("*.json")) if sha256 else []:
        # whatever else is there is none of these results
        with contextlib.suppress(*NONE_OF_THESE):
            if '"pixels"' not in read_regular_text(path):
                continue
            record = read_json(path)
            for part in record["validation_ood"] if record["snapshot"]["sha256"] == sha256 else ():
                what = f"'{part['name']}', on which {path.stem} has chosen hyper-parameters"
                for images in ood_sets:
                    count = 0 if images.streamed else loaders.count_used(images, part)
                    if count:
                        leak = {"set": images.name, "also_in": what, "images": count}
                        found.append({**leak, "of": len(images)})
    return found


def audited() -> dict[tuple[str, str], int]:
    """{(fingerprint of a set, of another): images of the other that are in it} of all audits."""
    found = {}
    for path in [*(RESULTS / "recorded").glob("audit*.json"), *RESULTS.glob("audit*.json")]:
        # whatever else has that name is none of --audit's files
        with contextlib.suppress(*NONE_OF_THESE):
            record = read_json(path)
            prints = {entry["title"]: entry["fingerprint"] for entry in record["sets"]}
            for pair in record["pairs"]:
                found[prints[pair["first"]], prints[pair["second"]]] = int(pair["exact"])
    return found


def note_leaks(found: list[dict[str, Any]]) -> None:
    """Say so on stderr, in one line and once a program."""
    if not found:
        return
    parts = [
        f"{'all' if leak['images'] == leak['of'] else format(leak['images'], ',') + ' of'} "
        f"{leak['of']:,} images of {leak['set']} are also in {leak['also_in']}"
        for leak in found
    ]
    line = f"{'; '.join(parts)}. Their scores are no fair test; data/download.py --audit lists them"
    if line not in told:
        print_note(line)
    told.add(line)
