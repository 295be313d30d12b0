"""``--save-outputs``: a network's outputs as the files that ``--outputs`` reads."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from utils import loaders, snapshots
from utils.loaders import bounds
from utils.runtime import locked, make_folder, open_regular, short_path, write_bytes

from .case import Case
from .given import digest_of
from .protocol import PROTOCOLS


def save(case: Case) -> None:
    """Write the outputs of a case below --save-outputs, in a folder of the snapshot's name:
    train.npz, id.npz, ood/NAME.npz and shifted/NAME.npz; and print the command that scores them.
    A folder with other outputs under these names stays, and this one has a hash in its name.
    """
    sets, file = case.sets, case.file
    places: dict[str, Any] = {"train.npz": sets.train, "id.npz": sets.id}
    places |= {f"ood/{images.name}.npz": images for images in sets.ood}
    places |= {f"shifted/{images.name}.npz": images for images in sets.shifted}
    contents = {place: arrays_of(case, images) for place, images in places.items()}
    place = make_folder(Path(case.args.save_outputs).expanduser())
    folder = place / f"{snapshots.folder_of(file).name}_{file.stem}"
    with locked(place):
        folder = free_folder(folder, contents)
        for name, arrays in contents.items():
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            make_folder((folder / name).parent)
            write_bytes(folder / name, buffer.getbuffer())
    print(
        f"\noutputs: {short_path(folder)}. Scored without the network by: {command(case, folder)}"
    )


def command(case: Case, folder: Path) -> str:
    """The command that scores what ``save`` has written."""
    at, protocol, dataset = short_path(folder), case.args.protocol, case.description.get("dataset")
    named = f"{dataset}=" * (dataset in PROTOCOLS[protocol].groups)
    words = [f"{at}/train.npz", f"{named}{at}/id.npz", f"{at}/ood/*.npz"]
    words += [f"{at}/shifted/*.npz"] * bool(case.sets.shifted)
    words += [f"--protocol {protocol}"] * (protocol != "paper")
    return f"python test.py --outputs {' '.join(words)}"


def free_folder(folder: Path, contents: dict[str, dict[str, np.ndarray]]) -> Path:
    """``folder``; where a file in it holds something else than ``contents``, {place: arrays}, one
    with a hash of these, which is said.
    """
    other = [place for place, arrays in contents.items() if holds_other(folder / place, arrays)]
    if not other:
        return folder
    digest = digest_of(*(part for arrays in contents.values() for part in arrays.values()))
    free = folder.with_name(f"{folder.name}_{digest[:8]}")
    print(
        f"\nnote: {short_path(folder)} holds other outputs ({', '.join(other)}) and stays; these are "
        f"in {free.name}"
    )
    return free


def arrays_of(case: Case, images: loaders.ImageSet) -> dict[str, np.ndarray]:
    """What a file of --outputs holds of a set."""
    have = case.network.outputs(images)
    keys = ("features", "labels")
    if case.description.get("classifier") is not False:  # else its head is no one's
        keys += ("logits", "weight", "bias")
    arrays = {key: getattr(have, key) for key in keys}
    return {key: array for key, array in arrays.items() if array is not None and array.size}


def holds_other(path: Path, arrays: dict[str, np.ndarray]) -> bool:
    """Whether a file is there that holds something else than these arrays."""
    if not path.exists():
        return False
    try:
        with open_regular(path) as file:
            bounds.check_arrays(file, path)
            found = np.load(file, allow_pickle=False)
            return set(found.files) != set(arrays) or not all(
                np.array_equal(found[key], array) for key, array in arrays.items()
            )
    except Exception:  # whatever it is, it is none of these outputs
        return True
