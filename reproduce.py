"""A data set's whole chain (train, fine-tune with SR and with SROE, score, table, figure), or a paper's table, published beside measured.

    python reproduce.py digits                    # needs no download; about two minutes on two cores
    python reproduce.py cifar10                   # the papers' recipes; hours on a CPU. First: python data/download.py cifar10 ood 300k
    python reproduce.py cifar10 --preset quick    # the same with a short schedule
    python reproduce.py cifar10 --table sr        # a paper's table from the snapshots that are there -> CIFAR/RESULTS.md, .csv, .tex
    python reproduce.py cifar10 --table all --train    # every table; snapshots that are missing are trained with the papers' recipes
    python reproduce.py cifar10 --sweep           # SR's alpha, chosen on ID validation images and generated noise
    python reproduce.py cifar10 --ablation        # SR with one thing changed at a time, and whole runs that are there: what does what

Each stage is the command a user would type, and is printed. A stage whose snapshot is there with this recipe is not run
again, an interrupted one goes on; anything else is trained, and what it replaces is moved aside, not deleted.
"""
import argparse
import csv
import functools
import io
import sys
import time

from utils import (
    ablation,
    datasets,
    figures,
    options,
    plots,
    recipes,
    results,
    runs,
    runtime,
    snapshots,
    sweep,
    tables,
    training,
)
from utils.losses import LOSSES

METHODS = (("MSP", None, "msp"), ("ODIN", None, "odin"), ("Mahalanobis", None, "mahalanobis"), ("Energy", None, "energy"),
           ("SR", "sr", "energy"), ("SROE", "sroe", "energy"))
TABLE_METHODS = (*METHODS[:5], ("OE", "oe", "msp"), ("Energy fine-tune", "energy", "energy"), METHODS[5])


def parse(argv):
    parser = options.Parser(prog="reproduce.py", description=__doc__)
    parser.add_argument("dataset", nargs="?", default="digits", help=f"{', '.join(datasets.ID_SETS)} (default: digits)")
    parser.add("--fresh", action="store_true", help="train every stage anew")
    parser.add("--arch", default=None, metavar="NAME", help="default: wrn; with --table: every network of the table, or only the one named")
    parser.add("--seed", type=options.count, default=1, help="of training (default: 1)")
    parser.add("--preset", default="paper", choices=tuple(recipes.PRESETS), help="recipes (default: paper)")
    parser.add("--table", default=None, choices=(*tables.TABLES, "all"), help="a paper's table instead of the chain")
    parser.add("--train", action="store_true", help="with --table: train the snapshots that are missing")
    parser.add("--sweep", action="store_true", help="fine-tune with SR at several alphas and compare them; no OOD test set is seen")
    parser.add("--ablation", action="store_true", help="fine-tune with SR, with one thing changed at a time, and score the OOD sets")
    options.add_common(parser)
    args = parser.parse_args(argv)
    options.known_dataset(args.dataset, args.id, datasets.ID_SETS)
    chosen = [f"--{name}" for name in ("table", "sweep", "ablation") if getattr(args, name)]
    if len(chosen) > 1:
        parser.error(f"{' and '.join(chosen)}: one at a time")
    if args.train and not args.table:
        parser.error("--train goes with --table")
    if (args.sweep or args.ablation) and (args.fresh or args.preset != "paper"):
        parser.error(f"{chosen[0]} has a recipe of its own: no --fresh and no --preset")
    if args.table and args.id:
        parser.error("--table is about the papers' images: no --id")
    args.one_network, args.arch = args.arch is not None, args.arch or "wrn"
    return args


def main(argv=None):
    args = parse(argv)
    for chosen, study in ((args.sweep, sweep), (args.ablation, ablation)):
        if chosen:
            return study.run(args)
    return paper_table(args) if args.table else chain(args)


