"""SR's alpha on ID validation images and generated noise: ``python reproduce.py cifar10 --sweep``. No OOD test set is seen.

Some of the training images are held out for validation, others fine-tuned on, shortly. Pre-training has seen the held-out
images too, so their accuracy is not a test accuracy; alphas are compared with one another only. What has been fine-tuned
is kept, so that the same command goes on after an interruption.
"""
import io

import numpy as np

from utils import loaders, runtime, snapshots
from utils.evaluation import report
from utils.evaluation.validation import noise_sets
from utils.training import arch_name, files, options

from . import plots
from .methods import run_script

ALPHAS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05)    # 0 is plain fine-tuning, to tell the L1 term from the extra epochs
IMAGES = 10_000      # fine-tuned on at most, in EPOCHS epochs of a complete schedule
EPOCHS = 2
HELD_OUT = 2500      # validation images at most, and a tenth of all at most
PREPARED = ("id", "image_size", "skip_bad")    # options that have done their work once ``prepare`` has written the images
LIMIT = 0.5          # percent of validation accuracy that a recommended alpha may cost
TIE = 0.5            # points of FPR95 that a validation set of this size cannot tell apart: about its standard error


def run(args):
    """Fine-tune and score every alpha, print the table, write CIFAR/results/{dataset}_sweep_alpha.json and the figure."""
    parent = find_parent(args)
    folder, noise, count = prepare(args, parent)
    rows = []
    for alpha in ALPHAS:
        file = fine_tune(args, folder, parent, alpha=alpha)
        result = evaluate(file, "--id", folder, "--protocol", "full", "--ood", ",".join(f"folder:{path}" for path in noise),
                          *options.common_words(args, PREPARED))
        entry = result["scores"][0]
        rows.append({"alpha": alpha, "accuracy": result["id"]["accuracy"], "mean_l1": result["id"]["mean_l1"], "fpr95": entry["average"]["fpr95"],
                     "auroc": entry["average"]["auroc"], "sets": entry["sets"], "snapshot": result["snapshot"]["sha256"]})
    best = recommend(rows)
    print("\n" + format_rows(rows, best))
    record = {**provenance(args, parent, count, result), "rows": rows, "recommended": best,
              "rule": f"accuracy within {LIMIT} of alpha 0, FPR95 within {TIE} of the lowest, then the highest AUROC"}
    path = report.RESULTS / f"{study_name(args, 'sweep_alpha')}.json"
    runtime.write_json(path, record)
    figure = plots.plot_sweep([row["alpha"] for row in rows], {
        "Accuracy (%)": [row["accuracy"] for row in rows], "Mean ‖h‖₁": [row["mean_l1"] for row in rows],
        "FPR95, noise (%)": [row["fpr95"] for row in rows], "AUROC, noise (%)": [row["auroc"] for row in rows]}, runtime.CIFAR / "figures" / study_name(args, "sweep_alpha"), best, xlabel="alpha, weight of the L1 norm")
    print(f"-> {runtime.short_path(path)}\n-> {runtime.short_path(figure[0])}")


def provenance(args, parent, count, result):
    """What a study's result file says of its making; ``result`` is test.py's of one of its networks."""
    return {"arguments": {key: runtime.portable(value) for key, value in vars(args).items()}, "arch": args.arch, "seed": args.seed,
            "parent": runtime.sha256_file(parent), "parent_name": snapshots.short_name(parent), "images": count, "epochs": EPOCHS,
            **{key: result[key] for key in ("id", "ood", "num_to_avg", "precision", "machine")}}


def study_name(args, study):
    """File name of a study's result; another network or seed than the usual does not take the usual one's place."""
    usual = args.arch == "wrn" and args.seed == 1
    return f"{args.dataset}_{study}" if usual else f"{args.dataset}_{arch_name(args.arch)}_s{args.seed}_{study}"


def find_parent(args):
    """Path of the pre-trained snapshot that short fine-tunings start from; UserError if its training is not at its end."""
    file = snapshots.find_one("./snapshots/pretrained", f"{args.dataset}_{arch_name(args.arch)}_pretrained")
    description = snapshots.describe(file, snapshots.read_weights(file))
    if description.get("recipe") and not snapshots.is_complete(description):
        raise runtime.UserError(f"{snapshots.short_name(file)} is not of a whole run. Finish it: python baseline.py {args.dataset} --resume")
    return file


