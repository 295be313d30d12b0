"""Where a part of one's own images lies: in a folder, in an archive, among the keys of an .npz."""

from pathlib import Path

import numpy as np

from utils.runtime import UserError

from . import containers, forms, heads, inside, parquet, splits
from .keys import parts_of_npz
from .sets import ImageSet


def locate(path: inside.Place, split: str, strict: bool = False) -> splits.Place:
    """Where the train / test part of one's own images lies: beside others in a folder or inside an
    archive, or ``path`` itself where that has no parts. ``strict`` as in ``choose_part``.
    """
    path = inside.around(inside.opened(path))
    parts, beside = parts_of(path)
    if not parts:
        return splits.Place(path)
    part, kind, told = splits.choose_part(parts, split, path, strict)
    unread = splits.unread(parts, kind, strict, beside)
    if not isinstance(part, str):
        return splits.Place(part, "", told, kind, unread)
    key = "" if forms.form_of(path) else part  # a form finds its parts itself
    return splits.Place(path, key, told, kind, unread)


def parts_of(path: inside.Place) -> tuple[dict[str, list], list[str]]:
    """({kind: parts} of what lies at a path: paths, names of files of a form, folders in an archive,
    keys of an .npz, or parts of a parquet export; names of folders beside them). ({}, []): none.
    """
    if form := forms.form_of(path):
        return form.parts(path), []
    if path.is_dir():
        if parts := inside.folder_parts(path):
            # beside lists lie their images
            folders = any(part.is_dir() for some in parts.values() for part in some)
            return parts, splits.beside(path.iterdir(), parts) if folders else []
        return ({} if isinstance(path, inside.Inside) else parquet.parts_of(path)), []
    if heads.is_archive(path):
        archive = containers.Archive(path)
        names = [archive.inside + name for name in archive.names]
        parts = splits.parts_of_archive(names)
        return parts, splits.beside_in_archive(names, parts)
    return (parts_of_npz(path) if path.is_file() and heads.is_array(path) else {}), []


def has_parts(path: str | Path) -> bool:
    """Whether images of one's own come with a training and a test (or validation) part."""
    path = Path(path).expanduser()
    return locate(path, "train").kind != locate(path, "test").kind


def split_off(images: ImageSet, share: float, split: str) -> ImageSet:
    """The training or test images of a set that has no parts: of each class the same ``share``, at
    least one image, is for testing, drawn with a fixed seed.

    UserError where a class has one image only.
    """
    if images.labels is None:
        return images
    labels, generator, test = images.labels.numpy(), np.random.default_rng(0), []
    for label in np.unique(labels):
        own = generator.permutation(np.flatnonzero(labels == label))
        if len(own) < 2:
            raise UserError(
                f"{images.source}: of class {label} there is one image, none to split off. "
                "Give train/ and test/ parts"
            )
        test.append(own[: min(max(round(share * len(own)), 1), len(own) - 1)])
    chosen = np.sort(np.concatenate(test))
    if split == "train":
        chosen = np.setdiff1d(np.arange(len(labels)), chosen)
    return images.part(chosen, in_place=len(chosen) > len(images) / 2)  # else a copy is smaller
