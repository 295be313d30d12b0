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
from utils.loaders import STD, Batches, check_fits
from utils.runtime import (
    CIFAR,
    UserError,
    autocast,
    compile_inference,
    inference_batch,
    prepare,
    write_bytes,
)

CACHE = CIFAR / "cache"
FORWARD_CODE = [str(file) for package in (models, loaders, runtime) for file in Path(package.__file__).parent.rglob("*.py")] + [__file__]
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


def source_hash(*files, text=""):
    """Short sha256 of source files and a text: outputs cached by an older formula or network are not read by a newer one."""
    return hashlib.sha256(text.encode() + b"".join(Path(file).read_bytes() for file in sorted(files))).hexdigest()[:8]


def source_files(model, arch):
    """Files with the code of every module of a network, and of the module that ``module:function`` names."""
    found = set(FORWARD_CODE)
    for code in [*{type(module) for module in model.modules()}, *([importlib.import_module(arch.partition(":")[0])] if ":" in arch else [])]:
        with contextlib.suppress(TypeError, OSError):    # made without a file
            found.add(inspect.getfile(code))
    return found


class Network:
    """A loaded snapshot, and the outputs it gives for image sets.

    ``outputs(images)`` are those of one forward pass; ``stepped_outputs(images, score)`` those at the images moved by a
    score's input step. Both are read from the cache where an earlier run has left them.

    ``compile``: "on", "off", or "auto" = only if what ``plan`` was told of costs more than compiling does.
    """

    def __init__(self, model, sha256, device, precision, batch_size=200, cache=None, compile="off", arch=""):
        self.model, self.sha256, self.device = prepare(model, device).eval(), sha256, device
        self.precision, self.batch_size = precision, inference_batch(batch_size, device)
        self.cache, self.memory = Path(cache or CACHE), {}
        self.model.requires_grad_(False)   # the input step differentiates by the image alone
        self.compile, self.compiled = compile, None
        # the same weights may belong to networks that differ in code, in options without weights or in --arch alone
        asked = "" if compile == "auto" else compile     # compiled and eager bfloat16 round differently: who asks for one gets no outputs of the other
        self.network_code = source_hash(*source_files(model, arch), text=f"{arch} {model} {device.type} {torch.__version__} {asked}")
        self.score_code = source_hash(*Path(scores.__file__).parent.rglob("*.py"))

    def outputs(self, images):
        """Outputs of an ImageSet: logits (N,C) and features (N,D) float32 in the set's order."""
        return self.with_head(self.cached(self.key(images), lambda: self.run(images, self.forward)), images)

    def key(self, images):
        """Name of an ImageSet's outputs in the cache."""
        return f"{images.fingerprint[:16]}-{self.precision}-{self.network_code}"

    def plan(self, image_sets):
        """Settle whether "auto" compiles, given the sets whose outputs will be asked for."""
        count = sum(len(images) for images in image_sets if not self.path(self.key(images)).exists())
        if self.compile == "auto":
            self.compile = "on" if count and count * multiply_adds(self.model, image_sets[0]) > COMPILE_ABOVE.get(self.device.type, math.inf) else "off"

    def stepped_outputs(self, images, score):
        """Outputs at x - eps * sign(gradient of the score's objective) / std per channel, in normalised space.

        The step is computed in float32: the sign of a gradient rounded to bfloat16 is another image.
        """
        inputs = hashlib.sha256("".join([score.label, repr(sorted(score.hyper.items())), *(f"{k}{v.tobytes()}" for k, v in sorted(score.stats.items()))]).encode())
        code = source_hash(inspect.getfile(type(score)), text=self.score_code)      # a score of one's own lies elsewhere
        key = f"{images.fingerprint[:16]}-{score.name}-{inputs.hexdigest()[:16]}-{self.network_code}-{code}"
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
            if self.compile != "on":
                return self.model(x)
            full = torch.cat([x, x[-1:].expand(self.batch_size - len(x), -1, -1, -1)])   # compiled for whole batches only
            full = full.contiguous(memory_format=torch.channels_last)
            if self.compiled is None:
                self.compiled = compile_inference(self.model, full)
            return [part[:len(x)] for part in self.compiled(full)]

    def forward_stepped(self, x, score):
        """(logits, features) at the batch moved by the score's input step, in float32."""
        with torch.enable_grad():
            x.requires_grad_(True)
            gradient, = torch.autograd.grad(score.objective(*self.model(x)), x)
        std = torch.tensor(STD, device=x.device).view(1, 3, 1, 1)
        with torch.no_grad():
            return self.model(x - score.eps * gradient.sign() / std)

    def fit(self, score, train_images):
        """Fit a score on the ID training images, or load what it learnt from the cache."""
        if not score.cache_stats:
            return score.fit(self.outputs(train_images))
        fitted = []

        def learn():
            fitted.append(score.fit(self.outputs(train_images)))
            return score.stats
        options = hashlib.sha256(repr(sorted(score.hyper.items())).encode()).hexdigest()[:12]
        stats = self.cached(f"{train_images.fingerprint[:16]}-{self.precision}-fit-{score.name}-{options}-{self.network_code}-{self.score_code}", learn)
        if not fitted:
            score.stats = stats
        return score

    def score(self, score, images):
        """(N,) float64 scores of an ImageSet, larger = more OOD; UserError naming the image if one is NaN."""
        outputs = self.stepped_outputs(images, score) if "gradient" in score.needs else self.outputs(images)
        values = np.asarray(score.score(outputs), dtype=np.float64)
        if values.shape != (len(images),):
            raise UserError(f"score '{score.label}' gave an array of shape {values.shape} for {len(images)} images of '{images.name}'")
        if np.isnan(values).any():
            raise UserError(f"score '{score.label}' of image {int(np.argmax(np.isnan(values)))} of '{images.name}' is NaN")
        return values
