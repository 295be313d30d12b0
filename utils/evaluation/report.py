"""Result files and printed tables."""

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
from utils.metrics import METRICS, is_near_chance
from utils.runtime import (
    CIFAR,
    UserError,
    describe_machine,
    json_bytes,
    locked,
    make_folder,
    portable,
    printable,
    ranks,
    read_json,
    short_path,
    text_bytes,
    write_files,
)
from utils.scores import Outputs, Score

from .network import COMPILED, OPENVINO
from .protocol import Case, Protocol, Rows, departures
from .schema import check_result
from .torchvision_weights import find_weights, is_published

RESULTS = CIFAR / "results"
LONGEST = 200  # characters of a result's name
# options that say where images lie, which a result's fingerprints are of, or how it is printed
PLACES = {"id", "id_train", "data", "ood", "outputs", "arch", "skip_bad", "out_as_pos", "precision"}
PLACES |= {"validation_ood"}
FLAGS = {
    "constant": "the score is the same for all images",
    "ties": "more than 1 % of the images have exactly the score of another",
    "separated": "every ID image scores below every OOD image",
    "inverted": "every OOD image scores below every ID image",
}


def shown_rows(entry: dict) -> list[dict]:
    """The rows of a score's entry that a table shows: the sets, then the groups or the average."""
    return [*entry["sets"], *(entry.get("groups") or [entry["average"]])]


def format_set_table(
    score: str,
    rows: list[dict],
    id_error: float,
    out_as_pos: bool = False,
    both: bool = False,
    over: str = "draws",
) -> str:
    """The papers' table of one score as text: ID error first, one line a set, then the groups' means
    or the mean. ``both``: AUPR with either class positive; ``over``: what the sd is over.
    """
    fpr, aupr, positive = (
        ("fpr95_out", "aupr_out", "OOD") if out_as_pos else ("fpr95", "aupr_in", "ID")
    )
    columns = {"FPR95": fpr, "AUROC": "auroc", "AUPR": aupr}
    if both:
        columns = {"FPR95": fpr, "AUROC": "auroc", "AUPR-IN": "aupr_in", "AUPR-OUT": "aupr_out"}
    if any("sets" in row for row in rows):
        rows = [row for row in rows if row["set"] != "average"]
    width = max(len(row["set"]) for row in rows) + 2
    lines = [
        (
            f"{score}   (ID error {percent(id_error)}; {positive} positive; "
            f"mean ± sd over {over}, percent)"
        ),
        f"{'':{width}}" + "".join(f"{title:>14}" for title in columns),
    ]
    for row in rows:
        cells = "".join(f"{row[m]:7.2f} ±{row['sd'][m]:5.2f}" for m in columns.values())
        notes = f"{row['drawn']} of {row['n']} images x {row['draws']}" if "n" in row else ""
        if "sets" in row:
            notes = f"mean of {', '.join(row['sets'])}"
            notes += f"; lacks {', '.join(row['lacks'])}" * bool(row["lacks"])
        lines.append(
            f"{row['set']:{width}}{cells}   {notes}"
            + "".join(f"  [{flag}]" for flag in row["flags"])
        )
    flags = {flag for row in rows for flag in row["flags"]}
    return "\n".join(lines + [f"[{flag}]: {FLAGS[flag]}" for flag in FLAGS if flag in flags])


def percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} %"


def id_error_of(outputs: Outputs) -> float | None:
    """Percent of the images whose largest logit is not their label's; None without labels or logits."""
    if outputs.labels is None or not outputs.logits.size:
        return None
    return 100 * float((outputs.logits.argmax(axis=1) != outputs.labels).mean())


def format_table(case: Case, score: Score, table: list[dict], id_error: float) -> str:
    """``format_set_table`` as the case's protocol prints it."""
    both = case.protocol.rules.metrics == "openood"
    return format_set_table(score.label, table, id_error, case.out_as_pos, both)


def format_summary(scores: list[dict], metric: str = "fpr95", title: str = "FPR95") -> str:
    """One table of several scores: a line a score, a column a set, then the groups' means or the
    mean.
    """
    names = [row["set"] for row in shown_rows(scores[0])]
    label = max(len(score["score"]) for score in scores) + 2
    widths = [max(len(name), 7) + 2 for name in names]
    lines = [
        f"{title + ', percent':{label}}" + "".join(f"{name:>{w}}" for name, w in zip(names, widths))
    ]
    for score in scores:
        values = [row[metric] for row in shown_rows(score)]
        flagged = ["*" if row.get("flags") else "" for row in shown_rows(score)]
        lines.append(
            f"{score['score']:{label}}"
            + "".join(f"{f'{v:.2f}{f}':>{w}}" for v, f, w in zip(values, flagged, widths))
        )
    if any(row["flags"] for score in scores for row in score["sets"]):
        lines.append(
            "* flagged: the score is constant, has ties, or separates the sets perfectly one way "
            "or the other (see its own table)"
        )
    return "\n".join(lines)


