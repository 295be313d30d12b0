"""Checkpoints of other people: where in a file its weights are, and what it is that has none."""

import argparse
import contextlib
import importlib.util
import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PosixPath
from typing import BinaryIO

import torch

from models.foreign import clean_names, infer
from utils.loaders import bounds, heads
from utils.runtime import UserError, check_regular, open_regular, print_note, printable

from .schema import check_weights

# where training scripts put the weights, the first that is there counts
KEYS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "model_state", "weights"),
    *("params", "state_dict_ema", "model_ema", "ema_state_dict", "ema", "backbone", "encoder"),
)
# counters that averaging and profiling leave among the weights: last part of their names
COUNTERS = ("n_averaged", "total_ops", "total_params")
# what contrastive training calls its network, beside which lies a head that is thrown away
BODIES = ("backbone", "encoder", "encoder_q", "base_encoder", "f")
ARRAY = ("scalar", "_reconstruct")  # by which NumPy writes a number and an array
PREFIXES = 10  # tried of names; a name of nothing but dots has as many as it is long
LUMA = (0.299, 0.587, 0.114)  # of R, G, B in grey, as Pillow and torchvision take them
SHOWN = 6  # keys that an error names
# buffers by which a network normalises images itself: last parts of their names
NORMALISING = (("mean", "std"), ("mu", "sigma"))
ADVICE = "Where it was made, write the weights alone: torch.save(model.state_dict(), 'weights.pt')"


class LeftOut:
    """Stands for NumPy's values beside the weights: none is built, as the state of a dtype or an
    array that a file gives may lead to memory which is not the file's.
    """

    def __init__(self, *_):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class Weights(dict):
    """A state_dict, and with what its network normalised images itself: ``statistics`` (mean, std)
    for values of 0 to 1, or None.
    """

    statistics: tuple[list[float], list[float]] | None = None


def plain_objects() -> list:
    """What a weights-only load may build beside tensors, none of which runs code of the file."""
    core = [f"numpy.{room}.multiarray.{name}" for room in ("core", "_core") for name in ARRAY]
    names = ("numpy.dtype", "numpy.ndarray", "_codecs.encode", *core)
    return [argparse.Namespace, PosixPath, *((LeftOut, name) for name in names)]


class Packed(ValueError):
    """A file that would unfold into more than its own length."""


def check_packing(file: BinaryIO) -> None:
    """Packed where a .pt says that it holds more than its own length: torch packs nothing, and
    would unpack without limit what another program has packed.
    """
    if zipfile.is_zipfile(file):
        length = file.seek(0, io.SEEK_END)
        bounds.check_directory(file, "it", bounds.ARRAYS_BYTES)
        with zipfile.ZipFile(file) as members:
            size = sum(member.file_size for member in members.infolist())
        if size > length:
            raise Packed(f"{size >> 20} MB packed into {length >> 10} kB")
    file.seek(0)


