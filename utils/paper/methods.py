"""The commands that train, fine-tune and score the methods of the tables,
as a user would type them.
"""

import argparse
import contextlib
import functools
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from utils import loaders, runtime, snapshots
from utils.evaluation import report
from utils.losses import LOSSES
from utils.training import files, meant, names, options, recipes

from . import figures, pages, plots, tables
from .tables import METHODS, TABLE_METHODS, USUAL, changed, file_name, unusual_words


def chain(args: argparse.Namespace) -> None:
    """Train, fine-tune, score; one table, one figure."""
    start = time.perf_counter()
    loaders.check_chain(args.dataset, args.data, own_id=args.id is not None)
    pretrained = train(None, args)
    losses = dict.fromkeys(loss for _, loss, _ in METHODS if loss)
    tuned = {loss: train(loss, args, pretrained) for loss in losses}

    baseline = evaluate(pretrained, [score for _, loss, score in METHODS if not loss], args)
    measured = {loss: evaluate(file, [LOSSES[loss].score], args) for loss, file in tuned.items()}
    rows = [
        (method, (measured[loss] if loss else baseline), score) for method, loss, score in METHODS
    ]
    write_table(args, rows)
    groups = [
        (method, figures.vectors_to_show(*result, score))
        for method, result, score in rows
        if score == "energy"
    ]
    figure = plots.plot_densities(
        groups, figures.FOLDER / file_name(args, "densities"), figures.ENERGY_LABEL
    )
    print(
        f"figure: {runtime.short_path(figure[0])}\n{time.perf_counter() - start:.0f} seconds in all"
    )


def paper_table(args: argparse.Namespace) -> None:
    """Score the snapshots that a paper's table needs, render all tables again, draw the figures."""
    if args.dataset not in tables.ID_SETS:
        raise runtime.UserError(
            f"there is no published table of {args.dataset}. There is: {', '.join(tables.ID_SETS)}"
        )
    names = list(tables.TABLES) if args.table == "all" else [args.table]
    keys = [
        key for name in names for key in tables.published_rows(tables.TABLES[name], args.dataset)
    ]
    wanted = {}  # (network, stage) -> the scores its rows need, and the two that figures show
    for _, network, score, stage in keys:
        if tables.why_not(score, stage) == "not measured":
            wanted.setdefault((network, stage), {"msp": 0, "energy": 0})[score] = 0
    there = list(dict.fromkeys(network for network, _ in wanted))
    networks = [args.arch] if args.one_network else there
    if not set(networks) <= set(there):
        raise runtime.UserError(
            f"--table {args.table} has no row of {args.arch} that can be measured. "
            f"There is: {', '.join(there)}"
        )
    measured = {}
    for network in networks:
        given = changed(args, arch=network)
        pretrained = snapshot_of("pretrained", given)
        for stage in [stage for of, stage in wanted if of == network] if pretrained else []:
            file = pretrained if stage == "pretrained" else snapshot_of(stage, given, pretrained)
            if file:
                measured[network, stage] = evaluate(file, list(wanted[network, stage]), given)
    if not measured:
        raise runtime.UserError(
            f"there is no snapshot of {args.dataset} to measure. Run: "
            f"python reproduce.py {args.dataset} --table {args.table} --train"
        )
    made = pages.write_published((tables.RECORDED, report.RESULTS))
    rows = [
        (method, *measured["wrn", loss or "pretrained"], score)
        for method, loss, score in TABLE_METHODS
        if ("wrn", loss or "pretrained") in measured
    ]
    rows = [row for row in rows if any(entry["score"] == row[3] for entry in row[1]["scores"])]
    if rows:
        write_table(args, [(method, (result, path), score) for method, result, path, score in rows])
        made += [f"{path}.png" for path in figures.draw(rows, args)]
    for path in made:
        print(f"-> {runtime.short_path(path)}")


def why_unfit(file: Path, args: argparse.Namespace, pretrained: Path | None) -> str | None:
    """What keeps a snapshot from being the paper's method; None if nothing does."""
    description = snapshots.read_description(file) or {}
    if args.train and args.fresh:
        return "is trained anew"
    if not snapshots.is_complete(description):
        return "is not of a whole run"
    if departed := recipes.departures(description):
        return "has another recipe: " + ", ".join(
            f"{key} {value}, not {usual}" for key, (value, usual) in departed.items()
        )
    if pretrained is None and description.get("seed") != args.seed:
        return f"is of seed {description.get('seed')}, not {args.seed}"
    if pretrained and description.get("parent_sha256") != runtime.sha256_file(pretrained):
        return f"was not made from {snapshots.short_name(pretrained)}"
    return None


