"""Image files that a stranger made to be long in decoding: each ends in its one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from test_hostile import PIXELS, bytes_of, refused

from utils import loaders
from utils.loaders import decoders


def image(form, **options):
    return bytes_of(lambda file: Image.fromarray(PIXELS[0]).save(file, form, **options))


def read(tmp_path, content, size=8):
    (tmp_path / "a.png").write_bytes(content)  # whatever it is called
    return loaders.load("x", path=tmp_path / "a.png", data=tmp_path / "d", size=size)


def refusal(tmp_path, content):
    return refused(read, tmp_path, content)


def bitmap(side, packed):
    """A .bmp of side x side pixels in run-length code."""
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(packed), 1, 1, 256, 0)
    place = 14 + len(head) + 1024
    start = b"BM" + struct.pack("<IHHI", place + len(packed), 0, 0, place)
    return start + head + bytes(1024) + packed


JPEG, PNG = image("JPEG"), image("PNG")
PART = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
PARTS = {
    "segments of a JPEG": JPEG[:2] + b"\xff\xe1\0\2" * 2000 + JPEG[2:],
    "bytes between them": JPEG[:20] + b"\1" * 9000 + JPEG[20:],
    "segments of sixty thousand bytes": JPEG[:2]
    + (b"\xff\xe1\xea\x60" + bytes(59998)) * 9
    + JPEG[2:],
    "chunks of a PNG": PNG[:33] + PART * 2000 + PNG[33:],
    "chunks among the pixels": PNG[:-12] + PART * 2000 + PNG[-12:],
    "a remark in a PPM": b"P6\n#" + b"x" * 9000 + b"\n8 8 255\n" + bytes(192),
    "steps of a BMP": bitmap(64, b"\0\2\0\0" * 9000),
}


@pytest.mark.parametrize("kind", PARTS)
def test_parts_of_an_image(tmp_path, monkeypatch, kind):
    """Each part costs Pillow a microsecond or ten and, of a JPEG, a hundred bytes."""
    assert len(read(tmp_path, JPEG)) and len(read(tmp_path, PNG))
    monkeypatch.setattr(decoders, "HEAD", (2000, 256))
    monkeypatch.setattr(decoders, "BODY", (2000, 256))
    assert "more parts" in refusal(tmp_path, PARTS[kind])


def test_remarks_among_numbers(tmp_path):
    assert "remarks" in refusal(tmp_path, b"P2\n4 4 255\n" + b"#a\n" * 100_000 + b"1 " * 16)
    assert len(read(tmp_path, b"P2\n#a\n8 8 255\n" + b"1 " * 64))


@pytest.mark.parametrize(
    "content", (b"P2\n4096 4096 255\n1", b"P5\n4096 4096 254\n1", bitmap(4096, b"\0\1"))
)
def test_pixels_that_are_decoded_in_python(tmp_path, content):
    assert "slow" in refusal(tmp_path, content)


def test_scans_of_a_jpeg(tmp_path, monkeypatch):
    whole = image("JPEG", progressive=True)
    read(tmp_path, whole)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    monkeypatch.setattr(decoders, "SCANS", 10_000)
    assert "scans" in refusal(tmp_path, whole[:-2] + 1000 * last + whole[-2:])


def test_a_tile_that_is_larger_than_its_image(tmp_path):
    side, packed = struct.pack("<I", 46_000), zlib.compress(bytes(1 << 20))
    one = struct.pack("<I", 1)
    tags = [(256, one), (257, one), (258, struct.pack("<I", 8)), (259, struct.pack("<I", 8))]
    tags += [(262, one), (277, one), (322, side), (323, side), (324, struct.pack("<I", 200))]
    tags += [(325, struct.pack("<I", len(packed)))]
    entries = b"".join(struct.pack("<HHI", tag, 4, 1) + value for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    assert "46000 x 46000" in refusal(tmp_path, head.ljust(200) + packed)


@pytest.mark.parametrize("values", ((0, 70_000), (-1, 5), (0, 2**30)))
def test_grey_values_beyond_sixteen_bits(tmp_path, values):
    """They were white."""
    picture = np.resize(np.array(values, np.int32), (8, 8))
    content = bytes_of(lambda file: Image.fromarray(picture).save(file, "TIFF"))
    assert "16-bit" in refusal(tmp_path, content)


@pytest.mark.parametrize("content", (JPEG[:20], b"GIF89a" + bytes(7) + b";", b"P6\n0 0 255\n"))
def test_a_head_that_is_none_is_said_to_be_none(tmp_path, content):
    line = refusal(tmp_path, content)
    assert "damaged" in line and "object at" not in line


@pytest.mark.parametrize("form", ("GIF", "WEBP", "PNG", "TIFF", "MPO"))
def test_of_many_frames_the_first_is_read(tmp_path, form):
    frames = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(50)]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    assert read(tmp_path, file.getvalue()).images.sum() < 8 * 8 * 5
