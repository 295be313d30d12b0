"""Which images do training, outlier and test sets share?

    python data/download.py --audit                           every known set that is there
    python data/download.py --audit cifar10 tiny_imagenet ood some of them
    python data/download.py --audit mine=PATH cifar10         sets of one's own too

Every pair of sets is compared at 32 x 32 pixels (utils/loaders/leaks.py says how).
"""

import io
import itertools
import json
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.there import print_table
from utils import loaders, runtime
from utils.evaluation.report import RESULTS, csv_text
from utils.loaders import leaks

SIDE = 32  # pixels that all sets are brought to
ROLES = (
    "training",
    "outliers",
    "test",
)  # of a pair the later one is the set that is looked through
EXAMPLES = 5  # pairs of images that a result names
PROBES = 1000  # images that are changed and looked for, to tell what the hash finds


class Item(NamedTuple):
    """One part of a data set: what it is called here, how it is read, what it is used as."""

    title: str
    name: str
    split: str
    path: Path | None
    role: str


def known_items(name: str, data: Path) -> list[Item]:
    """The parts of a known set that are there."""
    if loaders.DATASETS[name].num_classes:
        parts = [("train", "training"), ("test", "test")]
        return [
            Item(f"{name} {split}", name, split, None, role)
            for split, role in parts
            if loaders.is_there(name, split, data)
        ]
    outliers = name in itertools.chain(loaders.OUTLIERS, *loaders.OUTLIER_SETS.values())
    split, role = ("train", "outliers") if outliers else ("test", "test")
    return [Item(name, name, split, None, role)] if loaders.is_there(name, split, data) else []


def own_items(name: str, path: str) -> list[Item]:
    """The parts of a set of one's own, or the whole of it."""
    path = Path(path).expanduser()
    if not loaders.lies_at(path):
        raise runtime.UserError(loaders.missing_message(name, "test", None, path))
    if not loaders.has_parts(path):
        return [Item(name, name, "test", path, "test")]
    return both_parts(name, path)


def both_parts(name: str, path: Path | None) -> list[Item]:
    return [
        Item(f"{name} {split}", name, split, path, role)
        for split, role in (("train", "training"), ("test", "test"))
    ]


def choose_items(words: list[str], data: Path) -> list[Item]:
    """The sets that the words name: names, groups, NAME=PATH, PATH; every known set that is there
    without words. UserError: a word means nothing, or nothing is there.
    """
    groups = {**loaders.SOURCES["groups"], "ood": [n for line in loaders.SIX_SETS for n in line]}
    lying = [name for name, entry in loaders.DATASETS.items() if not entry.make]
    groups["all"] = lying
    found = []
    for word in words or ["all"]:
        if word in groups:
            items = [item for name in groups[word] for item in known_items(name, data)]
            if not items:
                which = "known sets" if word == "all" else f"sets {', '.join(groups[word])}"
                raise runtime.UserError(
                    f"of the {which} none is in {data}. Run: "
                    f"python data/download.py {word if word != 'all' else 'cifar10 ood 300k'}, or "
                    "name your own: --audit NAME=PATH"
                )
        else:
            word = loaders.SOURCES["aliases"].get(word, word)
            name, path = loaders.name_or_path(word)
            path = path or loaders.local_path(name, "test", data)
            if path is not None:
                items = own_items(name, path)
            elif name in loaders.DATASETS and (items := known_items(name, data)):
                pass
            elif place := loaders.find_source(name, "test", data):  # one's own, in the data folder
                items = [Item(name, name, "test", None, "test")]
                if loaders.find_source(name, "train", data) != place:
                    items = both_parts(name, None)
            else:
                raise runtime.UserError(loaders.missing_message(name, "test", data))
        found += items
    found = list(dict.fromkeys(found))
    titles = [item.title for item in found]
    if repeated := [title for title in titles if titles.count(title) > 1]:
        raise runtime.UserError(
            f"--audit names '{repeated[0]}' twice, for two paths. Name one otherwise: NAME=PATH"
        )
    if len(found) < 2:
        raise runtime.UserError(
            f"--audit compares sets, and of those asked for {titles[0]} alone is there. Name another: "
            "--audit NAME NAME=PATH"
        )
    return sorted(found, key=lambda item: ROLES.index(item.role))


def describe_pair(items: tuple, sets: tuple, shared: leaks.Shared) -> dict:
    """What a result says of two sets; ``examples`` are places in the sets, the exact ones first."""
    exact, near = np.flatnonzero(shared.exact >= 0), np.flatnonzero(shared.near >= 0)
    near = near[np.argsort(shared.difference[near], kind="stable")]

    def example(j, other, kind):
        names = [
            {"name": runtime.printable(images.names[k])} if images.names else {}
            for images, k in zip(sets, (other, j))
        ]
        return {
            "kind": kind,
            "first": {"image": int(other), **names[0]},
            "second": {"image": int(j), **names[1]},
        }

    spread = near[np.linspace(0, len(near) - 1, min(EXAMPLES, len(near))).astype(int)]
    return {
        "first": items[0].title,
        "second": items[1].title,
        "exact": len(exact),
        "near": len(near),
        "mirrored": int(shared.mirrored[near].sum()),
        "percent": 100 * (len(exact) + len(near)) / len(shared.exact),
        "examples": [
            *(example(j, shared.exact[j], "exact") for j in exact[:EXAMPLES]),
            *(
                {
                    **example(j, shared.near[j], "near"),
                    "signs": int(shared.bits[j]),
                    "difference": round(float(shared.difference[j]), 3),
                    "mirrored": bool(shared.mirrored[j]),
                }
                for j in spread
            ),
        ],
    }


