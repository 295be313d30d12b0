"""Result files and printed tables."""
import csv
import io
import json
import re
import zlib

import numpy as np

from utils.metrics import METRICS
from utils.runtime import CIFAR, UserError, write_bytes, write_json, write_text

RESULTS = CIFAR / "results"








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