def snapshot_of(
    stage: str, args: argparse.Namespace, pretrained: Path | None = None
) -> Path | None:
    """The whole run's snapshot of a stage, made from ``pretrained``; with --train it is trained
    where it is missing, else None.

    A run of the preset ``code`` counts, where its recipe is the paper's and the usual folder has
    none.
    """
    loss = None if stage == "pretrained" else stage
    folder, stem = place_of(loss, args)
    reasons = []
    for file in runs_of(folder, {stem, former_stem(loss, args)}):
        unfit = why_unfit(file, args, pretrained)
        if unfit is None:
            return file
        reasons.append(f"{snapshots.short_name(file)} {unfit}")
    reason = "; ".join(reasons) or f"there is no snapshot {folder}/{stem}"
    untrained = "" if args.train else "; its rows are not measured (--train trains it)"
    runtime.print_note(reason + untrained)
    return train(loss, args, pretrained) if args.train else None


def runs_of(folder: str, stems: set[str]) -> list[Path]:
    """The newest snapshot of every run in the folders of a stage that has one of these names, or
    departs from it: in each folder those of one's own before provided ones, the names themselves
    first, then the longest schedule.
    """
    newest = {}
    for file in snapshots.all_snapshots():
        stem, place = snapshots.stem_of(file), file.parent.name
        epoch = snapshots.epoch_of(file)
        if stem.endswith("_best") or not tables.is_folder_of(place, folder):
            continue
        if any(stem == name or snapshots.is_variant(stem, name) for name in stems):
            newest[place, stem] = max(newest.get((place, stem), (-2, file)), (epoch, file))
    found = [
        (place, file.is_relative_to(snapshots.PROVIDED), stem not in stems, -epoch, file)
        for (place, stem), (epoch, file) in newest.items()
    ]
    return [file for *_, file in sorted(found)]


def place_of(loss: str | None, args: argparse.Namespace) -> tuple[str, str]:
    """(usual folder, usual name) of the snapshots of a loss, or of pre-training."""
    stage = "tune" if loss else "pretrain"
    stem = names.usual_stem(stage, args.dataset, args.arch, args.seed)
    return f"tune_{loss}" if loss else "pretrained", stem


def former_stem(loss: str | None, args: argparse.Namespace) -> str:
    """The name that former versions gave to every run of a loss, or of pre-training."""
    stage = "tune" if loss else "pretrain"
    return names.former_stem(stage, args.dataset, args.arch, args.seed)


def train(loss: str | None, args: argparse.Namespace, parent: Path | None = None) -> Path:
    """Path of the snapshot of a loss, or of pre-training, trained unless it is there:
    with this recipe, and made from this parent.

    A preset that changes the stage has folders of its own, ``tune_sr_quick``: it takes no place of
    a run of the papers' recipe.
    """
    stage, command = (
        ("tune", ["tune.py", "--loss", loss]) if loss else ("pretrain", ["baseline.py"])
    )
    folder, _ = place_of(loss, args)
    recipe, usual = (
        recipes.resolve(stage, args.dataset, loss, preset, args.arch)
        for preset in (args.preset, USUAL["preset"])
    )
    preset = USUAL["preset"] if recipe == usual else args.preset
    folder += f"_s{args.seed}" * getattr(args, "own_folders", False)
    place = snapshots.SNAPSHOTS / (folder if recipe == usual else f"{folder}_{preset}")
    recipe |= {"seed": args.seed, "arch": args.arch}
    stems = (
        names.stem_of(
            stage,
            args.dataset,
            loss or "ce",
            recipe | {"preset": preset, "precision": args.precision},
            {**vars(args), "save": place},
            parent,
        ),
        former_stem(loss, args),
    )
    command += [args.dataset]
    command += unusual_words({"arch": args.arch, "seed": args.seed, "preset": preset})
    if place.name not in ("pretrained", f"tune_{loss}"):
        command += ["--save", f"./snapshots/{place.name}"]
    if parent and not is_default_parent(parent, args):
        command += ["--load", str(parent)]
    command += options.common_words(args)
    beside = {"preset": preset, "precision": args.precision}
    sources = sources_of(args, loss, parent)
    return train_unless_there(command, place, stems, recipe, sources, args.fresh, beside)


def train_unless_there(
    command: list,
    place: Path,
    stems: Iterable[str],
    recipe: dict,
    sources: dict,
    fresh: bool = False,
    beside: dict | None = None,
) -> Path:
    """Path of the last snapshot of a run in ``place`` with one of these names, the first its own
    and the others those of former versions, made with this recipe and from these sources.

    The command trains it unless it is there; an interrupted run that has what is ``beside`` the
    recipe too goes on. ``fresh``: it is trained anew.
    """
    lasts = {stem: snapshots.snapshot_path(place, stem, recipe["epochs"] - 1) for stem in stems}
    for last in [] if fresh else lasts.values():
        if is_of(last, recipe, sources):
            print(f"{snapshots.short_name(last)} is there")
            return last
    going_on = [
        last
        for stem, last in lasts.items()
        if not fresh and files.goes_on(place, stem, {**recipe, **(beside or {})}, sources)
    ]
    run_script([*command, *["--resume"] * bool(going_on)])
    return (going_on or list(lasts.values()))[0]