def format_summaries(measured: list[dict], out_as_pos: bool = False) -> str:
    """FPR95 and AUROC of several scores, a line a score; nothing for one alone."""
    if len(measured) < 2:
        return ""
    return "".join(
        f"\n{format_summary(measured, metric, title)}\n"
        for metric, title in (("fpr95_out" if out_as_pos else "fpr95", "FPR95"), ("auroc", "AUROC"))
    )


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
        print(f"\n{snapshots.short_name(file)}")
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


def chance_note(id_error: float | None, case: Case) -> str | None:
    """What to look at where a trained network's ID error is near that of guessing: its classes are
    in another order, or the images are not those it was trained on. Else None.

    A network whose description says that it was no better is what it says.
    """
    if id_error is None:
        return None
    if case.description.get("classifier") is False and "recipe" not in case.description:
        return None  # a contrastive file of others, whose head is no one's: that has been said
    count, classes = len(case.sets.id), case.description["num_classes"]
    known = case.description.get("id_accuracy")
    if not is_near_chance(id_error, count, classes):
        return None
    if known is not None and is_near_chance(100 - known, count, classes):
        return None
    return (
        f"the ID error of {case.file.name}, {id_error:.2f} %, is near chance ({100 - 100 / classes:.2f} "
        f"%)"
        + (f", its description says {100 - known:.2f} %" if known is not None else "")
        + ". Are these its images, its classes in its order, its mean and std? Scores of it mean little"
    )


def make_record(case: Case, found: Rows, id_error: float | None, seconds: float) -> dict:
    """All that made a result: command, options, snapshot, images,
    how the outputs were computed; and its rows.
    """
    network, args, sets = case.network, vars(case.args), case.sets
    features = network.outputs(sets.id).features
    return {
        "command": ["test.py", *case.args.command],
        "arguments": {key: portable(value) for key, value in args.items() if key != "command"},
        "protocol": args["protocol"],
        "seed": args["seed"],
        "num_to_avg": args["num_to_avg"],
        "precision": network.precision,
        "compiled": network.kind in (COMPILED, OPENVINO),
        **({"runtime": OPENVINO} if network.kind == OPENVINO else {}),
        "snapshot": {
            "name": snapshots.short_name(case.file),
            "sha256": network.sha256,
            **described(case.description),
        },
        "id": {
            **sets.id.describe(),
            "error": id_error,
            "accuracy": None if id_error is None else 100 - id_error,
            **({"warning": doubt} if (doubt := chance_note(id_error, case)) else {}),
            "mean_l1": float(abs(features).sum(axis=1).mean()),
        },
        "train": sets.train and sets.train.describe(),
        "ood": [ood.describe() for ood in sets.ood],
        **({"shifted": [s.describe() for s in sets.shifted]} if sets.shifted else {}),
        **({"missing": list(sets.missing)} if sets.missing else {}),
        **({"leaks": list(sets.leaks)} if sets.leaks else {}),
        **({"validation_ood": list(map(used, sets.validation))} if sets.validation else {}),
        "scores": found.measured,
        "tuned": found.grids,
        "machine": describe_machine(network.device),
        "seconds": round(seconds, 1),
    }


def used(images: Any) -> dict[str, Any]:
    """What a record says of a validation set; of images, also by which they are known later."""
    known = isinstance(images, loaders.ImageSet)
    return loaders.describe_used(images) if known else images.describe()


def described(description: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of a snapshot: its description without sha256 and numbers of images."""
    made = {key: value for key, value in description.items() if key != "sha256"}
    if used := made.get("validation_ood"):
        made["validation_ood"] = [
            {key: value for key, value in part.items() if key != "pixels"} for part in used
        ]
    return made


def about_images(case: Case) -> dict[str, np.ndarray]:
    """What --save-scores says of each image beside its scores: {names/set: (N,) file names, where
    they come from files; predictions/set: (N,) classes; labels/id: (N,), and those of shifted sets}.
    """
    accepted = {"id": case.sets.id, **{images.name: images for images in case.sets.shifted}}
    facts = {
        f"labels/{name}": images.labels.numpy()
        for name, images in accepted.items()
        if images.labels is not None
    }
    for name, images in {**accepted, **{ood.name: ood for ood in case.sets.ood}}.items():
        logits = case.network.outputs(images).logits
        if logits.size:
            facts[f"predictions/{name}"] = logits.argmax(axis=1)
        if images.names:
            facts[f"names/{name}"] = np.array([printable(file) for file in images.names])
    return facts


def set_aside(path: Path, sha256: str) -> None:
    """Give a result of another snapshot, whose name ``path`` is to be written,
    that snapshot's sha256 in its name.
    """
    try:
        record = read_result(path.with_name(path.name + ".json"))
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
    protocol = record.get("protocol", "paper")
    given = vars(Protocol.of({**record.get("arguments", {}), "protocol": protocol}))
    parts = {key: [record.get(key)] for key in ("id", "train")}
    parts |= {key: record.get(key, []) for key in ("ood", "shifted", "validation_ood")}
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
        there = read(read_result(path.with_name(path.name + ".json")))
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
    if of_scores or {"snapshot", "scores"} <= set(record):
        return check_result(record, path)
    return record


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