def chain(args):
    """Train, fine-tune, score; one table, one figure."""
    start = time.perf_counter()
    datasets.check_chain(args.dataset, args.data, own_id=args.id is not None)
    stem = f"{args.dataset}_{training.arch_name(args.arch)}"
    pretrained = train(["baseline.py"], "pretrained", f"{stem}_pretrained", "pretrain", None, args)
    losses = list(dict.fromkeys(loss for _, loss, _ in METHODS if loss))
    tuned = {loss: train(["tune.py", "--loss", loss], f"tune_{loss}", f"{stem}_s{args.seed}_tune", "tune", loss, args, pretrained)
             for loss in losses}

    baseline = evaluate(pretrained, [score for _, loss, score in METHODS if not loss], args)
    measured = {loss: evaluate(file, [LOSSES[loss].score], args) for loss, file in tuned.items()}
    rows = [(method, (measured[loss] if loss else baseline), score) for method, loss, score in METHODS]
    write_table(args, rows)
    groups = [(method, figures.vectors_to_show(*result, score)) for method, result, score in rows if method in ("Energy", "SR", "SROE")]
    figure = plots.plot_densities(groups, figures.FOLDER / f"{args.dataset}_densities", figures.ENERGY_LABEL)
    print(f"figure: {runtime.short_path(figure[0])}\n{time.perf_counter() - start:.0f} seconds in all")


def paper_table(args):
    """Score the snapshots that a paper's table needs, render all tables again, draw the figures."""
    if args.dataset not in ("cifar10", "cifar100"):
        raise runtime.UserError(f"there is no published table of {args.dataset}. There is: cifar10, cifar100")
    names = list(tables.TABLES) if args.table == "all" else [args.table]
    keys = [key for name in names for key in tables.published_rows(tables.TABLES[name], args.dataset)]
    wanted = {}    # (network, stage) -> the scores its rows need, and the two that figures show
    for _, network, score, stage in keys:
        if tables.why_not(score, stage) == "not measured":
            wanted.setdefault((network, stage), {"msp": 0, "energy": 0})[score] = 0
    there = list(dict.fromkeys(network for network, _ in wanted))
    networks = [args.arch] if args.one_network else there
    if not set(networks) <= set(there):
        raise runtime.UserError(f"--table {args.table} has no row of {args.arch} that can be measured. There is: {', '.join(there)}")
    measured = {}
    for network in networks:
        given = argparse.Namespace(**{**vars(args), "arch": network})
        pretrained = snapshot_of("pretrained", given)
        for stage in [stage for of, stage in wanted if of == network] if pretrained else []:
            file = pretrained if stage == "pretrained" else snapshot_of(stage, given, pretrained)
            if file:
                measured[network, stage] = evaluate(file, list(wanted[network, stage]), given)
    if not measured:
        raise runtime.UserError(f"there is no snapshot of {args.dataset} to measure. Run: python reproduce.py {args.dataset} --table {args.table} --train")
    made = tables.write()
    rows = [(method, *measured["wrn", loss or "pretrained"], score) for method, loss, score in TABLE_METHODS if ("wrn", loss or "pretrained") in measured]
    rows = [row for row in rows if any(entry["score"] == row[3] for entry in row[1]["scores"])]
    if rows:
        write_table(args, [(method, (result, path), score) for method, result, path, score in rows])
        made += [f"{path}.png" for path in figures.draw(args.dataset, rows, args)]
    for path in made:
        print(f"-> {runtime.short_path(path)}")


def snapshot_of(stage, args, pretrained=None):
    """The whole run's snapshot of a stage, made from ``pretrained``; with --train it is trained where it is missing, else None."""
    folder = stage if stage == "pretrained" else f"tune_{stage}"
    stem = f"{args.dataset}_{args.arch}_" + ("pretrained" if pretrained is None else f"s{args.seed}_tune")
    reason = f"there is no snapshot {folder}/{stem}"
    if any(f.parent.name == folder and snapshots.stem_of(f) == stem for f in snapshots.all_snapshots()):
        file = snapshots.find_one(f"{folder}/{stem}")
        description = snapshots.describe(file, snapshots.read_weights(file))
        if args.train and args.fresh:
            reason = f"{snapshots.short_name(file)} is trained anew"
        elif not snapshots.is_complete(description):
            reason = f"{snapshots.short_name(file)} is not of a whole run"
        elif recipes.departures(description):
            reason = f"{snapshots.short_name(file)} has another recipe: " + ", ".join(
                f"{key} {value}, not {usual}" for key, (value, usual) in recipes.departures(description).items())
        elif pretrained is None and description.get("seed") != args.seed:
            reason = f"{snapshots.short_name(file)} is of seed {description.get('seed')}, not {args.seed}"
        elif pretrained and description.get("parent_sha256") != runtime.sha256_file(pretrained):
            reason = f"{snapshots.short_name(file)} was not made from {snapshots.short_name(pretrained)}"
        else:
            return file
    print(f"note: {reason}" + ("" if args.train else "; its rows are not measured (--train trains it)"), file=sys.stderr)
    if not args.train:
        return None
    command = ["baseline.py"] if pretrained is None else ["tune.py", "--loss", stage]
    return train(command, folder, stem, "pretrain" if pretrained is None else "tune", None if pretrained is None else stage, args, pretrained)