def load_content(path: Path) -> object:
    """Content of a .pt or .safetensors file: tensors and plain values. UserError: a file that is
    damaged or holds another object, which is named.
    """
    # eight bytes of its head's length, then the head, which is JSON
    if Path(path).suffix == ".safetensors" or bounds.first_bytes(path, 10)[8:] == b'{"':
        return load_safetensors(path)
    try:
        # torch warns of files that it then refuses
        with (
            open_regular(path) as file,
            warnings.catch_warnings(),
            torch.serialization.safe_globals(plain_objects()),
        ):
            check_packing(file)
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(refusal(path, error)) from None


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file; UserError without that package."""
    if importlib.util.find_spec("safetensors") is None:
        raise UserError(
            f"{path} needs the package safetensors, not installed here. Run: "
            "pip install safetensors"
        )
    from safetensors.torch import load_file

    try:
        check_regular(path)
        return load_file(path)
    except Exception as error:  # its own kinds of error
        raise UserError(
            f"{path} is not a readable .safetensors file ({str(error)[:200]})"
        ) from None


def refusal(path: Path, error: Exception) -> str:
    """Why a file was not opened, and what to do."""
    if not isinstance(error, (Packed, UserError)) and (told := not_of_torch(path)):
        return f"{path} is not a readable snapshot: it is {told}"
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    found = re.search(r"GLOBAL ([\w.]+)", text)
    if found:
        return (
            f"{path} is not a readable snapshot: it holds a Python object, {found.group(1)}, as a "
            "whole pickled model or a training state does. To open it would run code of whoever "
            f"wrote it. {ADVICE}"
        )
    if "TorchScript" in text:
        return f"{path} is not a readable snapshot: it is a TorchScript program. {ADVICE}"
    reason = printable(text.strip().splitlines()[0] if text.strip() else type(error).__name__)
    return (
        f"{path} is not a readable snapshot (corrupted, or more than tensors in it): {reason[:200]}"
    )


def not_of_torch(path: Path) -> str:
    """What a file is that cannot be one of torch, by its first bytes and its end; "" of others."""
    head = bounds.first_bytes(path, 200)
    text = head.decode("utf-8", "ignore")
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, which stands for the file. Where it lies, run: git lfs pull"
    if text.lstrip().lower().startswith(("<!doctype", "<html")):
        return "an HTML page: its address gave a page about the file. Fetch the file itself"
    if head.startswith(heads.ZIP):
        if not zipfile.is_zipfile(path):
            return "the beginning of one, its end is missing. Fetch or copy it again"
        with contextlib.suppress(Exception), zipfile.ZipFile(path) as members:
            names = members.namelist()
            if not any(name.rpartition("/")[2] in ("data.pkl", "constants.pkl") for name in names):
                return f"an archive of {listed([printable(name) for name in names])}. {ADVICE}"
    if heads.is_image_head(head):
        return "an image"
    if head.startswith(heads.NPY):
        return f"a NumPy array. {ADVICE}"
    if (
        text
        and len(text.encode()) > len(head) - 4
        and all(c.isprintable() or c in "\t\r\n" for c in text)
    ):
        return f"a text, which begins with '{printable(text.split(chr(10))[0].strip())[:60]}'"
    known = (b"\x89HDF", b"MATLAB", b"7z", b"Rar!", b"%PDF")
    return heads.what_is(head) if not head or head.startswith(known) else ""


def find_weights(content: object, path: Path) -> dict[str, torch.Tensor]:
    """The state_dict in the content of a file, names cleaned (``clean_names``).

    It is the content itself, or lies under one of KEYS or one other key, to any depth. Counters and
    plain values among the weights are left out, and named on stderr. UserError: no weights.
    """
    state = search(content)
    if state is None:
        raise UserError(f"{path} holds no state_dict: it is {what_is(content)}. {ADVICE}")
    kept = {
        name: value
        for name, value in state.items()
        if torch.is_tensor(value) and name.rpartition(".")[2] not in COUNTERS
    }
    left_out = [printable(str(name)) for name in state if name not in kept]
    if left_out:
        print_note(f"{Path(path).name}: {listed(left_out)} beside the weights, left out")
    check_weights(kept, path)
    return clean_names(kept)


def normalisation(state: dict) -> dict[str, torch.Tensor]:
    """{name: value} of the two buffers by which a network normalises images itself, as
    ``normalize.mean`` and ``normalize.std``: one number a channel or one for all; {} without them.
    """
    small = {
        name: value
        for name, value in state.items()
        if value.numel() in (1, 3) and value.shape.numel() == max(value.shape, default=1)
    }
    for name in small:
        room, dot, last = name.rpartition(".")
        for mean, std in NORMALISING:
            if last == mean and f"{room}{dot}{std}" in small:
                return {key: small[key] for key in (name, f"{room}{dot}{std}")}
    return {}


def as_known(state: dict, path: Path) -> dict:
    """The weights as a network known here has them, where they are those of one whose head has
    another name, whose body lies under a name of its own beside its classifier, that takes grey
    images or that normalises them itself; else as they are.
    """
    own = normalisation(state)
    if not own:
        return in_colour(state, path)
    rest = {name: value for name, value in state.items() if name not in own}
    known = in_colour(rest, path)
    if not any(map(infer, spellings(known))):
        return state
    mean, std = (
        [*value.double().flatten().tolist()] * (3 // value.numel()) for value in own.values()
    )
    scale = 255 if max(mean) > 1 else 1  # of values of 0 to 255
    found = Weights(known)
    found.statistics = tuple([value / scale for value in part] for part in (mean, std))
    print_note(
        f"{Path(path).name} normalises images itself, by its {' and '.join(own)}: they are "
        f"normalised with mean {numbers(found.statistics[0])} and std {numbers(found.statistics[1])}"
    )
    return found


def numbers(values: list[float]) -> str:
    """Numbers as --mean and --std take them."""
    return ",".join(f"{value:.4g}" for value in values)


def in_colour(state: dict, path: Path) -> dict:
    """The same of weights that do not normalise images."""
    inside = {name.partition(".")[0] for name in state} & set(BODIES)
    if "fc.weight" in state and not inside and not grey_convolution(state):
        return state
    for names in (*spellings(state), together(state)):
        headed = with_head(names)
        if infer(headed):
            return headed
        if infer(coloured := of_colour(headed)):
            print_note(
                f"{Path(path).name} is of a network with one input channel: it sees images as grey. "
                "Where it was trained with one mean and std, give them: --mean M --std S"
            )
            return coloured
    return state


def with_head(state: dict) -> dict:
    """The weights with their only matrix called ``fc``, as in a file whose head is ``head`` or
    ``classifier.1``, and none is called so.
    """
    matrices = [name for name, value in state.items() if value.ndim == 2]
    if "fc.weight" in state or len(matrices) != 1 or not matrices[0].endswith(".weight"):
        return state
    head = matrices[0].removesuffix("weight")
    return {
        f"fc.{name.removeprefix(head)}" if name.startswith(head) else name: value
        for name, value in state.items()
    }


def together(state: dict) -> dict:
    """The weights of ``encoder.*`` and of a classifier ``fc`` beside it as those of one network."""
    for body in BODIES:
        inner = {n.partition(".")[2]: v for n, v in state.items() if n.partition(".")[0] == body}
        if inner and "fc.weight" in state:
            outer = {n: v for n, v in state.items() if n.partition(".")[0] != body}
            return {**clean_names(inner), **outer}
    return {}


def grey_convolution(state: dict) -> str | None:
    """The name of the only convolution (C,1,k,k), None where there is none or several."""
    grey = [name for name, value in state.items() if value.ndim == 4 and value.shape[1] == 1]
    return grey[0] if len(grey) == 1 and state[grey[0]].is_floating_point() else None


def of_colour(state: dict) -> dict:
    """The weights with a first convolution (C,3,k,k) in the place of one of grey images (C,1,k,k):
    it gives for an image what the file's gives for its grey values 0.299 R + 0.587 G + 0.114 B, of
    the normalised R, G and B.
    """
    name = grey_convolution(state)
    if name is None:
        return state
    share = torch.tensor(LUMA, dtype=state[name].dtype).view(1, 3, 1, 1)
    return {**state, name: state[name] * share}


def search(content: object, depth: int = 4) -> Mapping | None:
    """The first mapping of names to tensors in a content; the largest where no key tells."""
    if not isinstance(content, Mapping) or not depth:
        return None
    tensors = [name for name, value in content.items() if torch.is_tensor(value)]
    if any(isinstance(name, str) and "." in name for name in tensors) or (
        tensors and len(tensors) == len(content) and all(isinstance(n, str) for n in tensors)
    ):
        return content
    for key in KEYS:
        found = search(content.get(key), depth - 1)
        if found is not None:
            return found
    others = [search(value, depth - 1) for key, value in content.items() if key != "optimizer"]
    return max((found for found in others if found is not None), key=len, default=None)


def what_is(content: object) -> str:
    """A content in words: its kind, and of a dict its first keys."""
    if isinstance(content, Mapping):
        return f"a dict of {listed([printable(str(key)) for key in content]) or 'nothing'}"
    return f"a {type(content).__name__}"


def listed(names: list[str]) -> str:
    """The first names of a list."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:60] for name in names[:SHOWN]) + more


