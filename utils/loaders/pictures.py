"""Images to be judged: all that a path holds, whatever folders they lie in and without labels."""

from pathlib import Path

from utils.runtime import DATA, UserError, printable

from . import forms, readers
from .find import load, local_path, missing_message, name_or_path
from .sets import ImageSet, make_set


def load_pictures(
    text: str, data: str | Path = DATA, size: int = 32, skip_bad: bool = False
) -> ImageSet:
    """ImageSet of every image of a folder, archive, array or image file, or of a set's name.

    ``names`` are file names below the folder, or places in an array ("12"). Images are uint8
    (N,3,size,size), brought to that size as an OOD set's are. UserError: nothing there to read.
    """
    name, path = name_or_path(text)
    path = path or local_path(name, "test", data)
    path = None if path is None else Path(path).expanduser()
    if path is None and Path(text).expanduser().is_file():
        path = Path(text).expanduser()
    form = None if path is None else forms.form_of(path)
    if path is not None and path.is_dir() and form is None:
        # not ``load``, which would take the test part of a folder that has one
        pixels, _, _, bad = readers.read_images(path, data, size, False, skip_bad)
        names = readers.image_names(readers.open_source(path), bad)
        return named(make_set(pixels, None, name, source=str(path)), names)
    if path is not None and form is None and not path.exists():
        raise UserError(
            missing_message(name, "test", data, path).replace("Give a", "Give an image, a")
        )
    images = load(name, "test", data, path, size, skip_bad, fit_arrays=True)
    return named(images, images.names)


def named(images: ImageSet, names: tuple | None) -> ImageSet:
    """The set with a name for each image, and its own as text."""
    images.name = printable(images.name)
    images.names = names or tuple(map(str, range(len(images))))
    return images
