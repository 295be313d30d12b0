"""Snapshots: where they lie, how they are named, written, found and loaded.

A snapshot is a plain state_dict ``{stem}_epoch_{e}.pt`` with a description ``.json`` beside it. The state that --resume
needs is a third file, ``{stem}.resume.pt`` (runs.py). Everything is loaded with ``weights_only``.
"""
import contextlib
import hashlib
import io
import json
import os
import re
import time
import warnings
from pathlib import Path

import torch

import models

from .runtime import (
    CIFAR,
    UserError,
    json_bytes,
    sha256_file,
    write_files,
    write_text,
)

SNAPSHOTS = CIFAR / "snapshots"
FOLDERS = SNAPSHOTS / "folders.txt"   # other folders that runs have written to, so that their snapshots are found by name
PROVIDED = SNAPSHOTS / "provided"     # what comes with the project: used where there is no run of one's own of that folder and name
SWEEP = SNAPSHOTS / "sweep"           # short fine-tunings of reproduce.py --sweep, which are found by path alone
REPLACED = "replaced"                 # where a former run's snapshots go when a new run of the same name begins


def resolve_folder(text):
    """Absolute path of a --save or --load value: ./snapshots/... is the project's snapshots folder from wherever one is."""
    path = Path(text).expanduser()
    parts = [part for part in path.parts if part != "."]
    if not path.is_absolute() and parts and parts[0] == "snapshots":
        return Path(os.path.abspath(SNAPSHOTS.joinpath(*parts[1:])))
    return path.resolve()


