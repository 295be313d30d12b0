"""The papers' tables, published beside measured: ``python reproduce.py cifar10 --table NAME`` writes them as CIFAR/RESULTS.md, .csv and .tex.

A published number is compared with a measured one only on the very images of the paper. A set of the same kind has its own
name and lines here, without a published number; so has the mean over such sets.
"""
import csv
import io
import json
from typing import NamedTuple

from utils.evaluation import report
from utils.evaluation.protocol import is_usual
from utils.losses import LOSSES
from utils.runtime import CIFAR, write_files
from utils.scores import SCORES
from utils.snapshots import is_complete
from utils.training.recipes import departures

PUBLISHED = CIFAR / "published.json"
RECORDED = report.RESULTS / "recorded"
OUTPUT = CIFAR / "RESULTS"
OFFICIAL = {"textures": 5640, "svhn": 26032, "places365": 10000, "lsun_c": 10000, "lsun_r": 10000, "isun": 8925}    # images ([Energy])
ID_IMAGES = 10000
# ID test images that are not wholly the official ones: fingerprint -> (whether they may stand for them, note)
ID_NOTES = {"c55f92b49c3e93d4b138faf3b57d2be1380c96eee667f51d6ba1309fc81dd168":
            (True, "CIFAR-10's official test split, 20 of its 10,000 images recovered from JPEG"),
            "99d1273f7e138af3271d764f7f3a9951cf176ee02d862680ea779e14b3e6ec9b":
            (False, "a random fifth of CIFAR-100's official images, not its test split; nothing is compared with the paper")}
KEYS = {"fpr95": "fpr95", "auroc": "auroc", "aupr": "aupr_in"}    # what published.json calls a metric, and what results do
TITLES = {"fpr95": "FPR95", "auroc": "AUROC", "aupr": "AUPR"}


class Table(NamedTuple):
    """A published table: its title, its source in published.json, its metrics, and the records that are its rows."""

    title: str
    source: str
    metrics: tuple
    has: object = lambda record: True


TABLES = {
    "sr": Table("SR, PAKDD 2022: mean FPR95 over the six sets", "sr", ("fpr95",)),
    "srf1": Table("SR framework, Sci. Rep. 2024: all methods, means over the six sets", "srf", ("fpr95", "auroc", "aupr"),
                  lambda r: r["network"] == "wrn" and r["method"] != "Baseline" and r["ood_set"] in (None, "average")),
    "srf3": Table("SR framework, Sci. Rep. 2024: SR on four networks, means over the six sets", "srf", ("fpr95", "auroc", "aupr"),
                  lambda r: r["method"] in ("Baseline", "SR") and r["ood_set"] in (None, "average")),
    "srf4": Table("SR framework, Sci. Rep. 2024: SR on each set", "srf", ("fpr95", "auroc"),
                  lambda r: r["network"] == "wrn" and r["method"] in ("Baseline", "SR")),
    "energy": Table("Energy, NeurIPS 2020: each set", "energy", ("fpr95", "auroc", "aupr")),
}


def published_rows(table, id_set):
    """{(method, network, score, stage): {ood set, or None for the ID error: {metric: record}}} in the order of published.json."""
    rows = {}
    for record in json.loads(PUBLISHED.read_text())["records"]:
        if record["source"] == table.source and record["id_set"] == id_set and record["protocol"] == "paper" and table.has(record):
            key = (record["method"], record["network"], record["score"], record["stage"])
            rows.setdefault(key, {}).setdefault(record["ood_set"], {})[record["metric"]] = record
    return rows


