"""Short fine-tunings with SR that tell what its parts do:
``reproduce.py DATASET --sweep`` and ``--ablation``.

The sweep compares alphas on ID validation images and generated noise; no OOD test set is seen. Some
of the training images are held out for it, others fine-tuned on. Pre-training has seen the held-out
images too, so their accuracy is not a test accuracy; alphas are compared with one another only. The
ablation changes one thing at a time and scores the OOD test sets, and whole runs of SR from the
same network beside them: it explains SR's numbers, and nothing is chosen by it. What has been
fine-tuned is kept, so that the same command goes on after an interruption.
"""

import argparse
import io
from pathlib import Path

import numpy as np

from utils import loaders, runtime, snapshots
from utils.evaluation import printed, report
from utils.evaluation.validation import noise_sets
from utils.training import meant, names, options, recipes

from . import plots, studied
from .commands import score_apart
from .trained import train_unless_there, whole_runs
from .usual import changed, file_name

# 0 is plain fine-tuning, to tell the L1 term from the extra epochs
ALPHAS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05)
IMAGES = 10_000  # fine-tuned on at most, in EPOCHS epochs of a complete schedule
EPOCHS = 2
HELD_OUT = 2500  # validation images at most, and a tenth of all at most
# options that have done their work once ``prepare`` has written the images
PREPARED = ("id", "image_size", "skip_bad")
LIMIT = 0.5  # percent of validation accuracy that a recommended alpha may cost
# points of FPR95 that a validation set of this size cannot tell apart: about its standard error
TIE = 0.5
VARIANTS = {  # of the ablation: options of tune.py
    "SR": {"alpha": 0.02},
    "without the L1 norm (alpha 0)": {"alpha": 0.0},
    "alpha 0.05": {"alpha": 0.05},
    "without dropout": {"droprate": 0.0},
    "with the random crop": {"padding": 4},
    "without the random crop": {"padding": 0},
    "with the crop, without the L1 norm": {"padding": 4, "alpha": 0.0},
    "without the crop and the L1 norm": {"padding": 0, "alpha": 0.0},
    "learning rate 0.01": {"learning_rate": 0.01},
}


def sweep(args: argparse.Namespace) -> None:
    """Fine-tune and score every alpha, print the table, write
    CIFAR/results/{dataset}_sweep_alpha.json and the figure.
    """
    parent = find_parent(args)
    folder, noise, count = prepare(args, parent)
    words = ["--id", folder, "--protocol", "full"]
    words += ["--ood", ",".join(f"folder:{path}" for path in noise)]
    words += options.common_words(args, PREPARED)
    rows = []
    for alpha in ALPHAS:
        file = fine_tune(args, folder, parent, alpha=alpha)
        result = evaluate(file, words)
        entry = result["scores"][0]
        row = {"alpha": alpha} | {key: result["id"][key] for key in ("accuracy", "mean_l1")}
        row |= {key: entry["average"][key] for key in ("fpr95", "auroc")}
        rows.append(row | {"sets": entry["sets"], **provenance(file, result)})
    best = recommend(rows)
    rule = (
        f"accuracy within {LIMIT} of alpha 0, FPR95 within {TIE} of the lowest, "
        "then the highest AUROC"
    )
    record = shared_record(args, parent, count, result)
    record |= {"rows": rows, "recommended": best, "rule": rule}
    print("\n" + studied.sweep_table(record))
    path = write_study(args, "sweep_alpha", record)
    titles = {
        "accuracy": "Accuracy (%)",
        "mean_l1": "Mean ‖h‖₁",
        "fpr95": "FPR95, noise (%)",
        "auroc": "AUROC, noise (%)",
    }
    figure, _ = plots.plot_sweep(
        [row["alpha"] for row in rows],
        {title: [row[key] for row in rows] for key, title in titles.items()},
        runtime.CIFAR / "figures" / path.stem,
        best,
    )
    print(f"-> {runtime.short_path(path)}\n-> {runtime.short_path(figure)}")


