"""Result files: their names, what they say, and how they are written and read."""

import contextlib
import csv
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils import loaders, snapshots
from utils.metrics import METRICS
from utils.runtime import (
    CIFAR,
    UserError,
    json_bytes,
    locked,
    make_folder,
    printable,
    ranks,
    read_json,
    short_path,
    text_bytes,
    write_files,
)

from .case import Case
from .printed import shown_rows
from .protocol import Protocol, departures
from .schema import check_result
from .torchvision_weights import find_weights, is_published

RESULTS = CIFAR / "results"
LONGEST = 200  # characters of a result's name
# options that say where images lie, which a result's fingerprints are of, or how it is printed
PLACES = {"id", "id_train", "data", "ood", "outputs", "arch", "skip_bad", "out_as_pos", "precision"}
PLACES |= {"validation_ood"}


def announce(model: str, folder: str | None, download: bool = False) -> Iterator[Path]:
    """The snapshot files that --model and --load mean, each printed when its turn comes."""
    if is_published(model):
        file = find_weights(model, download)
        print(f"\n{file.name}")
        yield file
        return
    found = []  # all of them before the first is scored
    for name in filter(None, (part.strip() for part in model.split(","))):
        files = (
            [snapshots.find_one(folder, stem=name)] if folder else snapshots.find_snapshots(name)
        )
        if len(files) > 1:
            print(
                f"'{name}' is the name of {len(files)} snapshots: "
                f"{', '.join(snapshots.short_name(f) for f in files)}. Each is scored; "
                "name one with its folder to score it alone."
            )
        found += files
    for file in dict.fromkeys(found):
        print(f"\n{printable(snapshots.short_name(file))}")
        yield file


def result_name(
    snapshot: Path,
    labels: list[str],
    protocol: str = "paper",
    unusual: list[str] | None = None,
    whole: bool = True,
) -> str:
    """File name of a result: the snapshot's name and folder (but for pretrained),
    the scores, the protocol.

    ``tune_sr/cifar10_wrn_s1_tune_epoch_9.pt`` with energy gives ``cifar10_wrn_s1_tune_sr_energy``;
    the epoch stays in the name where it is not the last of its run (``whole``). ``unusual``: what
    else tells this result from the usual one of that name (other images, draws, a folder
    elsewhere); a short hash of it follows.
    """
    stem = re.sub(r"_epoch_\d+$", "", snapshot.stem) if whole else snapshot.stem
    folder = snapshots.folder_of(snapshot).name.removeprefix("tune_")
    names = "+".join(re.sub(r"[^\w.+-]+", "-", label) for label in labels)
    names = names if len(names) <= 60 else f"{len(labels)}-scores-{zlib.crc32(names.encode()):08x}"
    parts = (
        [stem] + [folder] * (folder != "pretrained") + [names] + [protocol] * (protocol != "paper")
    )
    name = "_".join(parts + [f"{zlib.crc32(str(unusual).encode()):08x}"] * bool(unusual))
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]}_{zlib.crc32(name.encode()):08x}"
    return name


def result_path(case: Case, labels: list[str]) -> Path:
    """Where the result of a case with these scores goes, without suffix."""
    args, description = vars(case.args), case.description
    apart = {
        key: value
        for key, value in departures(args).items()
        if key not in ("protocol", "out_as_pos")
    }
    if description.get("dataset") not in loaders.ID_SETS:
        apart.pop("id", None)  # images of one's own are always given by --id
    unusual = [f"{key}={value}" for key, value in apart.items()]
    unusual += [str(case.file.parent)] * (not case.file.is_relative_to(snapshots.SNAPSHOTS))
    labels = ["all"] if case.args.score.strip().lower() == "all" else labels
    # a file that says nothing of its run has no other epochs beside it
    whole = "recipe" not in description or snapshots.is_complete(description)
    return make_folder(case.args.save) / result_name(
        case.file, labels, case.args.protocol, unusual, whole
    )