def measured_results(folders=(RECORDED, report.RESULTS)):
    """{(id set, network, stage, score): (entry, result, path)} of the protocol's own results.

    Of each stage the newest result of the last folder that has one counts, and those of the same snapshot, OOD images and
    precision; of a fine-tuned stage only if it was made from the pre-trained network that counts. Only whole runs of the
    papers' recipes enter, not other files that test.py can score.
    """
    groups = {}
    for rank, folder in enumerate(folders):
        for path in folder.glob("*.json"):
            result = report.read_result(path)
            if enters(result):
                snapshot = result["snapshot"]
                place = (rank, path.stat().st_mtime_ns * (folder != RECORDED), path.name)    # git keeps no times
                groups.setdefault((snapshot["dataset"], snapshot["arch"], snapshot.get("loss", "pretrained")), []).append((place, path, result))
    found, pretrained = {}, {}
    for key, entries in sorted(groups.items(), key=lambda group: group[0][2] != "pretrained"):
        entries.sort(key=lambda entry: entry[0])
        if key[2] == "pretrained":
            pretrained[key[:2]] = entries[-1][2]["snapshot"]["sha256"]
        else:
            entries = [entry for entry in entries if entry[2]["snapshot"].get("parent_sha256") == pretrained.get(key[:2])]
        for _, path, result in entries:
            if made_of(result) == made_of(entries[-1][2]):
                found.update({(*key, entry["score"]): (entry, result, path) for entry in result["scores"]})
    return found


def made_of(result):
    """What results must have in common to stand in one row of snapshots: the snapshot, the images and the precision."""
    images = [(ood["name"], ood["images"], ood.get("fingerprint")) for ood in result["ood"]]
    return result["snapshot"]["sha256"], result["precision"], result["id"].get("fingerprint"), sorted(images)


def enters(result):
    """Whether a result is of the protocol (six sets, 10 draws of seed 1, all ID images) and of a whole run of the recipe in its usual folder.

    A score's hyper-parameters are in its label, which the tables look it up by.
    """
    snapshot = result.get("snapshot")
    if "arguments" not in result or snapshot is None or not is_complete(snapshot) or departures(snapshot):
        return False
    folder = "pretrained" if "loss" not in snapshot else f"tune_{snapshot['loss']}"
    return is_usual(result) and snapshot.get("data", snapshot["dataset"]) == snapshot["dataset"] and snapshot["name"].split("/")[-2:-1] == [folder] and not snapshot["name"].endswith("_best")


def why_not(score, stage):
    """What stands in a row without a measurement."""
    there = stage in ("pretrained", *LOSSES) and score in SCORES
    return "not measured" if there else "method not in this project"


def build(name, id_set, measured):
    """Lines of a table, dicts: method, network, ood_set, n, drawn, draws, {metric: (published record, value, sd)}, run, note."""
    table, lines = TABLES[name], []
    for (method, network, score, stage), sets in published_rows(table, id_set).items():
        entry, result, _ = measured.get((id_set, network, stage, score), (None, None, None))
        per_set = {row["set"]: row for row in entry["sets"]} if entry else {}
        whole = result is not None and result["id"]["images"] == ID_IMAGES and ID_NOTES.get(result["id"]["fingerprint"], (True,))[0]
        official = {s for s, row in per_set.items() if whole and OFFICIAL.get(s) == row["n"]}
        if official == set(OFFICIAL):
            per_set["average"], official = entry["average"], official | {"average"}
        base = {"method": method, "network": network, "score": score, "stage": stage, "result": result}
        printed = [s for s in (*OFFICIAL, "average") if s in sets]
        for place, ood_set in enumerate(printed):
            row = per_set[ood_set] if ood_set in official else {}
            note = why_not(score, stage) if entry is None else "" if row else "paper's images not at hand"
            lines.append({**base, **values(table, sets[ood_set], row), "ood_set": ood_set, "note": note, "row": row,
                          "error": sets.get(None, {}).get("id_error") if place == 0 else None})
        if entry and "average" not in official:
            own = [(own_name(row), row) for s, row in per_set.items() if s not in official]
            for ood_set, row in (own if set(printed) - {"average"} else []) + [("mean of the sets here", entry["average"])]:
                lines.append({**base, **values(table, {}, row), "ood_set": ood_set, "note": "not the paper's images", "row": row, "error": None})
    return lines


