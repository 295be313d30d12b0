"""One forward pass an image set: logits and features for every score, kept in a cache keyed by snapshot and data."""
import contextlib
import hashlib
import importlib
import inspect
import io
import math
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import models
from utils import loaders, runtime, scores
from utils.loaders import MEAN, STD, Batches, check_fits
from utils.runtime import (
    CIFAR,
    UserError,
    autocast,
    compile_inference,
    inference_batch,
    prepare,
    prune,
    write_bytes,
)

CACHE = CIFAR / "cache"
FORWARD = 1                  # raise it with every change to the pass or a network that changes outputs; test_network.py finds them
CACHE_LIMIT = 4 << 30        # bytes; a WRN-40-2 leaves about 80 MB of the papers' test sets and CIFAR's training images
# Multiplications that take as long as compiling does: on a CPU 15,000 images of a WRN-40-2; on a GPU about a million, a guess.
COMPILE_ABOVE = {"cpu": 5e12, "cuda": 3e14}


def multiply_adds(model, images):
    """Multiplications of one image's forward pass in convolutions and linear layers."""
    counts = []

    def count(module, inputs, output):
        outputs = output.numel() / len(output)
        counts.append(outputs * module.weight.numel() / module.weight.shape[0])
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        check_fits(model, images)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counts)


def own_code(model: torch.nn.Module, arch: str) -> str:
    """What else tells a network of one's own from others with the same weights: its modules and their source files.

    The text of the files counts because their author knows nothing of FORWARD.
    """
    if arch in models.MODELS:
        return ""
    makers = {type(m) for m in model.modules() if not type(m).__module__.startswith("torch.")}
    makers |= {importlib.import_module(arch.partition(":")[0])} if ":" in arch else set()
    return f"{arch} {model} {sorted(map(file_hash, makers))}"


def file_hash(code: object) -> str:
    """sha256 of the source file of a class or module, "" for one made without a file."""
    with contextlib.suppress(TypeError, OSError):
        return runtime.sha256_file(inspect.getfile(code))
    return ""