def is_default_parent(parent: Path, args: argparse.Namespace) -> bool:
    """Whether tune.py starts from this snapshot where no --load is typed."""
    with contextlib.suppress(runtime.UserError):  # none, or several
        return meant.find_parent(changed(args, load=None), {}) == parent
    return False


def is_of(file: Path, recipe: dict, sources: dict) -> bool:
    """Whether a snapshot is there and was trained with this recipe and from these sources: data,
    outliers and, if fine-tuned, the pre-trained parent.
    """
    if not file.exists():
        return False
    description = snapshots.read_description(file) or {}
    made = {
        "data": description.get("data_fingerprint"),
        "parent": description.get("parent_sha256"),
        "outliers": (description.get("outliers") or {}).get("fingerprint"),
    }
    agreed = files.agrees(description.get("recipe", {}), recipe)
    return agreed and sources.items() <= made.items()


def sources_of(args: argparse.Namespace, loss: str | None, parent: Path | None) -> dict:
    """What a training's result depends on beside its recipe, as ``is_of`` compares it."""
    given = loaders.given_id(args)
    data, side = id_images(args.dataset, args.data, given, args.image_size, args.skip_bad)
    outliers = None
    if loss and LOSSES[loss].outliers:
        outliers = loaders.load_outliers(changed(args, outliers=None), side).fingerprint
    return {"data": data, "parent": parent and runtime.sha256_file(parent), "outliers": outliers}


@functools.lru_cache(maxsize=1)
def id_images(dataset: str, *given: object) -> tuple[str, int]:
    """(fingerprint, side) of the ID training images."""
    images = loaders.load_id(dataset, "train", *given)
    return images.fingerprint, images.images.shape[-1]


def evaluate(file: Path, score_names: list[str], args: argparse.Namespace) -> tuple[dict, Path]:
    """Run test.py and return (its result, the path of its files without suffix)."""
    words = ["--model", snapshots.short_name(file), "--score", ",".join(score_names)]
    run_script(["test.py", *words, "--save-scores", *options.common_words(args)])
    found = [
        path
        for path in report.RESULTS.glob(f"{report.result_name(file, score_names, 'paper')}*.json")
        if report.read_result(path, True)["snapshot"]["sha256"] == runtime.sha256_file(file)
    ]
    path = newest(found)
    return report.read_result(path), path.with_suffix("")


def newest(files: Iterable[Path]) -> Path | None:
    return max(files, key=lambda path: path.stat().st_mtime_ns, default=None)


def score_apart(file: Path, scores: str, place: Path, words: list) -> dict:
    """The result of test.py with these scores on a snapshot, written to a folder of its own among
    the caches.
    """
    run_script(["test.py", "--model", file, "--score", scores, *words, "--save", place])
    return report.read_result(newest(place.glob("*.json")), True)


def whole_runs() -> Iterator[tuple[Path, dict]]:
    """(file, description) of the last snapshot of each run that has come to its end."""
    for file in snapshots.all_snapshots():
        # without a description nothing tells how it was made
        description = snapshots.read_description(file) or {}
        if snapshots.is_complete(description) and snapshots.epoch_of(file) >= 0:
            yield file, description


def write_table(args: argparse.Namespace, rows: list[tuple]) -> None:
    """Print the final table (rows: methods; columns: the sets and their
    mean) and write it as CSV.
    """
    table = [
        {**report.entry_of(result, score), "score": method, "error": result["id"]["error"]}
        for method, (result, _), score in rows
    ]
    for metric, title in (("fpr95", "FPR95"), ("auroc", "AUROC")):
        print("\n" + report.format_summary(table, metric, title))
    print("\nID error: " + ", ".join(f"{row['score']} {row['error']:.2f} %" for row in table))
    lines = []
    for row in table:
        for cell in [*row["sets"], row["average"]]:
            line = {"method": row["score"], "id_error": f"{row['error']:.4f}"}
            line |= {"set": cell["set"], "n": cell.get("n", "")}
            for metric in ("fpr95", "auroc", "aupr_in"):
                line[metric] = f"{cell[metric]:.4f}"
                line[f"{metric}_sd"] = f"{cell['sd'][metric]:.4f}"
            lines.append(line)
    path = report.RESULTS / f"{file_name(args, 'table')}.csv"
    runtime.write_text(path, report.csv_text(lines))
    print(f"table: {runtime.short_path(path)}")


def run_script(command: list) -> None:
    """Print and run a script of the project, [script, word, ...]; SystemExit with its status if it
    fails, its error being on stderr.
    """
    script, *words = map(str, command)
    print(f"\n$ python {' '.join([script, *words])}", flush=True)
    process = subprocess.Popen([sys.executable, "-u", str(runtime.ROOT / script), *words])
    try:
        status = process.wait()
    except KeyboardInterrupt:  # Ctrl-C reached the script too, which says how to go on
        process.wait()
        raise KeyboardInterrupt("The same command goes on with what is there") from None
    if status:
        raise SystemExit(status)
