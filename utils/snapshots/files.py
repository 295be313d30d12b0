"""Write, read and describe snapshots.

A snapshot is a plain state_dict ``{stem}_epoch_{e}.pt`` with a description ``.json`` beside it. The
state that --resume needs is a third file, ``{stem}.resume.pt`` (training/run.py). Everything is
loaded with ``weights_only``.
"""

import contextlib
import hashlib
import io
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import models
from models.foreign import clean_name, count_classes, guess, strip_prefix
from utils.loaders import DATASETS, ID_SETS
from utils.runtime import UserError, json_bytes, print_note, read_json, sha256_file, write_files

from . import unwrap
from .schema import check_description


def to_bytes(content: object) -> bytes:
    """torch.save into memory: writing the bytes ourselves makes a full disk an
    OSError and the rename safe.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def save_snapshot(path: Path, model: torch.nn.Module, description: dict) -> None:
    """Write the weights (CPU, contiguous, without a compiled model's prefix) together with
    their description and sha256.
    """
    save_weights(
        path,
        {
            strip_prefix(name): value.detach().cpu().contiguous()
            for name, value in model.state_dict().items()
        },
        description,
    )


def save_weights(path: Path, state: dict[str, Tensor], description: dict) -> None:
    """Write a state_dict and its description, with the file's sha256,
    so that both are there or neither.
    """
    state = to_bytes(state)
    description = {
        **description,
        "sha256": hashlib.sha256(state).hexdigest(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_files({path.with_suffix(".json"): json_bytes(description), path: state})


def remove_snapshot(path: Path) -> None:
    for file in (path, path.with_suffix(".json")):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()


def read_pt(path: str | Path) -> Any:
    """Content of a .pt file, tensors and plain values only;
    UserError when it is corrupted or holds anything else.
    """
    return unwrap.load_content(path)


def read_weights(path: str | Path, arch: str | None = None) -> dict[str, Tensor]:
    """state_dict of a snapshot or a published file, wherever in it that lies, names cleaned; but for
    a network of the user's own (``arch``, a ``module:function``) as a network known here has them.
    """
    state = unwrap.find_weights(read_pt(path), path)
    described = (read_description(path) or {}).get("arch")
    own = any(isinstance(name, str) and ":" in name for name in (arch, described))
    return state if own else unwrap.as_known(state, path)


def align_names(state: dict, own: dict) -> dict:
    """The weights under the network's own names where these differ only by what a head is called
    (a published file's is read as ``fc``, a user's network may call it otherwise) or by a prefix
    that all names of the file share.
    """
    by_alias = {}
    for name in own:
        by_alias.setdefault(clean_name(name), []).append(name)
    same = {alias: names[0] for alias, names in by_alias.items() if len(names) == 1}
    tries = [
        {name if name in own else same.get(name, name): value for name, value in names.items()}
        for names in unwrap.spellings(state)
    ]
    return max(tries, key=lambda names: len(names.keys() & own.keys()))  # the first of equal ones


def difference(own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """What weights lack, have besides or have otherwise than a network's ``own``; "" of the same."""
    missing, extra = ([n for n in a if n not in b] for a, b in ((own, state), (state, own)))
    shapes = [
        f"has {n} of shape {tuple(state[n].shape)} instead of {tuple(own[n].shape)}"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ] + [
        f"has {n} of {str(state[n].dtype).removeprefix('torch.')} numbers"
        for n in own
        if n in state and own[n].is_floating_point() and not state[n].is_floating_point()
    ]
    what = [
        f"lacks {and_more(missing)}" if missing else "",
        f"has {and_more(extra)} besides" if extra else "",
        shapes[0] if shapes else "",
    ]
    return "; ".join(filter(None, what))


def and_more(names: list[str]) -> str:
    """The first of some names, and how many there are."""
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def matched(
    model: torch.nn.Module, state: dict[str, Tensor], path: str | Path, note: bool = True
) -> dict[str, Tensor]:
    """The weights under the names of the model, which may be on the meta device; UserError unless
    names and shapes are its own, num_batches_tracked apart.
    """
    own = model.state_dict()
    state = align_names(state, own)
    state = {
        **{name: value for name, value in own.items() if name.endswith("num_batches_tracked")},
        **state,
    }
    # counters and the like, which no network here has: without effect on what it computes
    harmless = [name for name, value in state.items() if name not in own and value.numel() == 1]
    state = {name: value for name, value in state.items() if name not in harmless}
    if told := difference(own, state):
        raise UserError(f"{path} is a snapshot of another network or number of classes: it {told}")
    if harmless and note:
        print_note(
            f"{Path(path).name}: {unwrap.listed(harmless)}: numbers that this network does "
            "not have, left out"
        )
    return state


def load_weights(
    model: torch.nn.Module, state: dict[str, Tensor], path: str | Path, head: bool = True
) -> None:
    """Load strictly; only BatchNorm's num_batches_tracked, which old files lack,
    may be missing. Without ``head`` the last linear layer stays as it is, whatever the file has for
    it. UserError otherwise.
    """
    if not head:
        state = {**align_names(state, model.state_dict()), **head_weights(model, path)}
    state = matched(model, state, path)
    model.load_state_dict(
        {
            name: value.float() if value.is_floating_point() else value
            for name, value in state.items()
        }
    )


def head_weights(model: torch.nn.Module, path: str | Path) -> dict[str, Tensor]:
    """{name: value} of the model's last linear layer; UserError where it has none."""
    layer = models.linear_head(model)
    if layer is None:
        raise UserError(f"{path}: this network has no last linear layer that could be a new one")
    own = {id(parameter) for parameter in layer.parameters()}
    return {name: value.data for name, value in model.named_parameters() if id(value) in own}


def read_description(path: Path) -> dict | None:
    """What the .json beside a snapshot says, None where there is none; the weights are not read.
    UserError if it is broken.
    """
    file = Path(path).with_suffix(".json")
    if not file.exists():
        return None
    return check_description(read_json(file), file)


def check_arch(arch: object, place: str | Path) -> None:
    """UserError where a file names code to import: only the command line may do that."""
    if not isinstance(arch, str):
        raise UserError(
            f"{place} names its network by {arch!r}, which is no name. Give --arch NAME"
        )
    if ":" in arch and arch.partition(":")[0] not in models.PACKAGES:
        raise UserError(
            f"{place} names '{arch}' as its network, a function of somebody's own module. A file "
            f"does not make this program import code; if you know that module, type: --arch {arch}"
        )


def check_size(arch: str, num_classes: int, state: dict[str, Tensor], path: str | Path) -> None:
    """UserError where a package's network, whose name a file may give, is much larger than the
    weights: before any of its memory is asked for.
    """
    try:
        wanted = models.count_numbers(arch, num_classes)
    except ValueError as error:
        raise UserError(f"network '{arch}': {error}") from None
    there = sum(value.numel() for value in state.values())
    if wanted > 2 * there:
        raise UserError(
            f"{path} is a snapshot of another network: it holds {there:,} numbers, and '{arch}' has "
            f"{wanted:,}"
        )


def check_shape(state: dict, path: str | Path) -> dict:
    """The state of an interrupted run; UserError where its recipe names a larger network than its
    weights are of, before that one's memory is asked for.
    """
    recipe, weights = state["recipe"], state["model"]
    arch = recipe.get("arch", "wrn")
    if arch in models.MODELS:
        shape = {key: recipe[key] for key in ("layers", "widen_factor") if key in recipe}
        with torch.device("meta"):
            model = build_model({"arch": arch, "num_classes": count_classes(weights), **shape})
        matched(model, weights, path, note=False)
    elif arch.partition(":")[0] in models.PACKAGES:
        check_size(arch, count_classes(weights), weights, path)
    return state


def known_network(state: dict) -> dict:
    """What names and shapes tell of a file's network; {} where no network here fits."""
    return next(filter(None, map(models.infer, unwrap.spellings(state))), {})


def most_like(state: dict) -> str:
    """Of a file of no network known here, which it is like and where it differs; "" of none."""
    for names in map(unwrap.with_head, unwrap.spellings(state)):
        found = guess({name: tuple(value.shape) for name, value in names.items()})
        if found:
            try:
                with torch.device("meta"):
                    own = build_model(found).state_dict()
            except UserError:  # a width that no network has
                continue
            counters = [name for name in own if name.endswith("num_batches_tracked")]
            names = {name: value for name, value in names.items() if name not in counters}
            own = {name: value for name, value in own.items() if name not in counters}
            if told := difference(own, names):
                return f"It is most like {found['arch']}, but {told}. "
            return f"It may be {found['arch']}: --arch {found['arch']}. "
    return ""


def dataset_named(path: Path) -> str | None:
    """The ID set that a file's name begins with."""
    name = Path(path).name
    return next((d for d in sorted(ID_SETS, key=len, reverse=True) if name.startswith(d)), None)


def describe(path: str | Path, state: dict[str, Tensor], arch: str | None = None) -> dict:
    """The description beside a snapshot, or what names and shapes tell of a file that has none.

    ``arch`` (``--arch``, possibly ``module:function``) is believed over both.
    """
    description = read_description(path)
    if description is None:
        description = known_network(state)
        description["dataset"] = dataset_named(path)
        if statistics := getattr(state, "statistics", None):
            description["mean"], description["std"] = statistics
    elif description.get("sha256") not in (None, sha256_file(path)):
        raise UserError(
            f"{path} is damaged: its sha256 is not the one in "
            f"{Path(path).with_suffix('.json').name}"
        )
    if arch:
        description["arch"] = arch
        if ":" in arch and "mean" not in description and (own := unwrap.normalisation(state)):
            print_note(
                f"{Path(path).name} holds a normalisation of its own, {' and '.join(own)}. Where the "
                "network applies it, images are to be given as they are: --mean 0 --std 1"
            )
    elif "arch" in description:
        check_arch(description["arch"], Path(path).with_suffix(".json"))
    if "arch" not in description:
        beside = Path(path).with_suffix(".json")
        named = (
            f"{beside.name} names none"
            if beside.exists()
            else f"there is no {beside.name} beside it"
        )
        raise UserError(
            f"{path} is of no network known here ({', '.join(models.MODELS)}), "
            f"and {named}. {most_like(state)}Name its network: "
            "--arch module:function, timm:NAME or torchvision:NAME. It holds "
            f"{unwrap.listed(list(state))}"
        )
    if description.get("num_classes") is None:
        description["num_classes"] = count_classes(state)
    if description["arch"] in models.MODELS:
        with torch.device("meta"):  # before any of its memory is asked for
            shape = build_model(description)
        matched(shape, state, path, note=False)
    elif description["arch"].partition(":")[0] in models.PACKAGES:
        check_size(description["arch"], description["num_classes"], state, path)
    return description


def is_complete(description: dict) -> bool:
    """Whether a description is that of the last epoch of a run of this project's scripts."""
    epochs = (description.get("recipe") or {}).get("epochs")
    return epochs is not None and description.get("epoch") == epochs - 1


def build_model(description: dict) -> torch.nn.Module:
    """The network a description (or a recipe as dict) names."""
    options = {
        key: description[key]
        for key in ("layers", "widen_factor", "droprate", "image_size")
        if description.get(key) is not None
    }
    try:
        return models.build(description["arch"], description["num_classes"], **options)
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        raise UserError(f"network '{description['arch']}': {error}") from None
    except RuntimeError as error:  # labels of 10**12, say, ask for as many outputs
        raise UserError(
            f"network '{description['arch']}' for {description['num_classes']} classes "
            f"cannot be made: {error}"
        ) from None


def load_model(path: str | Path, arch: str | None = None) -> tuple[torch.nn.Module, dict]:
    """(model in eval mode on the CPU, description) of a snapshot file."""
    state, body = read_weights(path, arch), None
    if arch is None and read_description(path) is None and not known_network(state):
        classes = DATASETS[dataset_named(path)].num_classes if dataset_named(path) else 10
        body = unwrap.body_of(state, classes)
    description = describe(path, body or state, arch)
    if body:
        state, description["classifier"], description["loss"] = body, False, "contrastive"
        print_note(
            f"{Path(path).name} has no classifier: scores of its features are what it can be "
            "asked for, and an ID error means nothing"
        )
    model = build_model(description)
    load_weights(model, state, path)
    return model.eval(), description
