"""Forms that images come in beside image files and arrays: one form a file, one line in FORMS."""

from pathlib import Path

from . import cifar, corruptions, idx, matlab
from .base import Form

FORMS = (cifar.PYTHON, cifar.BINARY, matlab.FORM, idx.FORM, corruptions.FORM)


def form_of(path: Path) -> Form | None:
    """The form that a folder or file has; None: image files, archives, lists and plain arrays."""
    return next((form for form in FORMS if form.find(path)), None)


__all__ = ["FORMS", "Form", "corruptions", "form_of"]