def fine_tune(args, folder, parent, **changes):
    """Path of the snapshot of a short SR fine-tuning with these options of tune.py changed; made unless it is there."""
    place = snapshots.SWEEP / "_".join([folder.name, *(f"{key}_{value:g}" for key, value in changes.items())])
    stem = f"{args.dataset}_{arch_name(args.arch)}_s{args.seed}_tune"
    file = snapshots.snapshot_path(place, stem, EPOCHS - 1)
    recipe = {**changes, "precision": args.precision}
    if not is_made(file, recipe, parent):
        words = [word for key, value in changes.items() for word in (f"--{key}", value)]
        words += ["--resume"] * files.goes_on(place, stem, {**recipe, "epochs": EPOCHS}, {"parent": runtime.sha256_file(parent)})
        run_script(["tune.py", args.dataset, "--id", folder, *words, "--epochs", EPOCHS, "--load", parent, "--save", place,
                            "--arch", args.arch, "--seed", args.seed, *options.common_words(args, PREPARED)])
    return file


def evaluate(file, *words):
    """The result of test.py with the energy score on a snapshot; its file is put among the caches."""
    place = runtime.CIFAR / "cache" / "sweep" / runtime.sha256_file(file)[:16]
    run_script(["test.py", "--model", file, "--score", "energy", *words, "--save", place])
    return report.read_result(max(place.glob("*.json"), key=lambda path: path.stat().st_mtime_ns))


def prepare(args, parent):
    """(folder with train.npz and test.npz made from the training images, paths of noise sets made from test.npz, images in train.npz).

    Images of one's own are brought to the size that the network was trained at.
    """
    size = args.image_size or (args.id and snapshots.describe(parent, snapshots.read_weights(parent)).get("image_size")) or None
    images = loaders.load_id(args.dataset, "train", args.data, args.id, size, args.skip_bad)
    if len(images) < 20:
        raise runtime.UserError(f"{images.source} has {len(images)} training images; a tenth is held out, so 20 are the least")
    order = np.random.default_rng(args.seed).permutation(len(images))
    held = min(HELD_OUT, len(images) // 10)
    folder = runtime.make_folder(runtime.DATA / "cache" / f"sweep_{args.dataset}_{args.seed}_{images.fingerprint[:8]}")
    validation = images.subset(np.sort(order[:held]), "validation")
    parts = {"test": validation, "train": images.subset(np.sort(order[held:held + IMAGES]), "train")}
    parts.update({noise.name.replace(" ", "_"): noise for noise in noise_sets(validation, args.seed)})
    for name, part in parts.items():
        arrays = {"images": part.images.permute(0, 2, 3, 1).numpy()}
        if part.labels is not None:
            arrays["labels"] = part.labels.numpy()
            if images.classes:
                arrays["classes"] = np.array(images.classes)
        if not (folder / f"{name}.npz").exists():
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            runtime.write_bytes(folder / f"{name}.npz", buffer.getbuffer())
    return folder, [folder / f"{name}.npz" for name in parts if name not in ("train", "test")], len(parts["train"])


def is_made(file, changes, parent):
    """Whether this snapshot is there, whole, with these options and from this parent; its folder's name has the images' fingerprint."""
    if not file.exists():
        return False
    description = snapshots.describe(file, snapshots.read_weights(file))
    recipe = description.get("recipe", {})
    return (snapshots.is_complete(description) and description.get("parent_sha256") == runtime.sha256_file(parent)
            and all(recipe.get(key, "auto") == value for key, value in changes.items()))


def recommend(rows):
    """Of the alphas that cost at most LIMIT percent of accuracy and are within TIE of the lowest FPR95 the one with the highest AUROC."""
    plain = next(row for row in rows if row["alpha"] == 0)
    accurate = [row for row in rows if row["accuracy"] >= plain["accuracy"] - LIMIT]
    lowest = min(row["fpr95"] for row in accurate)
    return max((row for row in accurate if row["fpr95"] <= lowest + TIE), key=lambda row: row["auroc"])["alpha"]


def format_rows(rows, best):
    """The sweep's table as text, its recommended line marked."""
    lines = [f"{'alpha':>8}{'accuracy':>10}{'mean L1':>10}{'FPR95':>9}{'AUROC':>9}   (validation ID; generated noise)"]
    return "\n".join(lines + [f"{r['alpha']:8g}{r['accuracy']:10.2f}{r['mean_l1']:10.3f}{r['fpr95']:9.2f}{r['auroc']:9.2f}"
                              + ("   <- recommended" if r["alpha"] == best else "") for r in rows])