def own_name(row):
    """A measured set's name; one that has a paper's set's name but not its number of images is marked."""
    return f"{row['set']} (not the paper's)" if row["n"] != OFFICIAL.get(row["set"], row["n"]) else row["set"]


def values(table, printed, row):
    """{metric: (published record or None, measured or None, sd over the draws, None where there was but one)}."""
    sd = row.get("sd", {}) if row.get("draws", 1) > 1 else {}
    return {metric: (printed.get(metric), row.get(KEYS[metric]), sd.get(KEYS[metric])) for metric in table.metrics}


def difference(record, value):
    """Measured minus published, None where they are not to be compared."""
    comparable = record and value is not None and record.get("flag", {}).get("kind") != "misprint"
    return value - record["value"] if comparable else None


def number(value, sign=False):
    """A number with two digits after the point, with its sign if asked for; nothing for None."""
    return "" if value is None else f"{value:+.2f}" if sign else f"{value:.2f}"


def cells(name, line):
    """A line's cells as text, in the order of ``header``."""
    row, result, out = line["row"], line["result"], []
    images = f"{row['n']:,}; {row['draws']} x {row['drawn']:,}" if "n" in row else ""
    epochs = str(result["snapshot"]["recipe"]["epochs"]) if result and row else ""
    out += [line["method"], line["network"], line["ood_set"], images, epochs]
    for metric in TABLES[name].metrics:
        record, value, sd = line[metric]
        flag = f" [{record['flag']['kind']}]" if record and "flag" in record else ""
        here = number(value) + (f" ± {sd:.2f}" if sd is not None else "")
        out += [number(record and record["value"]) + flag, here, number(difference(record, value), sign=True)]
    return out + [number(line["error"] and line["error"]["value"]), number(id_error(line)), line["note"]]


def id_error(line):
    """The measured ID error of a line that shows one: beside the published one, or beside the mean."""
    return line["result"]["id"]["error"] if line["result"] and (line["error"] or "mean" in line["ood_set"]) else None


def header(name):
    """The column titles of a table."""
    metrics = [word for metric in TABLES[name].metrics for word in (f"{TITLES[metric]} paper", f"{TITLES[metric]} here ± sd", "difference")]
    return ["method", "network", "OOD set", "images; draws", "epochs", *metrics, "ID error paper", "ID error here", "note"]


def caption(lines):
    """What the measured numbers of a table were made with, one sentence a snapshot."""
    snapshots = {line["result"]["snapshot"]["sha256"]: (line["result"]["snapshot"], line["result"]) for line in lines if line["result"]}
    images = dict.fromkeys((ood["name"], ood["images"]) for _, result in snapshots.values() for ood in result["ood"])
    words = [f"`{one['name']}`: seed {one['seed']}, {one['recipe']['epochs']} epochs (a complete schedule), {one['train_images']:,} training images, "
             + (f"{one['outliers']['images']:,} outliers of {one['outliers']['name']}, " if one.get("outliers") else "") +
             f"ID accuracy {result['id']['accuracy']:.2f} % of {result['id']['images']:,}, scored in {result['precision']}, sha256 {one['sha256'][:12]}"
             for one, result in snapshots.values()]
    there = ", ".join(f"{name} {count:,}" for name, count in images)
    fingerprints = {result["id"]["fingerprint"] for _, result in snapshots.values()}
    notes = "".join(f" ID: {ID_NOTES[f][1]}." for f in sorted(fingerprints & set(ID_NOTES)))
    return f"Measured with {'; '.join(words)}. OOD images here: {there}.{notes}" if words else "Nothing measured yet."


INTRODUCTION = """# Published beside measured

Percent; ID is the positive class; sd over the draws of one trained network (seed {seeds}), not over seeds, and none where all images are one draw. "paper" = as printed, on the
paper's images, with its auxiliary outliers and its epochs (100, fine-tuning 10), which are not ours; [flag]: see `CIFAR/published.json`. A difference is given only where the OOD set is the paper's
and whole, by its name and number of images (so are the 10,000 ID images taken for the paper's); of Places365, whose list is not public, a choice of our own counts as such, and LSUN-C's images are cropped to 32x32.
Mahalanobis has no input step here; the papers chose its size for each data set. `python reproduce.py cifar10 --table NAME` makes this file from `CIFAR/results/`."""