def changed(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The images uint8 (N,H,W,3), each changed as copies of images in data sets are."""

    def each(change):
        return np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels])

    def jpeg(image):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=75)
        return Image.open(file, formats=("JPEG",))

    side, bicubic = pixels.shape[1], Image.Resampling.BICUBIC
    small, large, margin = 3 * side // 4, 9 * side // 8, side // 16
    inner = (margin, margin, margin + side, margin + side)
    return {
        "sent through a JPEG of quality 75": each(jpeg),
        "shrunk to three quarters and enlarged back": each(
            lambda image: image.resize((small, small), bicubic).resize((side, side), bicubic)
        ),
        "mirrored": pixels[:, :, ::-1],
        "made brighter, x 1.15 + 10": np.clip(1.15 * pixels + 10, 0, 255).astype(np.uint8),
        "enlarged by an eighth and cropped": each(
            lambda image: image.resize((large, large), bicubic).crop(inner)
        ),
    }


def found_again(images: loaders.ImageSet) -> dict[str, float]:
    """{how the first images of a set were changed: percent of the changed ones that are near theirs};
    flat images are not counted.
    """
    part = images.subset(np.arange(min(PROBES, len(images))))
    part = part.subset(np.flatnonzero(~loaders.encode(part).flat))
    if not len(part):
        return {}
    pixels, codes, found = part.images.permute(0, 2, 3, 1).numpy(), loaders.encode(part), {}
    for how, other in changed(pixels).items():
        copies = loaders.make_set(other, None, how)
        shared = loaders.compare(part, copies, (codes, loaders.encode(copies)))
        own = np.arange(len(part))
        found[how] = 100 * float(((shared.near == own) | (shared.exact == own)).mean())
    return found


def compare_all(items: list[Item], sets: list, draw: list) -> dict:
    """The record of all pairs; the Shared of those that share anything go to ``draw``."""
    codes = [loaders.encode(images) for images in sets]
    pairs = list(itertools.combinations(range(len(sets)), 2))
    work, records = [len(sets[a]) * len(sets[b]) for a, b in pairs], []
    with tqdm(total=sum(work), desc="pairs of images", unit_scale=True, disable=None) as bar:
        for (a, b), count in zip(pairs, work):
            shared = loaders.compare(sets[a], sets[b], (codes[a], codes[b]))
            records.append(describe_pair((items[a], items[b]), (sets[a], sets[b]), shared))
            if records[-1]["exact"] + records[-1]["near"]:
                draw.append((records[-1], (sets[a], sets[b]), shared))
            bar.update(count)
    return {
        "side": SIDE,
        "signs": leaks.SIGNS,
        "bits": leaks.BITS,
        "difference": leaks.DIFFERENCE,
        "contrast": leaks.CONTRAST,
        "sets": [
            {
                "title": item.title,
                "role": item.role,
                **images.describe(),
                "flat": int(code.flat.sum()),
                "repeated": code.repeated(),
            }
            for item, images, code in zip(items, sets, codes)
        ],
        "pairs": records,
    }


def show(record: dict) -> None:
    """Print the pairs that share images, the most first, and how many share none."""
    shared = [pair for pair in record["pairs"] if pair["exact"] + pair["near"]]
    if shared:
        rows = [("images of", "also in", "exact", "near", "of them, %", "examples")]
    for pair in sorted(shared, key=lambda pair: -pair["percent"]):
        examples = ", ".join(
            f"{e['second']['image']}{'~' if e['kind'] == 'near' else '='}{e['first']['image']}"
            for e in pair["examples"][:EXAMPLES]
        )
        counts = (f"{pair['exact']:,}", f"{pair['near']:,}", f"{pair['percent']:.2f}")
        rows.append((pair["second"], pair["first"], *counts, examples))
    print()
    if shared:
        print_table(rows)
    print(
        f"{len(record['pairs']) - len(shared)} of {len(record['pairs'])} pairs of sets share nothing"
    )
    flat = sum(entry["flat"] for entry in record["sets"])
    print(
        f"near: at most {record['bits']} of {record['signs']} signs differ and the pixels by at most "
        f"{record['difference']:g} standard deviations; {flat:,} flat images (contrast below "
        f"{record['contrast']:g} of 255) are never near"
    )


def main(words: list[str], data: Path, command: list[str]) -> int:
    """Compare, print, and write CIFAR/results/audit.json and .csv and, of what is shared, a sheet."""
    items = choose_items(words, data)
    sets = [
        # an image that cannot be read is noted and left out
        loaders.load(item.name, item.split, data, item.path, SIDE, skip_bad=True, fit_arrays=True)
        for item in items
    ]
    draw: list = []
    record = {
        "command": ["data/download.py", *map(runtime.portable, command)],
        **compare_all(items, sets, draw),
        "probes": {"set": items[0].title, "found": found_again(sets[0])},
    }
    show(record)
    name = "audit" + (f"_{zlib.crc32(' '.join(words).encode()):08x}" if words else "")
    path = runtime.make_folder(RESULTS) / name
    lines = [
        {key: value for key, value in pair.items() if key not in ("examples", "percent")}
        | {"percent": f"{pair['percent']:.4f}", "examples": json.dumps(pair["examples"])}
        for pair in record["pairs"]
    ]
    made = {
        path.with_suffix(".json"): runtime.json_bytes(record),
        path.with_suffix(".csv"): csv_text(lines).encode(),
    }
    runtime.write_files(made)
    written = list(made)
    if draw:
        from utils.paper import sheets  # matplotlib: only who draws imports it

        written.append(sheets.draw_shared(draw, runtime.CIFAR / "figures" / name))
    print(
        f"result: {', '.join(str(runtime.short_path(file)) for file in written)}", file=sys.stdout
    )
    return 0