class Network:
    """A loaded snapshot, and the outputs it gives for image sets.

    ``outputs(images)`` are those of one forward pass; ``stepped_outputs(images, score)`` those at the images moved by a
    score's input step. Both are read from the cache where an earlier run has left them. ``cache``: its folder.

    ``compile``: "on", "off", or "auto" = what ``plan`` settles. ``compiled`` says what the outputs are of: True, the
    compiled network, False, the eager one (in bfloat16 they round differently), None while that is not settled.
    """

    def __init__(self, model, sha256, device, precision, batch_size=200, cache=None, compile="off", arch=""):
        self.model, self.sha256, self.device = prepare(model, device).eval(), sha256, device
        self.precision, self.batch_size = precision, inference_batch(batch_size, device)
        self.cache, self.memory = Path(cache or CACHE), {}
        self.model.requires_grad_(False)   # the input step differentiates by the image alone
        self.compiled = {"on": True, "off": False, "auto": None}[compile]
        self.kernel = None                 # the compiled network, or the network itself where compiling failed
        self.code = arch, own_code(model, arch)

    def outputs(self, images: loaders.ImageSet) -> scores.Outputs:
        """Outputs of an ImageSet: logits (N,C) and features (N,D) float32 in the set's order."""
        self.plan([images])
        key = self.key(images, self.precision, self.compiled)
        return self.with_head(self.cached(key, lambda: self.run(images, self.forward)), images)

    def key(self, images: loaders.ImageSet, *what: object) -> str:
        """Name of an ImageSet's outputs among those of this snapshot: a hash of what changes them."""
        parts = (FORWARD, self.code, images.fingerprint, MEAN, STD, self.device.type, *what)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def plan(self, image_sets: list[loaders.ImageSet]) -> None:
        """Settle once whether outputs are compiled, given the sets they are wanted of, and compile if any set needs it.

        "auto" is eager where eager outputs of all sets are cached, else compiled where compiled ones are, or where the
        passes cost more than compiling does. Where compiling fails, outputs are eager.
        """
        missing = {kind: sum(len(images) for images in image_sets if not self.is_cached(self.key(images, self.precision, kind)))
                   for kind in (False, True)}
        if self.compiled is None:
            limit = COMPILE_ABOVE.get(self.device.type, math.inf)
            self.compiled = missing[False] > 0 and (
                missing[True] == 0 or missing[False] * multiply_adds(self.model, image_sets[0]) > limit)
        if self.compiled and missing[True] and self.kernel is None:
            self.forward(torch.zeros(1, *image_sets[0].images.shape[1:], device=self.device))
            self.compiled = self.kernel is not self.model

    def stepped_outputs(self, images: loaders.ImageSet, score: scores.Score) -> scores.Outputs:
        """Outputs at x - eps * sign(gradient of the score's objective) / std per channel, in normalised space.

        The step is computed in float32: the sign of a gradient rounded to bfloat16 is another image. The source file of
        a score of one's own is part of the key, as in ``own_code``.
        """
        stats = [(name, hashlib.sha256(value.tobytes()).hexdigest()) for name, value in sorted(score.stats.items())]
        own = file_hash(type(score)) if getattr(score, "own", False) else ""
        key = self.key(images, "step", score.name, sorted(score.hyper.items()), stats, own)
        return self.with_head(self.cached(key, lambda: self.run(images, lambda x: self.forward_stepped(x, score))), images)

    def with_head(self, arrays, images):
        """Outputs of arrays, with a copy of the network's head and the set's labels; UserError when they are not finite.

        All are read-only: a score that changed them in place would change those of every later score.
        """
        head = self.model.fc
        weight = head.weight.detach().float().cpu().numpy().copy()
        bias = np.zeros(len(weight), np.float32) if head.bias is None else head.bias.detach().float().cpu().numpy().copy()
        for array in (arrays["logits"], arrays["features"], weight, bias):
            array.setflags(write=False)
        labels = None if images.labels is None else images.labels.numpy()
        try:
            return scores.Outputs(arrays["logits"], arrays["features"], labels, weight, bias)
        except ValueError as error:
            raise UserError(f"'{images.name}': {error}: the snapshot is broken, or trained in a way that diverged") from None

    def cached(self, key, make):
        """Arrays of ``make()``, from memory or the cache file of this snapshot and key where there is a whole one."""
        if key not in self.memory:
            self.memory[key] = self.load_or_make(key, make)
        return self.memory[key]

    def is_cached(self, key: str) -> bool:
        return key in self.memory or self.path(key).exists()

    def path(self, key):
        """The cache file of a key."""
        return self.cache / self.sha256[:16] / f"{key}.npz"

    def load_or_make(self, key, make):
        """Arrays of the cache file, or those of ``make()``, which are written there."""
        path = self.path(key)
        with contextlib.suppress(Exception):   # missing, damaged or half-written by an older version: made again
            with np.load(path, allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        arrays = make()
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        with contextlib.suppress(OSError, UserError):   # a full disk only costs the next run its pass
            write_bytes(path, buffer.getbuffer())
            prune(self.cache, "*/*.npz", CACHE_LIMIT)
        return arrays

    def run(self, images, forward):
        """Fill preallocated arrays batch by batch; the device is waited for once a batch, when it copies out."""
        batches = Batches(images, self.batch_size, self.device)
        arrays, start = None, 0
        for x, _ in tqdm(batches, images.name, len(batches), unit="batch", disable=None, leave=False):
            parts = forward(x)
            if arrays is None:
                arrays = {name: np.empty((len(images), part.shape[1]), np.float32)
                          for name, part in zip(("logits", "features"), parts)}
            for array, part in zip(arrays.values(), parts):
                array[start:start + len(x)] = part.float().cpu().numpy()
            start += len(x)
        return arrays

    @torch.inference_mode()
    def forward(self, x):
        """(logits, features) of a normalised batch, in the network's precision, compiled where that has been settled."""
        with autocast(self.device, self.precision):
            if not self.compiled:
                return self.model(x)
            full = torch.cat([x, x[-1:].expand(self.batch_size - len(x), -1, -1, -1)])   # compiled for whole batches only
            full = full.contiguous(memory_format=torch.channels_last)
            if self.kernel is None:
                self.kernel = compile_inference(self.model, full)
            return [part[:len(x)] for part in self.kernel(full)]

    def forward_stepped(self, x, score):
        """(logits, features) at the batch moved by the score's input step, in float32."""
        with torch.enable_grad():
            x.requires_grad_(True)
            gradient, = torch.autograd.grad(score.objective(*self.model(x)), x)
        std = torch.tensor(STD, device=x.device).view(1, 3, 1, 1)
        with torch.no_grad():
            return self.model(x - score.eps * gradient.sign() / std)

    def fit(self, score: scores.Score, train_images: loaders.ImageSet) -> scores.Score:
        """Fit a score on the ID training images, which takes a moment once their outputs are there."""
        return score.fit(self.outputs(train_images))

    def score(self, score, images):
        """(N,) float64 scores of an ImageSet, larger = more OOD; UserError naming the image if one is NaN."""
        outputs = self.stepped_outputs(images, score) if "gradient" in score.needs else self.outputs(images)
        values = np.asarray(score.score(outputs), dtype=np.float64)
        if values.shape != (len(images),):
            raise UserError(f"score '{score.label}' gave an array of shape {values.shape} for {len(images)} images of '{images.name}'")
        if np.isnan(values).any():
            raise UserError(f"score '{score.label}' of image {int(np.argmax(np.isnan(values)))} of '{images.name}' is NaN")
        return values