def ablation(args: argparse.Namespace) -> None:
    """Fine-tune and score every variant, print the table, write
    CIFAR/results/{dataset}_ablation.json.
    """
    parent = find_parent(args)
    folder, _, count = prepare(args, parent)
    words, whole = options.common_words(args), whole_sr_runs(args, parent)
    done, rows, recipes_done = [("before", {}, parent)], [], []
    for name, changes in VARIANTS.items():
        recipe = recipe_of(args, changes)
        if recipe not in recipes_done:  # what the usual recipe has so already is no variant of it
            recipes_done.append(recipe)
            done.append((name, changes, fine_tune(args, folder, parent, **changes)))
    for name, changes, file in done + whole:
        result = evaluate(file, words)
        row = {"name": name, "changes": changes}
        row |= {key: result["id"][key] for key in ("error", "mean_l1")}
        row |= {key: result["scores"][0][key] for key in ("sets", "average")}
        rows.append(row | provenance(file, result))
    print("\n" + printed.format_summary([{**row, "score": row["name"]} for row in rows]))
    record = shared_record(args, parent, count, result)
    path = write_study(args, "ablation", record | {"rows": rows})
    print(f"-> {runtime.short_path(path)}")


def whole_sr_runs(args: argparse.Namespace, parent: Path) -> list[tuple[str, dict, Path]]:
    """(name, what its recipe has otherwise, path) of SR's finished runs on all images from the
    pre-trained snapshot ``parent``.
    """
    found, wanted = [], ("sr", args.seed, runtime.sha256_file(parent))
    for file, made in whole_runs():
        if (made.get("loss"), made.get("seed"), made.get("parent_sha256")) == wanted:
            changes = {key: value for key, (value, _) in recipes.departures(made).items()}
            name = f"whole run of SR, {made['recipe']['epochs']} epochs of "
            name += f"{made['train_images']:,} images"
            words = [name, *(f"{key} {value}" for key, value in changes.items())]
            found.append((", ".join(words), changes, file))
    return sorted(found, key=lambda run: len(run[1]))


def provenance(file: Path, result: dict) -> dict:
    """What a row says of its own making: which network, how and when it was trained,
    what it was scored on and by what.
    """
    description = snapshots.read_description(file) or {}
    return {
        "snapshot": result["snapshot"]["sha256"],
        "trained": {key: description.get(key) for key in ("written", "computed", "versions")},
        **{key: result[key] for key in ("precision", "machine", "seconds")},
    }


def scoring_of(args: argparse.Namespace, result: dict) -> dict:
    """What all rows of a study share of how they were scored; ``result`` is one row's."""
    return {
        "arguments": {key: runtime.portable(value) for key, value in vars(args).items()},
        "id": {key: result["id"][key] for key in ("name", "images", "fingerprint")},
        **{key: result[key] for key in ("ood", "num_to_avg")},
    }


def shared_record(args: argparse.Namespace, parent: Path, count: int, result: dict) -> dict:
    """What all rows of a study of short fine-tunings share; ``count``: of the training images;
    ``result`` is one row's.
    """
    return {
        **scoring_of(args, result),
        "arch": args.arch,
        "seed": args.seed,
        "parent": runtime.sha256_file(parent),
        "parent_name": snapshots.short_name(parent),
        "images": count,
        "epochs": EPOCHS,
    }


def write_study(args: argparse.Namespace, study: str, record: dict) -> Path:
    """Write a study's result file and return its path."""
    path = report.RESULTS / f"{file_name(args, study)}.json"
    runtime.write_json(path, record)
    return path


def find_parent(args: argparse.Namespace) -> Path:
    """Path of the pre-trained snapshot that short fine-tunings start from; UserError if its
    training is not at its end.
    """
    file = meant.find_parent(changed(args, load=None), {})
    description = snapshots.read_description(file) or {}
    if description.get("recipe") and not snapshots.is_complete(description):
        raise runtime.UserError(
            f"{snapshots.short_name(file)} is not of a whole run. Finish it: "
            f"{snapshots.training_command('baseline.py', args.dataset, bool(args.id))} --resume"
        )
    return file


