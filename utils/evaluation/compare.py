"""``--compare A,B``: by how much B differs from A on the same images, with a paired bootstrap.

Each of ``RESAMPLES`` times the ID images, and those of each OOD set, are drawn anew with
replacement, as many as there are; both sides are measured on the same ones. The interval holds the
middle ``LEVEL`` of the differences B - A (percentiles). Whole sets are resampled, not the draws
of a table, and the mean over sets shares the ID images.
"""

import re
import zlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils import scores, snapshots
from utils.metrics import detection_metrics, openood_metrics
from utils.runtime import UserError, make_folder, short_path, write_json, write_text

from .printed import percent
from .protocol import Protocol
from .report import csv_text, entry_of
from .rows import crc32_of

RESAMPLES = 1000
LEVEL = 0.95
NUMBERS = 4_000_000  # in one array: so many resamples at once
WANTED = (
    "two scores of --model (--compare energy,msp), two snapshots (--compare A.pt,B.pt), or two folders "
    "of outputs as --save-outputs writes (--compare A/,B/)"
)


class Measured(NamedTuple):
    """What test.py made of a snapshot: its result's path, its record, {score/set: (N,) scores}, and
    the labels (N,) of the ID images, None where they are not known.
    """

    path: Path
    record: dict[str, Any]
    vectors: dict[str, np.ndarray]
    labels: np.ndarray | None = None


class Side(NamedTuple):
    """A or B: one score of one snapshot."""

    measured: Measured
    label: str

    def values(self, key: str) -> list[np.ndarray]:
        """Scores of the sets that a record has under a key: "id" (with shifted ones), or "ood"."""
        record = self.measured.record
        names = [images["name"] for images in record["ood"]]
        if key == "id":
            names = ["id", *(images["name"] for images in record.get("shifted", ()))]
        return [self.measured.vectors[f"{self.label}/{name}"] for name in names]

    def describe(self) -> dict[str, Any]:
        record = self.measured.record
        return {
            "snapshot": record["snapshot"]["name"],
            "sha256": record["snapshot"]["sha256"],
            "score": self.label,
            "hyper": entry_of(record, self.label)["hyper"],
            "id_error": record["id"]["error"],
        }


def settle(args: Namespace) -> Namespace:
    """The options with what --compare names in its place: as --score, where network or outputs are
    given. UserError where it does not name two of a kind.
    """
    parts = scores.split_specifications(args.compare)
    if len(parts) != 2:
        raise UserError(f"--compare {args.compare} names {len(parts)}; it takes {WANTED}")
    if args.images or args.export:
        raise UserError("--compare is of tables; leave --images and --export out")
    if args.model or args.outputs:
        if args.score not in ("energy", args.compare):
            raise UserError(f"--compare names the scores: leave --score {args.score} out")
        return Namespace(**{**vars(args), "score": args.compare})
    if folders(args):
        return args
    names = [re.split("[:(]", part)[0].lower() for part in parts]
    known = [part for part, name in zip(parts, names) if name in (*scores.SCORES, "zscore")]
    if known:
        raise UserError(f"'{known[0]}' is a score. Of which snapshot? Add --model NAME")
    for name in parts:  # a name of several snapshots is refused before the work
        snapshots.find_one(args.load or name, *([name] if args.load else []))
    return args


def folders(args: Namespace) -> list[Path]:
    """The two folders of outputs that --compare names, [] where it names something else."""
    named = vars(args).get("compare")
    if args.model or args.outputs or not named:
        return []
    found = [Path(part).expanduser() for part in named.split(",")]
    return found if len(found) == 2 and all((one / "id.npz").is_file() for one in found) else []


class Ranked:
    """Scores of positives (N,) and negatives (M,), the lower the more positive, sorted once for all
    resamples of the two.
    """

    def __init__(self, positives: np.ndarray, negatives: np.ndarray):
        self.order, self.other = (np.argsort(v, kind="stable") for v in (positives, negatives))
        positives, negatives = positives[self.order], negatives[self.other]
        self.last = np.searchsorted(positives, positives, "right") - 1  # ties pass together
        self.passed = np.searchsorted(negatives, positives, "right")
        self.below = np.searchsorted(positives, negatives, "left")
        self.up_to = np.searchsorted(positives, negatives, "right")

    def metrics(
        self, times: np.ndarray, other: np.ndarray, closest: bool, recall: float = 0.95
    ) -> np.ndarray:
        """(2,B) FPR95 and AUROC in [0, 1] of B resamples, which hold each positive ``times`` (B,N)
        and each negative ``other`` (B,M).

        FPR95 by ``detection_metrics``, where the recall is the ``closest`` one, or by
        ``openood_metrics``.
        """
        n, m = times[0].sum(), other[0].sum()
        rows, other = np.arange(len(times)), other[:, self.other]
        counts = summed(times[:, self.order])  # (B,N+1) of the first k positives
        caught = counts[:, self.last + 1]
        wanted = recall * n - 1e-6  # counts differ by whole images
        at = (caught < wanted).sum(axis=1)
        if closest:  # the next lower recall, at the first positive that has it
            lower = np.where(at > 0, caught[rows, at - 1], 0)
            nearer = recall * n - lower < caught[rows, at] - recall * n - 1e-6
            at = np.where(nearer, (caught < lower[:, None]).sum(axis=1), at)
        fpr = summed(other)[rows, self.passed[at]] / m
        twice = np.einsum("bm,bm->b", other, counts[:, self.below] + counts[:, self.up_to])
        return np.stack([fpr, twice / 2 / n / m])


