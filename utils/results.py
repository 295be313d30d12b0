"""From score vectors to the papers' table: draws, result files, printed tables."""
import csv
import io
import json
import re
import zlib

import numpy as np

from .metrics import METRICS, detection_metrics, quirks
from .runtime import CIFAR, UserError, write_bytes, write_json, write_text

RESULTS = CIFAR / "results"


def draw_indices(count, size, draws, seed, name):
    """Index arrays of ``draws`` random draws of ``size`` out of ``count`` images without replacement.

    A set of at most ``size`` images is used whole, once. The draws depend on the seed and the set's name alone.
    """
    if count <= size:
        return [np.arange(count)]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return [rng.choice(count, size, replace=False) for _ in range(draws)]


def measure_set(id_scores, ood_scores, name, draws, seed, protocol):
    """Metrics in percent of one OOD set: mean and sd over the draws, and over the whole set.

    protocol "paper": draws of len(ID)//5 OOD images ([Energy]); "full": the whole set once. The sd is the sample
    standard deviation over the draws, 0 where there is only one.
    """
    whole = detection_metrics(id_scores, ood_scores)
    size = max(len(id_scores) // 5, 1) if protocol == "paper" else len(ood_scores)
    parts = draw_indices(len(ood_scores), size, draws, seed, name)
    rows = [whole] if len(parts) == 1 else [detection_metrics(id_scores, ood_scores[part]) for part in parts]
    values = {metric: 100 * np.array([row[metric] for row in rows]) for metric in METRICS}
    return {"set": name, "n": len(ood_scores), "drawn": len(parts[0]), "draws": len(parts),
            **{metric: float(v.mean()) for metric, v in values.items()},
            "sd": {metric: float(v.std(ddof=1)) if len(v) > 1 else 0.0 for metric, v in values.items()},
            "whole": {metric: 100 * whole[metric] for metric in METRICS}, "flags": quirks(id_scores, ood_scores)}


def mean_row(rows):
    """The plain mean over the sets, as the papers print it; its sd is that of the mean of independent draws.

    ``draws`` are those of the set with the fewest: where that is one draw of all its images, the sd leaves that set's part out.
    """
    return {"set": "average", "draws": min(row["draws"] for row in rows), **{metric: float(np.mean([row[metric] for row in rows])) for metric in METRICS},
            "sd": {metric: float(np.sqrt(sum(row["sd"][metric] ** 2 for row in rows)) / len(rows)) for metric in METRICS},
            "whole": {metric: float(np.mean([row["whole"][metric] for row in rows])) for metric in METRICS}, "flags": []}


FLAGS = {"constant": "the score is the same for all images", "ties": "more than 1 % of the images have exactly the score of another",
         "separated": "every ID image scores below every OOD image",
         "inverted": "every OOD image scores below every ID image"}


def format_set_table(score, rows, id_error, out_as_pos=False):
    """The papers' table of one score as text: ID error first, one line a set, then the mean."""
    fpr, aupr, positive = ("fpr95_out", "aupr_out", "OOD") if out_as_pos else ("fpr95", "aupr_in", "ID")
    width = max(len(row["set"]) for row in rows) + 2
    lines = [f"{score}   (ID error {id_error:.2f} %; {positive} positive; mean ± sd over draws, percent)",
             f"{'':{width}}{'FPR95':>14}{'AUROC':>14}{'AUPR':>14}"]
    for row in rows:
        cells = "".join(f"{row[m]:7.2f} ±{row['sd'][m]:5.2f}" for m in (fpr, "auroc", aupr))
        notes = f"{row['drawn']} of {row['n']} images x {row['draws']}" if "n" in row else ""
        lines.append(f"{row['set']:{width}}{cells}   {notes}" + "".join(f"  [{flag}]" for flag in row["flags"]))
    flags = {flag for row in rows for flag in row["flags"]}
    return "\n".join(lines + [f"[{flag}]: {FLAGS[flag]}" for flag in FLAGS if flag in flags])


def format_summary(scores, metric="fpr95", title="FPR95"):
    """One table of several scores: a line a score, a column a set, then the mean."""
    names = [row["set"] for row in scores[0]["sets"]]
    label = max(len(score["score"]) for score in scores) + 2
    widths = [max(len(name), 7) + 2 for name in names + ["average"]]
    lines = [f"{title + ', percent':{label}}" + "".join(f"{name:>{w}}" for name, w in zip(names + ["average"], widths))]
    for score in scores:
        values = [row[metric] for row in score["sets"]] + [score["average"][metric]]
        flagged = ["*" if row.get("flags") else "" for row in score["sets"] + [score["average"]]]
        lines.append(f"{score['score']:{label}}" + "".join(f"{f'{v:.2f}{f}':>{w}}" for v, f, w in zip(values, flagged, widths)))
    if any(row["flags"] for score in scores for row in score["sets"]):
        lines.append("* flagged: the score is constant, has ties, or separates the sets perfectly one way or the other (see its own table)")
    return "\n".join(lines)


def result_name(snapshot, scores, protocol, unusual=None):
    """File name of a result: the snapshot's name and folder (but for pretrained), the scores, the protocol.

    ``tune_sr/cifar10_wrn_s1_tune_epoch_9.pt`` with energy gives ``cifar10_wrn_s1_tune_sr_energy``. ``unusual``: what else
    tells this result from the usual one of that name (other images, draws, a folder elsewhere); a short hash of it follows.
    """
    stem = re.sub(r"_epoch_\d+$", "", snapshot.stem)
    folder = snapshot.parent.name.removeprefix("tune_")
    names = "+".join(re.sub(r"[^\w.+-]+", "-", score) for score in scores)
    names = names if len(names) <= 60 else f"{len(scores)}-scores-{zlib.crc32(names.encode()):08x}"
    parts = [stem] + [folder] * (folder != "pretrained") + [names] + [protocol] * (protocol != "paper")
    return "_".join(parts + [f"{zlib.crc32(str(unusual).encode()):08x}"] * bool(unusual))


def write_result(path, record):
    """Write ``path``.json with everything, and ``path``.csv with a line for each score and set."""
    write_json(path.with_name(path.name + ".json"), record)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["score", "set", "n", "drawn", "draws", *METRICS, *(f"{m}_sd" for m in METRICS), *(f"{m}_whole" for m in METRICS), "flags"])
    for score in record["scores"]:
        for row in [*score["sets"], score["average"]]:
            table.writerow([score["score"], row["set"], row.get("n", ""), row.get("drawn", ""), row.get("draws", ""),
                            *(f"{row[m]:.4f}" for m in METRICS), *(f"{row['sd'][m]:.4f}" for m in METRICS),
                            *(f"{row['whole'][m]:.4f}" for m in METRICS), " ".join(row["flags"])])
    write_text(path.with_name(path.name + ".csv"), text.getvalue())


def read_result(path):
    """The record of a result file; UserError naming the file when it is not one."""
    try:
        record = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not a result file: {error}. Move it away, or make it anew") from None
    if not isinstance(record, dict):
        raise UserError(f"{path} is not a result file: a {type(record).__name__}, no record. Move it away, or make it anew")
    return record


def write_scores(path, vectors):
    """Per-image scores: an .npz with one array ``score/set`` each."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vectors)
    write_bytes(path.with_name(path.name + "_scores.npz"), buffer.getbuffer())
