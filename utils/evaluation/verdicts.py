"""In or out? Each image's score against a threshold that keeps a share of the ID test images."""

import csv
import io
import json
import math
import sys
import zlib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils import loaders, scores
from utils.runtime import (
    UserError,
    make_folder,
    print_note,
    printable,
    read_json,
    sha256_file,
    short_path,
    write_json,
    write_text,
)

from .case import Case, Sets, choose_scores, dataset_of, load_id_set
from .load import load_network
from .network import FORWARD
from .record import chance_note, id_error_of
from .report import result_path

SHOWN = 10  # rows at either end of the printed table
warned: set[str] = set()  # of what has been warned once


class Threshold(NamedTuple):
    """A score's threshold on one snapshot: at least the share ``tpr`` of the ID test images scores
    at most ``value``. ``id_scores`` (M,) float64, sorted.
    """

    value: float
    tpr: float
    id_scores: np.ndarray
    path: Path

    def percentiles(self, values: np.ndarray) -> np.ndarray:
        """(N,) percent of the ID test images that score at most as high: 100 = as far out as can be
        told.
        """
        below = np.searchsorted(self.id_scores, values, side="right")
        return 100 * below / len(self.id_scores)


class Verdicts(NamedTuple):
    """What is said of N images by one score: their names, predicted classes and the probability of
    these (N,) in [0, 1], both None of a network without a classifier, scores (N,) float64, larger =
    more OOD, percentiles (N,), and whether they are in (N,) bool.
    """

    label: str
    images: loaders.ImageSet
    names: list[str]
    classes: list[str] | None
    probabilities: np.ndarray | None
    scores: np.ndarray
    percentiles: np.ndarray
    inside: np.ndarray
    threshold: Threshold
    path: Path  # of the files, without suffix

    @property
    def order(self) -> np.ndarray:
        """The images' places, the most in first."""
        return np.argsort(self.scores, kind="stable")


def find_threshold(id_scores: np.ndarray, tpr: float) -> float:
    """The smallest of the ID scores (M,) that at least a share ``tpr`` of them does not exceed.

    An observed score, not one between two: with 10,000 of them and 0.95 the 9,500th.
    """
    count = math.ceil(round(tpr * len(id_scores), 6))  # 0.07 * 100 is above 7 in floating point
    return float(np.sort(id_scores)[max(count, 1) - 1])


def judge(file: Path, args: Namespace) -> Iterator[Verdicts]:
    """The Verdicts of each --score on the images of --images, by the network of a snapshot file.

    args: test.py's. The threshold comes from the ID test images alone, and is kept in a file of its
    own per snapshot and score. Where the ID images are not at hand that file is enough.
    """
    network, description = load_network(file, args)
    chosen = choose_scores(description, file, args)
    case = Case(file, description, network, load_sets(file, description, chosen, args), [], args)
    known, size = case.sets.id, args.image_size or description.get("image_size") or 32
    size = case.protocol.rules.size_of(size if known is None else known.images.shape[-1])
    images = made_alike(loaders.load_pictures(args.images, args.data, size, args.skip_bad), args)
    loaders.check_fits(network.model, images)
    network.plan([images, *(part for part in (known, case.sets.train) if part is not None)])
    outputs = network.outputs(images)
    names = [printable(name) for name in images.names]
    classes = top = None
    if description.get("classifier") is not False:
        classes = class_names(description, known, outputs.logits.argmax(axis=1))
        top = np.exp(scores.msp.log_msp(outputs.logits))
    for score in chosen:
        with scores.as_user_error(score):
            if "train" in score.needs:
                network.fit(score, case.sets.train)
            threshold = load_threshold(case, score)
            values = network.score(score, images)
        yield Verdicts(
            score.label,
            images,
            names,
            classes,
            top,
            values,
            threshold.percentiles(values),
            values <= threshold.value,
            threshold,
            verdict_path(case, score, images, threshold.value),
        )