def train(command, folder, stem, stage, loss, args, parent=None):
    """Path of a stage's snapshot, trained unless it is there: with this recipe, and made from this parent."""
    place = snapshots.SNAPSHOTS / folder
    recipe = recipes.resolve(stage, args.dataset, loss, args.preset, args.arch) | {"seed": args.seed, "arch": args.arch}
    last = snapshots.snapshot_path(place, stem, recipe["epochs"] - 1)
    sources = {"data": id_fingerprint(args), "parent": parent and runtime.sha256_file(parent), "outliers": outlier_fingerprint(args, loss)}
    if not args.fresh and is_of(last, recipe, sources):
        print(f"{snapshots.short_name(last)} is there (--fresh trains it anew)")
        return last
    chosen = {"arch": "wrn", "seed": 1, "preset": "paper"}
    command = [*command, args.dataset, *(word for key, usual in chosen.items() if getattr(args, key) != usual
                                         for word in (f"--{key}", str(getattr(args, key))))]
    if parent and parent.parent != snapshots.SNAPSHOTS / "pretrained":
        command += ["--load", str(parent)]
    going_on = not args.fresh and runs.goes_on(place, stem, recipe | {"preset": args.preset, "precision": args.precision}, sources)
    shell([*command, *["--resume"] * going_on], args)
    return last


def is_of(file, recipe, sources):
    """Whether a snapshot is there and was trained with this recipe on these images and outliers and, if fine-tuned, from this pre-trained one."""
    if not file.exists():
        return False
    description = snapshots.describe(file, snapshots.read_weights(file))
    made = {"data": description.get("data_fingerprint"), "parent": description.get("parent_sha256"),
            "outliers": (description.get("outliers") or {}).get("fingerprint")}
    return runs.agrees(description.get("recipe", {}), recipe) and made == sources


@functools.lru_cache(maxsize=1)
def id_images(*given):
    """(fingerprint, side) of the ID training images."""
    images = datasets.load_id(given[0], "train", *given[1:])
    return images.fingerprint, images.images.shape[-1]


def id_fingerprint(args):
    """Fingerprint of the ID training images that these options name."""
    return id_images(args.dataset, args.data, args.id, args.image_size, args.skip_bad)[0]


def outlier_fingerprint(args, loss):
    """Fingerprint of the auxiliary outliers of a loss, None for one without."""
    if loss is None or not LOSSES[loss].outliers:
        return None
    side = id_images(args.dataset, args.data, args.id, args.image_size, args.skip_bad)[1]
    return datasets.load_outliers(argparse.Namespace(**{**vars(args), "outliers": None, "image_size": side})).fingerprint


def evaluate(file, score_names, args):
    """Run test.py and return (its result, the path of its files without suffix)."""
    shell(["test.py", "--model", snapshots.short_name(file), "--score", ",".join(score_names), "--save-scores"], args)
    found = [path for path in results.RESULTS.glob(f"{results.result_name(file, score_names, 'paper')}*.json")
             if results.read_result(path)["snapshot"]["sha256"] == runtime.sha256_file(file)]
    path = max(found, key=lambda path: path.stat().st_mtime_ns)
    return results.read_result(path), path.with_suffix("")


def shell(command, args):
    """Run a script of this folder as a user would; its errors are already on stderr, so only its status is passed on."""
    runtime.run_script([*command, *options.common_words(args)])


def write_table(args, rows):
    """Print the final table (rows: methods; columns: the sets and their mean) and write it as CSV, that of another seed than 1 beside it."""
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
    path = results.RESULTS / f"{args.dataset}{f'_s{args.seed}' if args.seed != 1 else ''}_table.csv"
    runtime.write_text(path, text.getvalue())
    print(f"table: {runtime.short_path(path)}")


if __name__ == "__main__":
    sys.exit(runtime.run(main))
