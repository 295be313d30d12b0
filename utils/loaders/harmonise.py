"""All images made into files in the same way, so that how they were made tells nothing."""

import io

import numpy as np
from PIL import Image

from utils.runtime import UserError

from .sets import ImageSet, make_set


def harmonise(images: ImageSet, quality: int) -> ImageSet:
    """The set with every image shrunk to three quarters of its side, enlarged back, both bicubic,
    and sent through a JPEG of ``quality`` (1 to 95).

    Sets are distributed in different ways: CIFAR's images were shrunk once and stored without loss,
    most OOD sets are JPEG photographs that somebody shrank with another filter. A network that was
    trained to tell outliers from ID images may read that instead of what they show. Shrinking takes
    the finest details, where filters differ, from all sets alike; the JPEG gives all the same
    traces.
    """
    if images.streamed:
        raise UserError(f"--harmonise has '{images.name}' in memory: --stream off")
    pixels = images.images.permute(0, 2, 3, 1).numpy()
    height, width = pixels.shape[1:3]
    small = (max(3 * width // 4, 1), max(3 * height // 4, 1))
    changed = np.empty_like(pixels)
    for index, image in enumerate(pixels):
        blurred = Image.fromarray(image).resize(small, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        blurred.resize((width, height), Image.Resampling.BICUBIC).save(
            file, "JPEG", quality=quality
        )
        changed[index] = np.asarray(Image.open(file, formats=("JPEG",)))
    labels = None if images.labels is None else images.labels.numpy()
    made = make_set(changed, labels, images.name, images.classes, images.source)
    made.names, made.skipped = images.names, images.skipped
    return made