def load_sets(file: Path, description: dict, chosen: list[scores.Score], args: Namespace) -> Sets:
    """ID test images, and ID training images where a score is fitted; the test images are None
    where a named set is not at hand, as a kept threshold may do without.
    """
    fitted = any("train" in score.needs for score in chosen)
    name = dataset_of(description, file, args)
    absent = args.id is None and not loaders.is_there(name, "test", args.data)
    known = None if absent and not fitted else load_id_set(description, file, args)
    train = load_id_set(description, file, args, "train") if fitted else None
    if known is not None and train is not None and known.fingerprint == train.fingerprint:
        raise UserError(
            "the ID training images that scores are fitted on are the test images. "
            "Give others: --id-train PATH"
        )
    return Sets(known and made_alike(known, args), [], train and made_alike(train, args))


def made_alike(images: loaders.ImageSet, args: Namespace) -> loaders.ImageSet:
    """The images as --harmonise wants them."""
    return images if args.harmonise is None else loaders.harmonise(images, args.harmonise)


def class_names(
    description: dict, known: loaders.ImageSet | None, predicted: np.ndarray
) -> list[str]:
    """The names (N,) of predicted classes (N,): the snapshot's, else the ID images', else
    numbers.
    """
    names = description.get("classes") or (known and known.classes) or ()
    return [printable(str(names[k])) if k < len(names) else str(k) for k in predicted.tolist()]


def base_path(case: Case, label: str) -> Path:
    """Path, without suffix, that the files of a snapshot and one score begin with."""
    folder = make_folder(Path(case.args.save).expanduser() / "verdicts")
    args = Namespace(**{**vars(case.args), "score": label, "save": str(folder)})
    return result_path(case._replace(args=args), [label])


def verdict_path(
    case: Case, score: scores.Score, images: loaders.ImageSet, threshold: float
) -> Path:
    """Path, without suffix, of one score's verdicts on these images: those of one name that lie at
    different places, of other images, of other weights or by another threshold do not replace one
    another.
    """
    start, place = base_path(case, score.label), Path(images.source).expanduser().resolve()
    told = f"{place}|{case.args.tpr}|{images.fingerprint}|{case.network.sha256}|{threshold:.9g}"
    mark = zlib.crc32(told.encode("utf-8", "surrogateescape"))
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in printable(images.name))[:40]
    return start.with_name(f"{start.name}_{name}_{mark:08x}")


def threshold_key(case: Case, score: scores.Score) -> dict:
    """All that changes the ID scores a threshold comes from, but for the images of them."""
    network, own = case.network, getattr(score, "own", False)
    learnt = case.sets.train if "train" in score.needs else None
    return {
        "snapshot": network.sha256,
        "score": score.label,
        "hyper": score.hyper,
        "own_code": sha256_file(sys.modules[score_module(score)].__file__) if own else None,
        "train": learnt and learnt.fingerprint,
        "network": f"{network.precision}-{network.device.type}-{network.kind}-{FORWARD}",
        "statistics": [list(network.mean), list(network.std)],
    }


def score_module(score: scores.Score) -> str:
    """Name of the module in which a score of the user's own is written."""
    return getattr(score, "function", type(score)).__module__


def load_threshold(case: Case, score: scores.Score) -> Threshold:
    """The threshold of a score, from its file where that is of this snapshot, score and these ID
    images; else from the ID test images' scores, and the file is written.
    """
    path = base_path(case, score.label)
    path = path.with_name(path.name + "_threshold.json")
    key, known, tpr = threshold_key(case, score), case.sets.id, case.args.tpr
    kept = read_threshold(path, key)
    if known is None:
        if kept is None:
            raise UserError(
                "the threshold comes from the ID test images: "
                + loaders.missing_message(case.description["dataset"], "test", case.args.data)
            )
        print_note(
            f"the ID test images are not at hand; the threshold is that of the "
            f"{len(kept['id_scores'])} in {short_path(path)}"
        )
    elif kept is None or kept["id"]["fingerprint"] != known.fingerprint:
        kept = {"id": known.describe()}
        kept["id_scores"] = np.sort(case.network.score(score, known)).tolist()
        kept["warning"] = doubt_of(case)
        kept["tpr"] = None  # to be written
    id_scores = np.array(kept["id_scores"], dtype=np.float64)
    value = find_threshold(id_scores, tpr)
    if kept["tpr"] != tpr:
        about = {"tpr": tpr, "threshold": value, "in": "score <= threshold", "id": kept["id"]}
        about |= {"warning": kept["warning"]} if kept.get("warning") else {}
        write_json(path, {"key": key, **about, "id_scores": id_scores.tolist()})
    if kept.get("warning") and kept["warning"] not in warned:
        print(f"warning: {printable(str(kept['warning']))}", file=sys.stderr)
        warned.add(kept["warning"])
    return Threshold(value, tpr, id_scores, path)


