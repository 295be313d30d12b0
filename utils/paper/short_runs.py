"""The short fine-tunings with SR that the sweep and the ablation compare.

Some of the training images are held out for validation, others fine-tuned on. Pre-training has seen
the held-out images too, so their accuracy is not a test accuracy; runs are compared with one another
only. What has been fine-tuned is kept, so that the same command goes on after an interruption.
"""

import argparse
import io
from pathlib import Path

import numpy as np

from utils import loaders, runtime, snapshots
from utils.evaluation.validation import noise_sets
from utils.training import meant, names, options, recipes

from .trained import train_unless_there
from .usual import changed

IMAGES = 10_000  # fine-tuned on at most, in EPOCHS epochs of a complete schedule
EPOCHS = 3
HELD_OUT = 2500  # validation images at most, and a tenth of all at most
# options that have done their work once ``prepare`` has written the images
PREPARED = ("id", "image_size", "skip_bad")


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
    given = {"id": folder, **changes, "epochs": EPOCHS, "load": parent, "save": place}
    given |= {"arch": args.arch, "seed": args.seed}
    words = [word for key, value in given.items() for word in (f"--{key}", value)]
    command = ["tune.py", args.dataset, *words, *options.common_words(args, PREPARED)]
    # the folder's name has the images' fingerprint
    sources = {"parent": runtime.sha256_file(parent)}
    return train_unless_there(command, made, place, recipe, sources)


def recipe_of(args: argparse.Namespace, changes: dict) -> dict:
    """The options that tell one short fine-tuning from another;
    the network's own come from the pre-trained snapshot.
    """
    recipe = {**recipes.resolve("tune", args.dataset, "sr", "paper", args.arch), **changes}
    recipe.update(epochs=EPOCHS, seed=args.seed, precision=args.precision)
    others = ("arch", "layers", "widen_factor", "test_bs")
    return {key: value for key, value in recipe.items() if key not in others}