def summed(times: np.ndarray) -> np.ndarray:
    """(B,N+1): sums of the first 0, 1, ... N numbers of each row (B,N)."""
    sums = np.zeros((len(times), times.shape[1] + 1), np.int64)
    np.cumsum(times, axis=1, out=sums[:, 1:])
    return sums


def resample(rng: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """(rows,count): how often each of ``count`` images is drawn, count times with replacement."""
    drawn = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)


def differences(a: Side, b: Side, protocol: Protocol, out_as_pos: bool) -> np.ndarray:
    """(2,S,RESAMPLES): B - A in FPR95 and AUROC, in [-1, 1], on each of S OOD sets."""
    closest = protocol.rules.metrics != "openood"
    names = [images["name"] for images in a.measured.record["ood"]]
    ranked = []
    for side in (a, b):
        inner = np.concatenate(side.values("id"))
        pairs = [(-v, -inner) if out_as_pos else (inner, v) for v in side.values("ood")]
        ranked.append([Ranked(*pair) for pair in pairs])
    sizes = [len(values) for values in a.values("ood")]
    count = sum(map(len, a.values("id")))
    streams = [np.random.default_rng([protocol.seed, crc32_of(name)]) for name in ("id", *names)]
    block, found = max(1, NUMBERS // max(count, *sizes)), []
    for start in range(0, RESAMPLES, block):
        rows, part = min(block, RESAMPLES - start), []
        times = resample(streams[0], count, rows)
        for i, size in enumerate(sizes):
            pair = (times, resample(streams[i + 1], size, rows))
            pair = pair[::-1] if out_as_pos else pair
            part.append(ranked[1][i].metrics(*pair, closest) - ranked[0][i].metrics(*pair, closest))
        found.append(np.stack(part, axis=1))
    return np.concatenate(found, axis=2)


def compare(a: Side, b: Side, protocol: Protocol, out_as_pos: bool) -> list[dict[str, Any]]:
    """A row an OOD set, then one a group or the mean over sets: for ``fpr95`` (of the class that is
    positive) and ``auroc`` A, B, the difference B - A and its interval, in percent.
    """
    measure = openood_metrics if protocol.rules.metrics == "openood" else detection_metrics
    keys = ("fpr95_out" if out_as_pos else "fpr95", "auroc")
    values = np.array(
        [
            [
                [measure(np.concatenate(side.values("id")), ood)[key] for ood in side.values("ood")]
                for key in keys
            ]
            for side in (a, b)
        ]
    )
    apart, rows = differences(a, b, protocol, out_as_pos), []
    entry = entry_of(a.measured.record, a.label)
    names = [row["set"] for row in entry["sets"]]
    means = entry.get("groups") or [{"set": "average", "sets": names}]
    for row in [*entry["sets"], *means]:
        at = [names.index(name) for name in row.get("sets", [row["set"]])]
        made = {"set": row["set"], "images": row.get("n")}
        for i, key in enumerate(("fpr95", "auroc")):
            first, second = 100 * values[:, i, at].mean(axis=1)
            ends = np.quantile(100 * apart[i, at].mean(axis=0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            low, high = map(float, ends)
            made[key] = {"a": float(first), "b": float(second)}
            made[key] |= {"difference": float(second - first), "low": low, "high": high}
        rows.append(made)
    return rows


def pair_up(found: list[Measured], args: Namespace) -> list[tuple[Side, Side]]:
    """The pairs of --compare: two scores of each snapshot, or each score of two snapshots."""
    if args.model or args.outputs:
        labels = [[entry["score"] for entry in one.record["scores"]] for one in found]
        return [(Side(one, own[0]), Side(one, own[-1])) for one, own in zip(found, labels)]
    a, b = found[0], found[-1]
    if folders(args):
        check_outputs(a, b)
    else:
        check_same(a.record, b.record)
    second = [entry["score"] for entry in b.record["scores"]]
    both = [e["score"] for e in a.record["scores"] if e["score"] in second]
    if not both:
        raise UserError("the two sides have no score in common. Name one: --score energy")
    return [(Side(a, label), Side(b, label)) for label in both]


def check_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """UserError unless two records are of the same images."""

    def images(record):
        parts = [record["id"], *record.get("shifted", ()), *record["ood"]]
        return {part["name"]: part["fingerprint"] for part in parts}

    if images(a) != images(b):
        other = {name for name, _ in images(a).items() ^ images(b).items()}
        raise UserError(
            f"{a['snapshot']['name']} and {b['snapshot']['name']} are not scored on the same images "
            f"({', '.join(sorted(other))}): there is no paired difference. Images of one size for "
            "both: --image-size N"
        )


def check_outputs(a: Measured, b: Measured) -> None:
    """UserError where the outputs of two networks cannot be of the same images: other OOD sets, other
    numbers of images, other labels. That they are in the same order is taken for granted.
    """
    first, second = a.record, b.record
    counts = [
        {name.partition("/")[2]: len(values) for name, values in one.vectors.items()}
        for one in (a, b)
    ]
    told = [f"{name} ({n})" for name, n in sorted(counts[0].items() ^ counts[1].items())]
    if not told and a.labels is not None and b.labels is not None:
        told = ["labels of ID images"] * (not np.array_equal(a.labels, b.labels))
    if told:
        raise UserError(
            f"{first['snapshot']['name']} and {second['snapshot']['name']} are not outputs of the same "
            f"images: in one of them only, {', '.join(told)}. Write both from the same sets, in the "
            "same order"
        )


def format_pair(pair: Mapping[str, Any], positive: str) -> str:
    """The table of one pair as text."""
    a, b, rows = pair["a"], pair["b"], pair["rows"]
    lines = [
        f"{letter}: {side['score']} of {side['snapshot']} (ID error {percent(side['id_error'])})"
        for letter, side in (("A", a), ("B", b))
    ]
    lines.append(
        f"B - A, and the {LEVEL:.0%} interval of {RESAMPLES:,} paired resamples of the images "
        f"({positive} positive; whole sets; points of percent)"
    )
    width = max(len(row["set"]) for row in rows) + 2
    head = "".join(f"{f'{m} A':>9}{'B':>8}{'B - A':>8}{'interval':>19}" for m in ("FPR95", "AUROC"))
    lines.append(f"{'':{width}}{head}")
    for row in rows:
        cells = ""
        for one in (row["fpr95"], row["auroc"]):
            ends = f"[{one['low']:+.2f}, {one['high']:+.2f}]"
            cells += f"{one['a']:9.2f}{one['b']:8.2f}{one['difference']:+8.2f}{ends:>19}"
        lines.append(f"{row['set']:{width}}{cells}")
    return "\n".join(lines)


def report(found: list[Measured], args: Namespace) -> list[Path]:
    """Print the table of every pair and write it as .json and .csv; the paths without suffix."""
    protocol, paths, groups = Protocol.of(vars(args)), [], {}
    out_as_pos = args.out_as_pos or protocol.rules.out_as_pos
    positive, turned = "OOD" if out_as_pos else "ID", out_as_pos != protocol.rules.out_as_pos
    for a, b in pair_up(found, args):
        rows = compare(a, b, protocol, out_as_pos)
        pair = {"a": a.describe(), "b": b.describe(), "rows": rows}
        print("\n" + format_pair(pair, positive))
        name = name_of(a.measured, b.measured) + "_ood-positive" * turned
        groups.setdefault(name, (a.measured.record, []))[1].append(pair)
    for name, (record, pairs) in groups.items():
        keys = ("command", "arguments", "protocol", "seed", "id", "ood", "shifted", "machine")
        made = {key: record[key] for key in keys if key in record}
        made |= {"positive": positive, "resamples": RESAMPLES, "level": LEVEL, "pairs": pairs}
        paths.append(make_folder(args.save) / name)
        write_json(paths[-1].with_name(name + ".json"), made)
        write_text(paths[-1].with_name(name + ".csv"), csv_text(csv_lines(pairs)))
        print(f"\nresult: {short_path(paths[-1])}.json and .csv")
    return paths


def name_of(a: Measured, b: Measured) -> str:
    """File name of a comparison: the results', and a hash of the weights."""
    stems = "_".join(dict.fromkeys([a.path.name, b.path.name]))
    made = "".join(one.record["snapshot"]["sha256"] for one in (a, b)) + stems[160:]
    return f"compare_{stems[:160]}_{zlib.crc32(made.encode()):08x}"


def csv_lines(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = []
    for pair in pairs:
        for row in pair["rows"]:
            line = {}
            for letter in "ab":
                line |= {letter: f"{pair[letter]['score']} of {pair[letter]['snapshot']}"}
            line |= {"set": row["set"], "images": row["images"] or ""}
            for key in ("fpr95", "auroc"):
                line |= {f"{key}_{part}": f"{value:.4f}" for part, value in row[key].items()}
            lines.append(line)
    return lines
