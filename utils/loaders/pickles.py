"""Read the pickles that CIFAR's official files are, building nothing but plain values.

An unpickler that may call NumPy's own functions can be led to memory that is not the file's: a
dtype whose state has been set says how bytes are read. So no class of NumPy is built here. The
names that such a file asks for stand for objects of this module, which keep what they are given;
an array is made of them at the end, of uint8 and of the file's own bytes.
"""

import os
import pickle
from typing import Any, BinaryIO

import numpy as np


class Kind:
    """Stands for numpy.dtype: only the one-byte unsigned integer, by name."""

    def __init__(self, name: object, *_):
        if name not in ("u1", "|u1", "uint8", b"u1", b"|u1", b"uint8"):
            shown = repr(name[:20]) if isinstance(name, (str, bytes)) else "another kind"
            raise pickle.UnpicklingError(f"its array is of {shown}, not of uint8")

    def __setstate__(self, state: object) -> None:
        """Byte order and layout, which one byte does not have."""


class Array:
    """Stands for numpy.ndarray: shape and bytes, as its state or ``_frombuffer`` gives them."""

    def __init__(self, *_):
        self.values = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_column, content = state
        self.fill(content, kind, shape, "F" if by_column else "C")

    def fill(self, content: object, kind: object, shape: object, order: object) -> "Array":
        if (
            not isinstance(content, (bytes, bytearray))
            or not isinstance(kind, Kind)
            or not isinstance(shape, tuple)
            or not all(type(side) is int and side >= 0 for side in shape)
            or order not in ("C", "F")
        ):
            raise pickle.UnpicklingError("its array is not made of bytes and a shape")
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order=order)
        return self


def from_buffer(content: object, kind: object, shape: object, order: object) -> Array:
    return Array().fill(content, kind, shape, order)


STAND_INS = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Kind,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): from_buffer for core in ("core", "_core")},
}


class PlainUnpickler(pickle._Unpickler):
    """The one written in Python: for the other one a file of ten bytes can have memory reserved
    without limit, by the number of an object that it says to remember.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="bytes")
        place = file.tell()
        self.left = file.seek(0, os.SEEK_END) - place  # no more bytes are made than are there
        file.seek(place)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return (
                self.encode if (module, name) == ("_codecs", "encode") else STAND_INS[module, name]
            )
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError("it says that it holds more than its own length")

    def encode(self, text: object, encoding: object) -> bytes:
        """Bytes that Python 3 has written as text for Python 2's pickles."""
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("it holds text in another encoding than latin1")
        self.spend(len(text))
        return text.encode("latin1")

    def load_bytearray8(self) -> None:
        count = int.from_bytes(self.read(8), "little")
        self.spend(count)
        self.append(bytearray(self.read(count)))

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}


def load_plain(file: BinaryIO) -> Any:
    """The content of a pickle of dicts, lists, text, numbers and uint8 arrays, text of Python 2 as
    bytes; UnpicklingError for anything else.
    """
    unpickler = PlainUnpickler(file)
    return Plain(unpickler.left).of(unpickler.load())


class Plain:
    """Values with their arrays in the place of what stood for them.

    Each has bytes of its own in a file of plain values: a list that is part of another one twice,
    and that one too, would be a million values in a hundred bytes. ``left``: how many more may come.
    """

    def __init__(self, left: int):
        self.left = left

    def of(self, value: Any) -> Any:
        self.left -= len(value) if isinstance(value, (bytes, str)) else 1
        if self.left < 0:
            raise pickle.UnpicklingError("it says that it holds more than its own length")
        if isinstance(value, Array):
            if value.values is None:
                raise pickle.UnpicklingError("it holds an array without content")
            self.left -= value.values.size
            return value.values
        if isinstance(value, dict):
            return {key: self.of(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(map(self.of, value))
        if not isinstance(value, (bytes, str, int, float, type(None))):
            raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")
        if isinstance(value, int) and value.bit_length() > 64:
            raise pickle.UnpicklingError("it holds a number of more than 64 bits")
        return value
