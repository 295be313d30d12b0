"""Images that two sets share: equal ones by their bytes, near ones by a perceptual hash.

The hash of an image is the signs of the 63 lowest frequencies of its grey values (8 x 8 of their
cosine transform, without the mean), as in pHash; the mirror image's hash is the same with every
other column's signs turned. Two images are near when at most ``BITS`` of the 63 signs differ, and
their pixels, each image brought to mean 0 and standard deviation 1, by at most ``DIFFERENCE`` on
average. Every pair is compared: a block of hashes times another one is one matrix product.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from .sets import ImageSet

LOW = 8  # frequencies in each direction
SIGNS = LOW * LOW - 1
BITS = 10  # signs of near images that may differ
DIFFERENCE = 0.25  # of near images, in standard deviations of their pixels
CONTRAST = 5.0  # standard deviation of grey values, 0 to 255: an image below it is flat
LUMA = (0.299, 0.587, 0.114)  # of R, G, B in a grey value
CHUNK = 2048  # images that are decoded or compared at once
TILE = (512, 8192)  # hashes that are multiplied at once
KEPT = 16  # an image's nearest by the hash in a tile whose pixels are compared


class Codes(NamedTuple):
    """What of N images is compared: a number of its bytes each, uint64 (N,); its signs, float32
    (N,63) of -1 and 1; whether it is flat, bool (N,): its signs then say nothing.
    """

    exact: np.ndarray
    signs: torch.Tensor
    flat: np.ndarray

    def repeated(self) -> int:
        """How many images are equal to one before them in the same set."""
        return len(self.exact) - len(np.unique(self.exact))


class Shared(NamedTuple):
    """Of each of a second set's N images its equal in the first set, ``exact`` (N,), and its nearest
    near one, ``near`` (N,); -1 = there is none. Of the near ones signs that differ, difference of the
    pixels, and whether it is the mirror image, (N,) each.
    """

    exact: np.ndarray
    near: np.ndarray
    bits: np.ndarray
    difference: np.ndarray
    mirrored: np.ndarray


def encode(images: ImageSet) -> Codes:
    """The codes of a set, resident or streamed, CHUNK images at a time."""
    found = [encode_pixels(pixels) for pixels in chunks(images)]
    exact, signs, flat = zip(*found)
    return Codes(np.concatenate(exact), torch.cat(signs), np.concatenate(flat))


def chunks(images: ImageSet) -> Iterator[np.ndarray]:
    """uint8 (B,H,W,3) of a set's images in order."""
    parts = torch.arange(len(images)).split(CHUNK)
    if images.streamed:
        yield from (pixels.numpy() for pixels in images.images.read(list(parts)))
    else:
        for part in parts:
            yield images.images[part[0] : part[-1] + 1].permute(0, 2, 3, 1).numpy()


def encode_pixels(pixels: np.ndarray) -> tuple[np.ndarray, torch.Tensor, np.ndarray]:
    """(exact, signs, flat) of uint8 (B,H,W,3), as in ``Codes``."""
    grey = pixels.astype(np.float32) @ np.array(LUMA, np.float32)
    low = frequencies(grey.shape[1]) @ grey @ frequencies(grey.shape[2]).T
    signs = np.where(low.reshape(len(low), -1)[:, 1:] >= 0, 1, -1).astype(np.float32)
    return number_bytes(pixels), torch.from_numpy(signs), grey.std(axis=(1, 2)) < CONTRAST


def frequencies(side: int) -> np.ndarray:
    """(8,side) float32: the lowest rows of the cosine transform of ``side`` values."""
    places = (np.arange(side) + 0.5) / side
    return np.cos(np.pi * np.arange(LOW)[:, None] * places).astype(np.float32)


