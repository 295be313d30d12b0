"""What Pillow is asked to decode of an image file, and what that may cost.

An image's own head says how large it is (bounds.py). Here is what else strangers can make long: a
head of a million parts, scans that go over all pixels again and again, tiles larger than their
image, and formats that Pillow decodes in Python, a value at a time.
"""

import io
import math
from typing import BinaryIO

from PIL import Image

from . import bounds

# What Pillow may take an image for, whatever its name says: it would start another program
# (Ghostscript) for an EPS, and has decoders for formats that nobody keeps images in.
FORMATS = ["JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF"]
Image.init()
FORMATS += ["AVIF"] * ("AVIF" in Image.OPEN)  # not every build of Pillow has it

HEAD = 1 << 20, 16  # costs of the reads before the pixels: 1, and 1 more for so many bytes
BODY = 1 << 21, 1 << 12  # of the pixels, of which each may be a read of its own too
SCANS = 1 << 31  # scans of a progressive JPEG times its pixels
SLOW = 1 << 23  # values of an image that Pillow decodes in Python, a second a million
TEXT = b"P1", b"P2", b"P3"  # the formats that are numbers written out
TEXT_BYTES, REMARKS = (
    1 << 25,
    1000,
)  # of such a file; each remark in it costs a copy of what follows
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of a TIFF


class Counted(io.BytesIO):
    """An image file in memory; ValueError where what is read of it costs more than it may."""

    def __init__(self, content: bytes):
        super().__init__(content)
        self.left, self.unit = HEAD

    def read(self, size: int | None = -1) -> bytes:
        part = super().read(size)
        whole = size is None or size < 0  # as decoders in C take it
        self.left -= 1 + (0 if whole else len(part) // self.unit)
        if self.left < 0:
            raise ValueError("it consists of more parts than an image does")
        return part


def open_image(file: BinaryIO) -> Image.Image:
    """The image in a file, its head read and its pixels not; an error of Pillow's or ValueError
    where it is none, or would cost too much.
    """
    content = bounds.read_image_bytes(file)
    if content[:2] in TEXT and (len(content) > TEXT_BYTES or content.count(b"#") > REMARKS):
        raise ValueError(
            f"its numbers are written out, in more than {TEXT_BYTES >> 20} MB or with more than "
            f"{REMARKS} remarks"
        )
    counted = Counted(content)
    try:
        image = Image.open(counted, formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise ValueError(f"its head is damaged, or of none of {', '.join(FORMATS)}") from None
    pixels = math.prod(image.size)
    counted.left, counted.unit = BODY[0] + pixels, BODY[1]
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") * pixels > SCANS:
        raise ValueError("it has more scans than any JPEG")
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(TILE_WIDTH, 0), tags.get(TILE_LENGTH, 0)
    bounds.check_image(tile, tile)
    in_python = any(part[0] in Image.DECODERS for part in image.tile)
    if in_python and pixels * len(image.getbands()) > SLOW:
        raise ValueError(
            f"more than {SLOW >> 20} million values in a format that is slow to decode"
        )
    return image