def render_markdown(tables):
    """RESULTS.md: every table with its caption."""
    seeds = sorted({line["result"]["snapshot"]["seed"] for lines in tables.values() for line in lines if line["result"]})
    parts = [INTRODUCTION.format(seeds=", ".join(map(str, seeds)) or "-")]
    for (name, id_set), lines in tables.items():
        body = [header(name), ["---"] * len(header(name)), *(cells(name, line) for line in lines)]
        parts.append(f"## {TABLES[name].title} ({id_set})\n\n`--table {name}`. {caption(lines)}\n\n"
                     + "\n".join("| " + " | ".join(row) + " |" for row in body))
    return "\n\n".join(parts) + "\n"


def render_csv(tables):
    """RESULTS.csv: a line for each row, OOD set and metric of every table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "id_set", "method", "network", "score", "stage", "ood_set", "metric", "published", "flag", "measured", "sd", "difference", "n",
                     "drawn", "draws", "id_error_published", "id_error", "epochs", "seed", "precision", "snapshot_sha256", "note"])
    for (name, id_set), lines in tables.items():
        for line in lines:
            row, result = line["row"], line["result"] if line["row"] else None
            snapshot = result["snapshot"] if result else {}
            for metric in TABLES[name].metrics:
                record, value, sd = line[metric]
                writer.writerow([name, id_set, line["method"], line["network"], line["score"], line["stage"], line["ood_set"], metric,
                                 number(record and record["value"]), (record or {}).get("flag", {}).get("kind", ""), number(value), number(sd),
                                 number(difference(record, value), sign=True), row.get("n", ""), row.get("drawn", ""), row.get("draws", "") if "n" in row else "",
                                 number(line["error"] and line["error"]["value"]), number(id_error(line)), snapshot.get("recipe", {}).get("epochs", ""),
                                 snapshot.get("seed", ""), result["precision"] if result else "", snapshot.get("sha256", ""), line["note"]])
    return text.getvalue()


def render_tex(tables):
    """LaTeX tabulars, one a table; they need no package."""
    escape = str.maketrans({"_": r"\_", "%": r"\%", "&": r"\&", "±": r"$\pm$", "#": r"\#"})
    parts = ["% made by reproduce.py --table; what RESULTS.md says at its head holds here too"]
    for (name, id_set), lines in tables.items():
        body = [" & ".join(cell.translate(escape) for cell in row) + r" \\" for row in (header(name), *(cells(name, line) for line in lines))]
        parts.append("\n".join([f"% {TABLES[name].title} ({id_set})", f"% {caption(lines)}", rf"\begin{{tabular}}{{{'lllll' + 'r' * (len(header(name)) - 6) + 'l'}}}", r"\hline",
                                body[0], r"\hline", *body[1:], r"\hline", r"\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def render(folders=(RECORDED, report.RESULTS)):
    """{path: bytes} of RESULTS.md, .csv and .tex: every table of CIFAR-10, and of CIFAR-100 once anything of it is measured."""
    measured = measured_results(folders)
    id_sets = [s for s in ("cifar10", "cifar100") if s == "cifar10" or any(key[0] == s for key in measured)]
    tables = {(name, id_set): build(name, id_set, measured) for id_set in id_sets for name in TABLES}
    made = {".md": render_markdown(tables), ".csv": render_csv(tables), ".tex": render_tex(tables)}
    return {OUTPUT.with_suffix(suffix): text.encode() for suffix, text in made.items()}


def write(folders=(RECORDED, report.RESULTS)):
    """Write RESULTS.md, .csv and .tex and return their paths."""
    files = render(folders)
    write_files(files)
    return list(files)