def set_aside(path: Path, sha256: str) -> None:
    """Give a result of another snapshot, whose name ``path`` is to be written,
    that snapshot's sha256 in its name.
    """
    try:
        record = read_record(path.with_name(path.name + ".json"))
        other, settings = record["snapshot"]["sha256"], settings_of(record)
    except (UserError, KeyError, TypeError, AttributeError):  # none there, or none of test.py's
        return
    if isinstance(other, str) and re.fullmatch(r"\w+", other) and other != sha256:
        aside = path.with_name(f"{path.name}_{other[:8]}")
        aside = free_path(aside, settings, settings_of)
        for ending in (".json", ".csv", "_scores.npz"):
            file = path.with_name(path.name + ending)
            with contextlib.suppress(FileNotFoundError):  # or another process was faster
                os.replace(file, aside.with_name(aside.name + ending))
        print(
            "\nnote: the former result of this name is of another snapshot, "
            f"and is {short_path(aside)}.json now"
        )


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a result from others of its snapshot: how it was measured, by what scores, and on
    which images, wherever these lie.
    """
    protocol = record.get("protocol") or "paper"
    given = vars(Protocol.of({**(record.get("arguments") or {}), "protocol": protocol}))
    parts = {key: [record.get(key)] for key in ("id", "train")}
    parts |= {key: record.get(key) or [] for key in ("ood", "shifted", "validation_ood")}
    return {
        **{key: value for key, value in given.items() if key not in PLACES},
        "precision": record.get("precision"),
        "scores": [entry["score"] for entry in record["scores"]],
        **{
            key: [[part.get("name"), part.get("fingerprint")] for part in found if part]
            for key, found in parts.items()
        },
    }


def free_path(path: Path, settings: dict, read: Callable[[dict], dict]) -> Path:
    """``path``; where its .json, whose settings are ``read`` from it, is of other ones, the path
    with a hash of ``settings``, which is said.
    """
    try:
        there = read(read_record(path.with_name(path.name + ".json")))
    except (UserError, KeyError, TypeError, AttributeError):  # none there, or none of test.py's
        return path
    plain, there = (json.loads(json.dumps(one)) for one in (settings, there))  # tuples are lists
    other = [key for key, value in plain.items() if there.get(key) != value]
    if not other:
        return path
    text = json.dumps(plain, sort_keys=True)
    free = path.with_name(f"{path.name}_{zlib.crc32(text.encode()):08x}")
    print(
        f"\nnote: the result {short_path(path)}.json is of other settings ({', '.join(other)}) "
        f"and stays; this one is {free.name}.json"
    )
    return free


def write_result(path: Path, record: dict, vectors: dict[str, np.ndarray] | None = None) -> Path:
    """Write ``path``.json with everything, ``path``.csv with a line for each score and set, and
    per-image scores if given; returns the path.

    Those are an .npz with one array ``score/set`` each. A result of another snapshot that has this
    name is kept under another one; beside one of other settings, this one has another name.
    """
    if ranks.rank():
        return path
    with locked(make_folder(path.parent)):
        set_aside(path, record["snapshot"]["sha256"])
        path = free_path(path, settings_of(record), settings_of)
        write_files_of(path, record, vectors)
    return path


def write_files_of(path: Path, record: dict, vectors: dict[str, np.ndarray] | None) -> None:
    """The files of ``write_result``."""
    lines = []
    for score in record["scores"]:
        for row in shown_rows(score):
            line = {"score": score["score"], "set": row["set"]}
            line |= {key: row.get(key, "") for key in ("n", "drawn", "draws")}
            line |= {m: f"{row[m]:.4f}" for m in METRICS}
            line |= {f"{m}_{of}": f"{row[of][m]:.4f}" for of in ("sd", "whole") for m in METRICS}
            lines.append({**line, "flags": " ".join(row["flags"])})
    contents = {".json": json_bytes(record), ".csv": text_bytes(csv_text(lines))}
    if vectors is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{printable(name): v for name, v in vectors.items()})
        contents["_scores.npz"] = buffer.getbuffer()
    # together: of two runs of one command at once the files of one
    write_files({path.with_name(path.name + end): content for end, content in contents.items()})


def read_result(path: Path, of_scores: bool = False) -> dict:
    """The record of a result file; UserError naming the file when it is not one.

    Studies and benchmarks write records of their own; ``of_scores``: it has to be test.py's.
    """
    record = read_record(path)
    if of_scores or is_of_scores(record):
        return check_result(record, path)
    return record


def read_record(path: Path) -> dict:
    """The content of a .json, whatever it is a record of; UserError where it is none."""
    try:
        record = read_json(path)
    except (UserError, OSError) as error:
        raise UserError(
            f"{path} is not a result file: {error}. Move it away, or make it anew"
        ) from None
    if not isinstance(record, dict):
        raise UserError(
            f"{path} is not a result file: a {type(record).__name__}, no record. "
            "Move it away, or make it anew"
        )
    return record


def is_of_scores(record: Mapping[str, Any]) -> bool:
    """Whether a record is test.py's of one snapshot, and none of a study or a benchmark."""
    return {"snapshot", "scores"} <= set(record)


def entry_of(result: dict, score: str) -> dict:
    """The entry of a score in a result, by its label."""
    return next(entry for entry in result["scores"] if entry["score"] == score)


def csv_text(lines: list[dict], end: str = "\r\n") -> str:
    """Lines with the same keys as CSV, the keys first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator=end)
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