def to_bytes(content):
    """torch.save into memory: writing the bytes ourselves makes a full disk an OSError and the rename safe."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def snapshot_path(folder, stem, epoch):
    return Path(folder) / f"{stem}_{'best' if epoch == 'best' else f'epoch_{epoch}'}.pt"


def save_snapshot(path, model, description):
    """Write the weights (CPU, contiguous, without a compiled model's prefix) together with their description and sha256."""
    save_weights(path, {clean_name(name): value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, description)


def save_weights(path, state, description):
    """Write a state_dict and its description, with the file's sha256, so that both are there or neither."""
    state = to_bytes(state)
    description = {**description, "sha256": hashlib.sha256(state).hexdigest(),
                   "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    write_files({path: state, path.with_suffix(".json"): json_bytes(description)})


def remove_snapshot(path):
    for file in (path, path.with_suffix(".json")):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()


def remember_folder(folder):
    """Note a folder outside the project's, so that its snapshots are found by name."""
    if not folder.is_relative_to(SNAPSHOTS):
        known = FOLDERS.read_text().splitlines() if FOLDERS.exists() else []
        if str(folder) not in known:
            write_text(FOLDERS, "\n".join([*known, str(folder)]) + "\n")


def read_pt(path):
    """Content of a .pt file, tensors and plain values only; UserError when it is corrupted or holds anything else."""
    try:
        with warnings.catch_warnings():   # torch warns of files that it then refuses
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is not a readable snapshot (corrupted, or more than tensors in it): {reason[:200]}") from None


def clean_name(name):
    """A parameter's own name: without what DataParallel and torch.compile put before it, a published head as ``fc``."""
    while name.startswith(("module.", "_orig_mod.")):
        name = name.split(".", 1)[1]
    for alias, head in models.HEAD_ALIASES.items():
        if name.startswith(alias):
            name = head + name[len(alias):]
    return name


def read_weights(path):
    """state_dict of a snapshot or a published file: from under a "state_dict" key if there is one, names cleaned."""
    content = read_pt(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(n, str) and torch.is_tensor(v) for n, v in content.items()):
        raise UserError(f"{path} holds no state_dict")
    return {clean_name(name): value for name, value in content.items()}


def load_weights(model, state, path):
    """Load strictly; only BatchNorm's num_batches_tracked, which old files lack, may be missing. UserError otherwise."""
    own = model.state_dict()
    state = {**{name: value for name, value in own.items() if name.endswith("num_batches_tracked")}, **state}
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shapes = [f"{n} {tuple(state[n].shape)} instead of {tuple(own[n].shape)}" for n in own
              if n in state and state[n].shape != own[n].shape]
    if missing or extra or shapes:
        what = [f"lacks {missing[0]} and {len(missing) - 1} more" if missing else "",
                f"has {extra[0]} and {len(extra) - 1} more besides" if extra else "", shapes[0] if shapes else ""]
        raise UserError(f"{path} is a snapshot of another network or number of classes: it {'; '.join(filter(None, what))}")
    model.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})


def describe(path, state, arch=None):
    """The description beside a snapshot, or what names and shapes tell of a file that has none.

    ``arch`` (``--arch``, possibly ``module:function``) is believed over both.
    """
    file = Path(path).with_suffix(".json")
    if file.exists():
        try:
            description = json.loads(file.read_text())
        except ValueError as error:
            raise UserError(f"{file} is not readable as JSON ({error})") from None
        if not isinstance(description, dict):
            raise UserError(f"{file} does not describe a snapshot. Remove it, and names and shapes are read off the file instead")
        if description.get("sha256") not in (None, sha256_file(path)):
            raise UserError(f"{path} is damaged: its sha256 is not the one in {file.name}")
    else:
        description = models.infer(state) or {}
        name = Path(path).name
        description["dataset"] = next((d for d in ("cifar100", "cifar10", "digits") if name.startswith(d)), None)
    if arch:
        description["arch"] = arch
    if "arch" not in description:
        raise UserError(f"{path} is of no network known here ({', '.join(models.MODELS)}), and there is no {file.name} beside it. "
                        f"Name its network: --arch module:function")
    description.setdefault("num_classes", len(state["fc.weight"]) if "fc.weight" in state else 10)
    return description


def is_complete(description):
    """Whether a description is that of the last epoch of a run of this project's scripts."""
    epochs = description.get("recipe", {}).get("epochs")
    return epochs is not None and description.get("epoch") == epochs - 1


def build_model(description):
    """The network a description (or a recipe as dict) names."""
    options = {key: description[key] for key in ("layers", "widen_factor", "droprate") if description.get(key) is not None}
    try:
        return models.build(description["arch"], description["num_classes"], **options)
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        raise UserError(f"network '{description['arch']}': {error}") from None
    except RuntimeError as error:   # labels of 10**12, say, ask for as many outputs
        raise UserError(f"network '{description['arch']}' for {description['num_classes']} classes cannot be made: {error}") from None


def load_model(path, arch=None):
    """(model in eval mode on the CPU, description) of a snapshot file."""
    state = read_weights(path)
    description = describe(path, state, arch)
    model = build_model(description)
    load_weights(model, state, path)
    return model.eval(), description


def stem_of(path):
    return re.sub(r"_(epoch_\d+|best)$", "", Path(path).stem)


def epoch_of(path):
    match = re.search(r"_epoch_(\d+)$", Path(path).stem)
    return int(match.group(1)) if match else -1


def short_name(path):
    """What --model takes for a snapshot file: folder/name inside the snapshots folder, else its path."""
    return f"{path.parent.name}/{path.stem}" if path.is_relative_to(SNAPSHOTS) else str(path)


def all_snapshots():
    """Snapshot files of every folder a run has written to: those below the project's snapshots folder and in folders.txt.

    Of the provided ones, those that no run of one's own has taken the place of.
    """
    files = [f for f in SNAPSHOTS.rglob("*.pt") if not {REPLACED, SWEEP.name} & set(f.relative_to(SNAPSHOTS).parts)]
    if FOLDERS.exists():
        files += [f for line in FOLDERS.read_text().splitlines() for f in Path(line).glob("*.pt")]
    unique = {f.resolve(): f for f in reversed(files) if not f.name.endswith(".resume.pt")}   # a link may lead to a folder twice
    own = {(f.parent.name, stem_of(f)) for f in unique.values() if not f.is_relative_to(PROVIDED)}
    return sorted(f for f in unique.values() if not f.is_relative_to(PROVIDED) or (f.parent.name, stem_of(f)) not in own)


def find_snapshots(name):
    """Files a --model or --load value means: a path, a file name, or a stem = its newest epoch in each folder that has it.

    A stem may begin with its folder's name, ``tune_sr/cifar10_wrn_s1_tune``. UserError when there is none.
    """
    for path in (Path(name).expanduser(), resolve_folder(name)):
        if path.is_file():
            return [path.resolve()]
    wanted = re.sub(r"\.pt$", "", name)
    wanted, folder = Path(wanted).name, Path(wanted).parent.name
    files = [f for f in all_snapshots() if folder in ("", f.parent.name)]
    exact = [f for f in files if f.stem == wanted]
    if exact:
        return exact
    newest = {}
    for file in files:
        if stem_of(file) == wanted and epoch_of(file) >= epoch_of(newest.get(file.parent, Path("none"))):
            newest[file.parent] = file
    if newest:
        return list(newest.values())
    there = ", ".join(dict.fromkeys(stem_of(f) for f in all_snapshots())) or "no snapshot"
    command = baseline_command(wanted)
    command = command.replace("baseline.py", "tune.py") if "tune" in name else command
    raise UserError(f"snapshot '{name}' not found in {SNAPSHOTS} and its folders. There is: {there}. Run: {command}")


def baseline_command(stem):
    """The command that trains what a stem names."""
    dataset, underscore, _ = stem.partition("_")
    if dataset in ("cifar10", "cifar100", "digits") or not underscore:
        return f"python baseline.py {dataset if underscore else 'cifar10'}"
    return f"python baseline.py {dataset} --id PATH"


def in_folder(folder, stem):
    """[the file of that name, or its newest epoch], [] when the folder has neither."""
    return [f for f in [folder / f"{stem}.pt"] if f.is_file()] or \
        sorted((f for f in folder.glob(f"{stem}_epoch_*.pt") if stem_of(f) == stem), key=epoch_of)[-1:]


def find_one(name, stem=None):
    """The one file a --load value means; a folder is searched for ``stem``. UserError when there is none or there are several."""
    folder = resolve_folder(name)
    if stem and folder.is_dir() or stem and name.startswith(("./", "snapshots/")) and not folder.is_file():
        stem = stem.removesuffix(".pt")
        files = in_folder(folder, stem)
        if not files and folder.is_relative_to(SNAPSHOTS):
            files = in_folder(PROVIDED / folder.relative_to(SNAPSHOTS), stem)
        if not files:
            there = ", ".join(sorted({stem_of(f) for f in folder.glob("*.pt")
                                       if not f.name.endswith(".resume.pt")})) or "no snapshot"
            raise UserError(f"snapshot '{stem}' not found in {folder}. There is: {there}. Run: {baseline_command(stem)}")
    else:
        files = find_snapshots(name)
    if len(files) > 1:
        raise UserError(f"'{name}' means several snapshots: {', '.join(short_name(f) for f in files)}. Name one of them")
    return files[0]