def unprefixed(state: dict) -> dict | None:
    """The weights without the first part of their names where all share it, as in ``model.conv1``
    or ``backbone.module.conv1``; None where they do not.
    """
    first = {name.partition(".")[0] for name in state}
    if len(first) != 1 or not all("." in name for name in state):
        return None
    return clean_names({name.partition(".")[2]: value for name, value in state.items()})


def spellings(state: dict) -> list[dict]:
    """The weights under their names as they are, and without each prefix common to all."""
    found = [state]
    while len(found) < PREFIXES and (shorter := unprefixed(found[-1])) is not None:
        found.append(shorter)
    return found


def body_of(state: dict, num_classes: int) -> dict | None:
    """The weights of a contrastive file (``backbone.*`` and a projection head, or the network
    without a classifier) with a head of zeros in the place of the missing one; None where no
    network known here fits.
    """
    parts = {name.partition(".")[0] for name in state}
    names = [part for part in BODIES if part in parts]
    inner = {n.partition(".")[2]: v for n, v in state.items() if n.partition(".")[0] in names}
    for body in spellings(clean_names(inner) if inner else state):
        if "fc.weight" in body:
            continue
        for width in sorted({len(value) for value in body.values() if value.ndim == 1}):
            head = {
                "fc.weight": torch.zeros(num_classes, width),
                "fc.bias": torch.zeros(num_classes),
            }
            if infer({**body, **head}):
                return {**body, **head}
    return None
