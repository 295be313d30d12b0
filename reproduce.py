"""A data set's whole chain: train, fine-tune with SR and with SROE, score all three, one table and one figure.

    python reproduce.py digits      # needs no download; about two minutes on two cores
    python reproduce.py cifar10     # the papers' recipes; hours on a CPU. First: python data/download.py cifar10 ood

Each stage is the command a user would type, and is printed. A stage whose snapshot is there is not run again, an
interrupted one goes on, a fine-tuned one of another pre-trained network is made anew; --fresh begins anew. Options this script does not know go to baseline.py and tune.py alike, so
that ``python reproduce.py cifar10 --epochs 2`` is a quick look.
"""
import csv
import io
import subprocess
import sys
import time

import numpy as np

from utils import datasets, options, plots, results, runtime, snapshots
from utils.losses import LOSSES

METHODS = (("MSP", None, "msp"), ("ODIN", None, "odin"), ("Mahalanobis", None, "mahalanobis"), ("Energy", None, "energy"),
           ("SR", "sr", "energy"), ("SROE", "sroe", "energy"))
FIGURES = runtime.CIFAR / "figures"


def parse(argv):
    parser = options.Parser(prog="reproduce.py", description=__doc__)
    parser.add_argument("dataset", nargs="?", default="digits", help=f"{', '.join(datasets.ID_SETS)} (default: digits)")
    parser.add("--fresh", action="store_true", help="train anew; the former snapshots are moved aside, not deleted")
    options.add_common(parser)
    args, args.training = parser.parse_known_args(argv)
    options.known_dataset(args.dataset, args.id, datasets.ID_SETS)
    return args


def main(argv=None):
    args = parse(argv)
    start = time.perf_counter()
    stem = f"{args.dataset}_wrn"
    train(["baseline.py", args.dataset], "pretrained", f"{stem}_pretrained", args)
    losses = list(dict.fromkeys(loss for _, loss, _ in METHODS if loss))
    for loss in losses:
        train(["tune.py", args.dataset, "--loss", loss], f"tune_{loss}", f"{stem}_s1_tune", args)

    measured = evaluate(f"pretrained/{stem}_pretrained", [score for _, loss, score in METHODS if not loss], args)
    tuned = {loss: evaluate(f"tune_{loss}/{stem}_s1_tune", [LOSSES[loss].score], args) for loss in losses}
    rows = [(method, (tuned[loss] if loss else measured), score) for method, loss, score in METHODS]
    write_table(args.dataset, rows)
    groups = [(method, load_vectors(result, score)) for method, result, score in rows if method in ("Energy", "SR", "SROE")]
    figure = plots.plot_densities(groups, FIGURES / f"{args.dataset}_densities", "Energy score (larger = more OOD)")
    print(f"figure: {runtime.short_path(figure[0])}\n{time.perf_counter() - start:.0f} seconds in all")


def train(command, folder, stem, args):
    """Run one training stage unless its snapshot is there; go on with one that was interrupted.

    A fine-tuned snapshot counts only if it comes from the pre-trained one that is there now.
    """
    place = snapshots.SNAPSHOTS / folder
    there = sorted(place.glob(f"{stem}_epoch_*.pt"), key=snapshots.epoch_of)[-1:]
    if (place / f"{stem}.resume.pt").exists() and not args.fresh:
        shell([*command, *args.training, "--resume"], args)
    elif not there or args.fresh or is_orphan(there[0], args.dataset):
        shell([*command, *args.training], args)
    else:
        print(f"{snapshots.short_name(there[0])} is there (--fresh trains it anew)")


def is_orphan(file, dataset):
    """Whether a fine-tuned snapshot was made from another pre-trained one than the one there is now."""
    parent = snapshots.describe(file, snapshots.read_weights(file)).get("parent_sha256")
    return parent is not None and \
        parent != runtime.sha256_file(snapshots.find_one("./snapshots/pretrained", stem=f"{dataset}_wrn_pretrained"))


def evaluate(name, score_names, args):
    """Run test.py and return (its result, the path of its files without suffix)."""
    file = snapshots.find_snapshots(name)[0]
    shell(["test.py", "--model", name, "--score", ",".join(score_names), "--save-scores"], args)
    path = results.RESULTS / results.result_name(file, score_names, "paper")
    return results.read_result(path.with_name(path.name + ".json")), path


def shell(command, args):
    """Run a script of this folder as a user would; its errors are already on stderr, so only its status is passed on."""
    words = ["data", "id", "image_size", "device", "precision"]
    common = [part for word in words if str(getattr(args, word)) != str(DEFAULTS[word])
              for part in (f"--{word.replace('_', '-')}", str(getattr(args, word)))] + ["--skip-bad"] * args.skip_bad
    print("\n$ python " + " ".join([*command, *common]), flush=True)
    status = subprocess.run([sys.executable, "-u", str(runtime.ROOT / command[0]), *command[1:], *common]).returncode
    if status:
        raise SystemExit(status)


DEFAULTS = {"data": runtime.DATA, "id": None, "image_size": 32, "device": "auto", "precision": "auto"}


def load_vectors(row, score):
    """{"ID": scores, OOD set: scores} of one score out of a result's per-image file."""
    result, path = row
    with np.load(path.with_name(path.name + "_scores.npz"), allow_pickle=False) as content:
        names = ["id"] + [ood["name"] for ood in result["ood"]]
        return {"ID" if name == "id" else name: content[f"{score}/{name}"] for name in names}


def write_table(dataset, rows):
    """Print the final table (rows: methods; columns: the sets and their mean) and write it as CSV."""
    table = []
    for method, (result, _), score in rows:
        entry = next(entry for entry in result["scores"] if entry["score"] == score)
        table.append({**entry, "score": method, "error": result["id"]["error"]})
    print("\n" + results.format_summary(table, "fpr95", "FPR95") + "\n\n" + results.format_summary(table, "auroc", "AUROC"))
    print("\nID error: " + ", ".join(f"{row['score']} {row['error']:.2f} %" for row in table))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["method", "id_error", "set", "n", "fpr95", "fpr95_sd", "auroc", "auroc_sd", "aupr_in", "aupr_in_sd"])
    for row in table:
        for cell in [*row["sets"], row["average"]]:
            writer.writerow([row["score"], f"{row['error']:.4f}", cell["set"], cell.get("n", ""),
                             *(f"{value:.4f}" for metric in ("fpr95", "auroc", "aupr_in") for value in (cell[metric], cell["sd"][metric]))])
    path = results.RESULTS / f"{dataset}_table.csv"
    runtime.write_text(path, text.getvalue())
    print(f"table: {runtime.short_path(path)}")


if __name__ == "__main__":
    sys.exit(runtime.run(main))
