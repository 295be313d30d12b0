"""Images to be judged: all that a path holds, whatever folders they lie in and without labels."""

from dataclasses import replace
from pathlib import Path

from utils.runtime import DATA, UserError, printable

from . import forms, heads, inside, splits
from .find import as_path, local_path, missing_message, name_or_path
from .readers import Size
from .reading import load
from .sets import ImageSet


def load_pictures(
    text: str, data: str | Path = DATA, size: Size = 32, skip_bad: bool = False
) -> ImageSet:
    """ImageSet of every image of a folder, archive, array or image file, or of a set's name.

    ``names`` are file names below the folder, or places in an array ("12"). Images are uint8
    (N,3,size,size), brought to that size as an OOD set's are. UserError: nothing there to read.
    """
    name, path = name_or_path(text)
    path = path or local_path(name, "test", data)
    if path is None and Path(text).expanduser().is_file():
        path = text
    place = path = None if path is None else inside.opened(as_path(path))
    if path is not None and forms.form_of(within := inside.around(path)):
        place = path = within  # a folder around a form
    if isinstance(path, Path) and forms.form_of(path) is None:
        if not path.exists():
            raise UserError(
                missing_message(name, "test", data, path).replace("Give a", "Give an image, a")
            )
        if path.is_dir() or heads.is_archive(path):
            # not the test part alone of a folder or archive that has one
            place = splits.Place(path, whole=True)
    return named(load(name, "test", data, place, size, skip_bad, fit_arrays=True))


def named(images: ImageSet) -> ImageSet:
    """The set without labels, with a name for each image, and its own as text."""
    names = images.names or tuple(map(str, range(len(images))))
    return replace(images, name=printable(images.name), labels=None, classes=None, names=names)
