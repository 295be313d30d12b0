"""Stage 3: score in-distribution against out-of-distribution images and print the papers' table.

    python test.py --model cifar10_wrn_pretrained --score energy
    python test.py --model cifar10_wrn_s1_tune --score energy            # in every tune_LOSS folder
    python test.py --model tune_sroe/cifar10_wrn_s1_tune --score all     # one pass an image set
    python test.py --model PATH.pt --score knn:k=100,mymodule:function --ood svhn,folder:PATH
    python test.py --model cifar10_wrn_pretrained --images FOLDER        # is each image in or out?
    python test.py --model cifar10_wrn_pretrained --export detector.onnx # or .pt2
    python test.py --outputs TRAIN.npz ID.npz OOD.npz                    # of any other network
    python test.py --model cifar10_wrn_pretrained --compare energy,msp   # or two snapshots: A.pt,B.pt
    python test.py --list-scores

The table: FPR95, AUROC, AUPR (ID positive), mean ± sd over 10 draws of 2,000 OOD images.
"""

import utils.interrupt  # noqa: F401  Ctrl-C is one line from here on

# isort: split
import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from utils import loaders, runtime, scores
from utils.evaluation import (
    classes,
    compare,
    export,
    given,
    options,
    printed,
    saving,
    several,
    verdicts,
)
from utils.evaluation import report as results
from utils.evaluation.case import Case, Rows, choose_scores, load_sets
from utils.evaluation.load import load_network
from utils.evaluation.record import about_images, chance_note, id_error_of, make_record
from utils.evaluation.validation import tune_scores


def parse(argv: list[str] | None) -> argparse.Namespace:
    return options.parse(argv, __doc__)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.list_scores:
        print(scores.format_list())
        return
    runtime.use_deterministic(args.deterministic)
    runtime.make_folder(args.save)  # before the work, not after it
    loaders.use_streaming(args.stream, args.prefetch)
    measured = []
    for file in files(args):
        if args.export:
            print("\n" + export.export(file, args))
        if args.images:
            judge(file, args)
        if args.images or args.export:
            continue
        start = time.perf_counter()
        case = load(file, args)
        id_error = outputs(case)
        found = rows(case, id_error)
        made = report(case, found, id_error, time.perf_counter() - start)
        labels = case.network.outputs(case.sets.id).labels
        measured.append(compare.Measured(*made, found.vectors, labels))
    if args.compare:
        compare.report(measured, args)
    elif "," in (args.model or ""):
        several.report([one.record for one in measured], args.save, args.out_as_pos)


def files(args: argparse.Namespace) -> Iterable[Path | None]:
    """The snapshot files that are to be scored; [None] where --outputs gives their outputs."""
    if args.outputs:
        return [None]
    if folders := compare.folders(args):
        return folders
    found = results.announce(args.model or args.compare, args.load, args.download)
    return [export.only_one(list(found), args.export)] if args.export else found


def judge(file: Path, args: argparse.Namespace) -> None:
    """Each image of --images: in or out, by every score; a table, a CSV and two pictures."""
    from utils.paper import sheets  # matplotlib: only who draws imports it

    for found in verdicts.judge(file, args):
        print("\n" + verdicts.format_table(found))
        made = [verdicts.write_csv(found), sheets.draw_sheet(found), sheets.draw_histogram(found)]
        print(f"\nverdicts: {', '.join(str(runtime.short_path(path)) for path in made)}")


def load(file: Path | None, args: argparse.Namespace) -> Case:
    """The network of a snapshot, the scores, and the image sets they are to tell apart; or what
    --outputs gives in the place of network and images.
    """
    if args.outputs or compare.folders(args):
        return given.load(given.of_folder(file, args) if file else args)
    network, description = load_network(file, args)
    chosen = choose_scores(description, file, args)
    fitted = args.tune_scores or any("train" in score.needs for score in chosen)
    fitted = fitted or bool(args.save_outputs)
    sets = load_sets(description, file, args, fitted)
    loaders.check_fits(network.model, sets.id)
    return Case(file, description, network, sets, chosen, args)


def outputs(case: Case) -> float:
    """One pass an image set: logits (N,C), features (N,D) for all scores; the ID error, percent."""
    case.network.plan(case.sets.all())
    for images in case.shared_sets():
        case.network.outputs(images)
    if case.args.save_outputs:
        saving.save(case)
    id_error = id_error_of(case.network.outputs(case.sets.id))
    if doubt := chance_note(id_error, case):
        print(f"warning: {doubt}", file=sys.stderr)
    return id_error


def rows(case: Case, id_error: float) -> Rows:
    """All images' scores, larger = more OOD; their table: a row an OOD set, then the mean."""
    network, sets, chosen, grids = case.network, case.sets, case.scores, {}
    if case.args.tune_scores:
        dataset = case.description.get("dataset")
        chosen, grids = tune_scores(chosen, network, sets.train, dataset, sets.validation)
    found = Rows([], {}, grids)
    for score in chosen:
        try:
            with scores.as_user_error(score):
                if "train" in score.needs:
                    network.fit(score, sets.train)
                table, vectors = case.measure(score)
        except runtime.UserError as error:
            if not scores.names_all(case.args.score):  # else the other scores can still be had
                raise
            runtime.print_note(f"{score.label} is left out: {error}")
            continue
        found.add(score, table, vectors)
        print("\n" + printed.format_table(case, score, table, id_error))
    return found


def report(case: Case, found: Rows, id_error: float, seconds: float) -> tuple[Path, dict]:
    """Print the scores beside one another and write the result files."""
    print(printed.format_summaries(found.measured, case.out_as_pos), end="")
    path = results.result_path(case, [entry["score"] for entry in found.measured])
    record = make_record(case, found, id_error, seconds)
    if each := classes.by_class(case, found):
        record["id"]["classes"] = each
        if case.args.per_class:
            print("\n" + classes.format_classes(each))
    kept = {**found.vectors, **about_images(case)} if case.args.save_scores else None
    path = results.write_result(path, record, kept)
    print(f"\nresult: {runtime.short_path(path)}.json and .csv")
    return path, record


if __name__ == "__main__":
    sys.exit(runtime.run(main))