def doubt_of(case: Case) -> str | None:
    """``chance_note`` of the ID test images that a threshold comes from."""
    if case.description.get("classifier") is False:
        return None
    return chance_note(id_error_of(case.network.outputs(case.sets.id)), case)


def read_threshold(path: Path, key: dict) -> dict | None:
    """What a threshold file keeps, None where there is none, or one of another snapshot, score or
    computation, or one that cannot be read.
    """
    try:
        kept = read_json(path)
        id_scores = np.array(kept["id_scores"], dtype=np.float64)
        same = kept["key"] == json.loads(json.dumps(key)) and isinstance(kept["tpr"], float)
        whole = id_scores.ndim == 1 and len(id_scores) and not np.isnan(id_scores).any()
        return kept if same and whole and isinstance(kept["id"]["fingerprint"], str) else None
    except (UserError, OSError, ValueError, TypeError, KeyError):
        return None


def format_table(found: Verdicts) -> str:
    """The threshold, how many images are in and out, and the most in and most out of them."""
    threshold, order, total = found.threshold, found.order, len(found.scores)
    kept = 100 * np.mean(threshold.id_scores <= threshold.value)
    lines = [
        (
            f"{found.label}: threshold {threshold.value:.6g} keeps {kept:.2f} % of "
            f"{len(threshold.id_scores)} ID test images ({short_path(threshold.path)})"
        ),
        (
            f"{total} images: {int(found.inside.sum())} in, {total - int(found.inside.sum())} out. "
            "Percentile: percent of the ID test images that score at most as high"
        ),
    ]
    blocks = {"the most in first": order}
    if total > 2 * SHOWN:
        blocks = {f"the {SHOWN} most in": order[:SHOWN], f"the {SHOWN} most out": order[-SHOWN:]}
    width = max(len(shorten(name, 40)) for name in found.names)
    class_width = max(*map(len, found.classes), 5) if found.classes else 0
    head = f"{'class':{class_width}}  probability" if found.classes else ""
    for title, places in blocks.items():
        lines += ["", f"{title + ':':{width}}  {head}{'score':>14}{'percentile':>12}  verdict"]
        for i in places:
            told = ""
            if found.classes:
                told = f"{found.classes[i]:{class_width}}{found.probabilities[i]:13.4f}"
            lines.append(
                f"{shorten(found.names[i], 40):{width}}  {told}{found.scores[i]:14.6g}"
                f"{found.percentiles[i]:12.2f}  {verdict(found, i)}"
            )
    return "\n".join(lines)


def verdict(found: Verdicts, i: int) -> str:
    return "in" if found.inside[i] else "out"


def shorten(name: str, length: int) -> str:
    """A name of at most ``length`` characters, its end kept: there images of a folder differ."""
    return name if len(name) <= length else "..." + name[3 - length :]


def write_csv(found: Verdicts) -> Path:
    """Write a line an image, in the order of the images; returns the file."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    about = ["class", "probability"] if found.classes else []
    table.writerow(["file", *about, "score", "threshold", "percentile", "verdict"])
    for i, name in enumerate(found.names):
        about = [found.classes[i], f"{found.probabilities[i]:.6f}"] if found.classes else []
        numbers = [repr(float(found.scores[i])), repr(found.threshold.value)]
        table.writerow([name, *about, *numbers, f"{found.percentiles[i]:.4f}", verdict(found, i)])
    path = found.path.with_name(found.path.name + ".csv")
    write_text(path, text.getvalue())
    return path