def fine_tune(args: argparse.Namespace, folder: Path, parent: Path, **changes: float) -> Path:
    """Path of the snapshot of a short SR fine-tuning with these options of tune.py changed;
    made unless it is there.
    """
    place = snapshots.SWEEP / "_".join(
        [folder.name, *(f"{key}_{value:g}" for key, value in changes.items())]
    )
    recipe = recipe_of(args, changes)
    whole = recipes.resolve("tune", args.dataset, "sr", "paper", args.arch) | recipe
    whole["arch"] = args.arch
    made = names.Made("tune", args.dataset, "sr", whole, {"save": place}, parent)
    stems = (names.stem_of(made), names.former_stem("tune", args.dataset, args.arch, args.seed))
    given = {"id": folder, **changes, "epochs": EPOCHS, "load": parent, "save": place}
    given |= {"arch": args.arch, "seed": args.seed}
    words = [word for key, value in given.items() for word in (f"--{key}", value)]
    command = ["tune.py", args.dataset, *words, *options.common_words(args, PREPARED)]
    # the folder's name has the images' fingerprint
    sources = {"parent": runtime.sha256_file(parent)}
    return train_unless_there(command, place, stems, recipe, sources)


def recipe_of(args: argparse.Namespace, changes: dict) -> dict:
    """The options that tell one short fine-tuning from another;
    the network's own come from the pre-trained snapshot.
    """
    recipe = {**recipes.resolve("tune", args.dataset, "sr", "paper", args.arch), **changes}
    recipe.update(epochs=EPOCHS, seed=args.seed, precision=args.precision)
    others = ("arch", "layers", "widen_factor", "test_bs")
    return {key: value for key, value in recipe.items() if key not in others}


def evaluate(file: Path, words: list) -> dict:
    """The result of test.py with the energy score on a snapshot."""
    place = runtime.CIFAR / "cache" / "sweep" / runtime.sha256_file(file)[:16]
    return score_apart(file, "energy", place, words)


def prepare(args: argparse.Namespace, parent: Path) -> tuple[Path, list[Path], int]:
    """(folder with train.npz and test.npz made from the training images, paths of noise sets made
    from test.npz, images in train.npz).

    Images of one's own are brought to the size that the network was trained at.
    """
    size = args.image_size
    if size is None and args.id:
        size = (snapshots.read_description(parent) or {}).get("image_size")
    given = loaders.given_id(args)
    images = loaders.load_id(args.dataset, "train", args.data, given, size, args.skip_bad)
    if len(images) < 20:
        raise runtime.UserError(
            f"{images.source} has {len(images)} training images; "
            "a tenth is held out, so 20 are the least"
        )
    order = np.random.default_rng(args.seed).permutation(len(images))
    held = min(HELD_OUT, len(images) // 10)
    folder = runtime.make_folder(
        runtime.DATA / "cache" / f"sweep_{args.dataset}_{args.seed}_{images.fingerprint[:8]}"
    )
    validation = images.subset(np.sort(order[:held]), "validation")
    train = images.subset(np.sort(order[held : held + IMAGES]), "train")
    noises = {noise.name.replace(" ", "_"): noise for noise in noise_sets(validation, args.seed)}
    for name, part in {"test": validation, "train": train, **noises}.items():
        arrays = {"images": part.images.permute(0, 2, 3, 1).numpy()}
        if part.labels is not None:
            arrays["labels"] = part.labels.numpy()
            if images.classes:
                arrays["classes"] = np.array(images.classes)
        if not (folder / f"{name}.npz").exists():
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            runtime.write_bytes(folder / f"{name}.npz", buffer.getbuffer())
    return folder, [folder / f"{name}.npz" for name in noises], len(train)


def recommend(rows: list[dict]) -> float:
    """Of the alphas that cost at most LIMIT percent of accuracy and are within TIE of the lowest
    FPR95 the one with the highest AUROC.
    """
    plain = next(row for row in rows if row["alpha"] == 0)
    accurate = [row for row in rows if row["accuracy"] >= plain["accuracy"] - LIMIT]
    lowest = min(row["fpr95"] for row in accurate)
    return max(
        (row for row in accurate if row["fpr95"] <= lowest + TIE), key=lambda row: row["auroc"]
    )["alpha"]