def number_bytes(pixels: np.ndarray) -> np.ndarray:
    """uint64 (N,): a number of each image's bytes, the same for equal images of one shape.

    Eight bytes are a word, and the number is their sum, each times a random odd constant, modulo
    2^64. Other images may have it by accident: whoever asks compares the pixels.
    """
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    words = -(-rows.shape[1] // 8)
    constants = np.random.default_rng(0).integers(0, 1 << 64, words, dtype=np.uint64) | np.uint64(1)
    if rows.shape[1] % 8:
        rows = np.pad(rows, ((0, 0), (0, 8 * words - rows.shape[1])))
    return rows.view(np.uint64) @ constants


def pixel_numbers(images: ImageSet) -> np.ndarray:
    """``number_bytes`` of a set's images, CHUNK at a time."""
    return np.concatenate([number_bytes(pixels) for pixels in chunks(images)])


def find_exact(first: ImageSet, second: ImageSet, numbers: tuple) -> np.ndarray:
    """int64 (N,): for each image of the second set the place of its equal in the first, or -1.

    ``numbers``: those of either set's images, uint64.
    """
    found = np.full(len(second), -1)
    if first.images.shape[1:] != second.images.shape[1:]:
        return found
    known, places = np.unique(numbers[0], return_index=True)
    slots = np.searchsorted(known, numbers[1]).clip(max=len(known) - 1)
    matches = np.flatnonzero(known[slots] == numbers[1])
    for part in np.array_split(matches, -(-len(matches) // CHUNK) or 1):
        other = places[slots[part]]
        same = (first.images[other] == second.images[part]).flatten(1).all(dim=1).numpy()
        found[part[same]] = other[same]
    return found


def compare(first: ImageSet, second: ImageSet, codes: tuple[Codes, Codes]) -> Shared:
    """What two sets of images of one size share; the images of the second are those looked for.

    Flat images are never near, nor is one that has its equal in the first set.
    """
    exact = find_exact(first, second, (codes[0].exact, codes[1].exact))
    rows, columns = np.flatnonzero(~codes[0].flat), np.flatnonzero(~codes[1].flat & (exact < 0))
    count = len(second)
    found = Shared(
        exact,
        near=np.full(count, -1),
        bits=np.zeros(count, np.int64),
        difference=np.full(count, np.inf),
        mirrored=np.zeros(count, bool),
    )
    signs = codes[0].signs[rows], codes[1].signs[columns]
    for mirrored in (False, True):
        for i, j, bits in near_signs(signs[0] * mirror() if mirrored else signs[0], signs[1]):
            i, j = rows[i], columns[j]
            difference = pixel_difference(first, second, i, j, mirrored)
            good = (difference <= DIFFERENCE) & (difference < found.difference[j])
            order = np.argsort(-difference, kind="stable")  # of several the nearest is written last
            order = order[good[order]]
            at = j[order]
            found.near[at], found.bits[at] = i[order], bits[order]
            found.difference[at], found.mirrored[at] = difference[order], mirrored
    return found


def mirror() -> torch.Tensor:
    """(63,): what the signs of an image are multiplied with to be those of its mirror image."""
    return torch.tensor([1.0, -1.0] * (LOW * LOW // 2))[1:]


def near_signs(first: torch.Tensor, second: torch.Tensor) -> Iterator[tuple]:
    """(i, j, bits) of all pairs of rows whose signs differ in at most BITS places, a tile at a time;
    of one j at most the KEPT nearest of a tile.
    """
    for top in range(0, len(first), TILE[0]):
        block = first[top : top + TILE[0]]
        for left in range(0, len(second), TILE[1]):
            products = (block @ second[left : left + TILE[1]].T).numpy()
            hits = np.flatnonzero(products >= SIGNS - 2 * BITS)
            if len(hits):
                i, j = np.unravel_index(hits, products.shape)
                bits = ((SIGNS - products[i, j]) / 2).astype(np.int64)
                order = np.lexsort((bits, j))
                i, j, bits = i[order], j[order], bits[order]
                begin = np.searchsorted(j, j)  # of each j's run
                kept = np.arange(len(j)) - begin < KEPT
                yield i[kept] + top, j[kept] + left, bits[kept]


def pixel_difference(
    first: ImageSet, second: ImageSet, i: np.ndarray, j: np.ndarray, mirrored: bool
) -> np.ndarray:
    """Mean absolute difference (B,) of the pixels of pairs of images, each image brought to mean 0
    and standard deviation 1; of the first's mirror images with ``mirrored``.
    """
    found = np.empty(len(i))
    for start in range(0, len(i), CHUNK):
        part = slice(start, start + CHUNK)
        left = standardised(first.images[i[part]].flip(3) if mirrored else first.images[i[part]])
        right = standardised(second.images[j[part]])
        found[part] = (left - right).abs_().mean(dim=(1, 2, 3)).numpy()
    return found


def standardised(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (B,3,H,W) -> float32 with mean 0 and standard deviation 1 of each image's values."""
    pixels = pixels.float()
    pixels -= pixels.mean(dim=(1, 2, 3), keepdim=True)
    return pixels / pixels.std(dim=(1, 2, 3), keepdim=True, correction=0).clamp_min(1e-6)
