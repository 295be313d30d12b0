"""A whole evaluation, all scores: plain code, a process for each score with passes of its own,
against one ``test.py``.

``python -m utils.benchmark --parts evaluation`` runs it. Images are synthetic and smooth, the
network is random but has BatchNorm statistics and a head that fit them, so that no score is
constant or refuses its input.
"""

import argparse
import contextlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import models
from utils import loaders, runtime, scores, snapshots
from utils.evaluation import report
from utils.evaluation.network import CACHE
from utils.evaluation.rows import draw_indices
from utils.loaders import normalise

from .apart import call_apart, run_apart
from .plain import pil_loader, sklearn_metrics

NAME, CLASSES, BATCH = "synthetic", 10, 200
# a side, of the noise in the OOD sets and in the ID images
CELLS, ID_CELLS = (2, 3, 6, 8, 12, 16), 4
METRICS = ("fpr95", "auroc")
DRAWS, SEED = 10, 1  # test.py's defaults


def smooth_noise(count: int, cells: int, seed: int) -> torch.Tensor:
    """(N,3,32,32) float32: standard Gaussian noise on a grid of cells x cells, enlarged."""
    noise = torch.randn(count, 3, cells, cells, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, 32, mode="bilinear")


def to_pixels(values: torch.Tensor) -> np.ndarray:
    """uint8 (N,32,32,3) of (N,3,32,32) values of about unit variance."""
    return (128 + 40 * values).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def write_images(folder: Path, count: int) -> None:
    """train.npz (5 count images), test.npz (count) and six OOD sets (0.3 count, more than one draw
    of count / 5) in a folder.

    An ID image is its class's pattern and fainter noise;
    OOD images are noise, each set's of another coarseness.
    """
    patterns = smooth_noise(CLASSES, 3, 0)
    for seed, (split, number) in enumerate((("train", 5 * count), ("test", count)), 1):
        labels = torch.arange(number) % CLASSES
        pixels = to_pixels(patterns[labels] + smooth_noise(number, ID_CELLS, seed) / 2)
        np.savez(folder / f"{split}.npz", images=pixels, labels=labels.numpy())
    for cells in CELLS:
        noise = smooth_noise(3 * count // 10, cells, 100 + cells)
        np.savez(folder / f"noise_{cells}.npz", images=to_pixels(noise))


@torch.no_grad()
def make_snapshot(folder: Path, train: loaders.ImageSet, args: argparse.Namespace) -> Path:
    """Path of a snapshot of a random network: BatchNorm statistics and class means are
    those of its training images.
    """
    shape = {"layers": args.layers, "widen_factor": args.widen_factor, "droprate": 0.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.build(args.arch, CLASSES, **shape).train()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    batches = [normalise(part) for part in train.images.permute(0, 2, 3, 1)[:1000].split(BATCH)]
    for norm in norms:
        norm.momentum = None  # the plain mean over the batches
    for x in batches:
        model(x)
    hidden, labels = torch.cat([model.eval()(x)[1] for x in batches]), train.labels[:1000]
    means = torch.stack([hidden[labels == c].mean(0) for c in range(CLASSES)]) - hidden.mean(0)
    model.fc.weight.copy_(means)  # the nearest class mean, with logits of a trained network's size
    model.fc.bias.copy_(-means @ hidden.mean(0) - means.square().sum(1) / 2)
    scale = 3 / model.fc(hidden).std()
    model.fc.weight.mul_(scale)
    model.fc.bias.mul_(scale)
    path = snapshots.snapshot_path(folder, f"{NAME}_{args.arch}_pretrained".replace(":", "_"), 0)
    description = {"arch": args.arch, "num_classes": CLASSES, "dataset": NAME, "image_size": 32}
    snapshots.save_snapshot(path, model, {**description, **shape})
    return path


def plain_outputs(
    model: torch.nn.Module,
    images: loaders.ImageSet,
    device: torch.device,
    score: scores.Score | None = None,
) -> scores.Outputs:
    """Outputs of an ImageSet from a pass of its own, at the images moved by the score's
    input step if one is given.
    """
    parts, std = [], torch.tensor(loaders.STD, device=device).view(1, 3, 1, 1)
    for x, _ in pil_loader(images, BATCH):
        x = x.to(device)
        if score is not None:
            x.requires_grad_(True)
            (gradient,) = torch.autograd.grad(score.objective(*model(x)), x)
            x = x.detach() - score.eps * gradient.sign() / std
        with torch.no_grad():
            parts.append([part.cpu().numpy() for part in model(x)])
    logits, hidden = map(np.concatenate, zip(*parts))
    labels = None if images.labels is None else images.labels.numpy()
    head = (part.detach().cpu().numpy() for part in (model.fc.weight, model.fc.bias))
    return scores.Outputs(logits, hidden, labels, *head)


def evaluate_plain(
    specification: str, snapshot: str | Path, folder: str | Path, device: str
) -> dict:
    """{"fpr95", "auroc"}: {set: percent, mean over the draws} of one score, by plain code."""
    (score,), device = scores.choose(specification, NAME), torch.device(device)
    model = snapshots.load_model(snapshot)[0].to(device)
    if "train" in score.needs:
        score.fit(plain_outputs(model, loaders.load_id(NAME, "train", path=folder), device))
    step = score if "gradient" in score.needs else None
    id_set = loaders.load_id(NAME, "test", path=folder)
    id_scores = score.score(plain_outputs(model, id_set, device, step))
    found = {metric: {} for metric in METRICS}
    for ood in loaders.parse_ood(ood_names(folder), NAME):
        values = score.score(plain_outputs(model, ood, device, step))
        draws = draw_indices(len(ood), len(id_set) // 5, DRAWS, SEED, ood.name)
        rows = [sklearn_metrics(id_scores, values[draw]) for draw in draws]
        for metric, by_set in found.items():
            by_set[ood.name] = 100 * float(np.mean([row[metric] for row in rows]))
    return found


def ood_names(folder: str | Path) -> str:
    return ",".join(f"folder:{Path(folder) / f'noise_{cells}.npz'}" for cells in CELLS)


def run_plain(
    names: list[str], snapshot: Path, folder: Path, device: torch.device
) -> tuple[dict, float, float]:
    """({score: what evaluate_plain says}, seconds of all processes, peak MiB of the largest)."""
    found, seconds, peaks = {}, 0.0, []
    given = (snapshot, folder, device.type)
    for name in names:
        found[name], took, peak = call_apart("evaluation:evaluate_plain", name, *given)
        seconds += took
        peaks.append(peak)
    return found, seconds, max(peaks)


def run_ours(
    specification: str, snapshot: Path, folder: Path, device: torch.device, precision: str
) -> tuple[dict, float, float]:
    """The same by one test.py that finds nothing in its caches and leaves nothing there."""
    cache = CACHE / runtime.sha256_file(snapshot)[:16]
    shutil.rmtree(cache, ignore_errors=True)
    command = ["test.py", "--model", snapshot, "--id", folder, "--ood", ood_names(folder)]
    command += ["--score", specification, "--save", folder / "results"]
    command += ["--device", device.type, "--precision", precision]
    compiled = str(folder / "compiled")
    try:
        _, seconds, peak = run_apart(command, TORCHINDUCTOR_CACHE_DIR=compiled)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        with contextlib.suppress(OSError):  # there are caches of other snapshots
            CACHE.rmdir()
    result = report.read_result(next((folder / "results").glob("*.json")))
    found = {
        entry["score"]: {
            metric: {row["set"]: row[metric] for row in entry["sets"]} for metric in METRICS
        }
        for entry in result["scores"]
    }
    return found, seconds, peak


def largest_difference(plain: dict, ours: dict, metric: str) -> dict:
    """The most points that a score on a set has apart in the two evaluations, and where that is; a
    score that is missing from ours is infinitely far.
    """
    apart = {
        f"{name}/{ood}": abs(ours.get(name, {metric: {}})[metric].get(ood, np.inf) - value)
        for name, found in plain.items()
        for ood, value in found[metric].items()
    }
    where = max(apart, key=apart.get)
    return {"largest": apart[where], "where": where}


def part_evaluation(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of the part: one round, each row all scores once. The project's also says how far its
    metrics are from the plain ones, which is printed, and how long starting a process takes.
    """
    names = [score.label for score in scores.choose(args.evaluation_scores, NAME)]
    count = args.evaluation_images
    images = {"train": 5 * count, "test": count, "ood": len(CELLS) * (3 * count // 10)}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_images(folder, count)
        snapshot = make_snapshot(folder, loaders.load_id(NAME, "train", path=folder), args)
        # imports and no more, which every process of either evaluation begins with
        _, start, _ = run_apart(["test.py", "--list-scores"])
        plain, plain_seconds, plain_peak = run_plain(names, snapshot, folder, device)
        ours, seconds, peak = run_ours(args.evaluation_scores, snapshot, folder, device, precision)
    total = sum(images.values())
    part = f"evaluation, {len(names)} scores, {total:,} images"
    common = {"part": part, "spread": None, "rounds": 1, "images": images}
    apart = {metric: largest_difference(plain, ours, metric) for metric in METRICS}
    for metric, most in apart.items():
        told = f"differs by at most {most['largest']:.3f} points ({most['where']})"
        print(f"evaluation: {metric} {told}")
    started = (plain_seconds - len(names) * start) / max(seconds - start, 0.001)
    print(f"evaluation: a process starts in {start:.1f} s; without that the ratio is {started:.2f}")
    return [
        {
            **common,
            "what": "a process a score, eager fp32 NCHW, PIL",
            "rate": total / plain_seconds,
            "ratio": 1.0,
            "seconds": [plain_seconds],
            "peak_mib": plain_peak,
        },
        {
            **common,
            "what": f"this project, {precision}, one test.py",
            "rate": total / seconds,
            "ratio": plain_seconds / seconds,
            "seconds": [seconds],
            "peak_mib": peak,
            "apart": apart,
            "start_s": start,
            "ratio_after_start": started,
        },
    ]
