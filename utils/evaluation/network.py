"""One forward pass an image set: logits and features for every score,
kept in a cache keyed by what changes them.
"""

import importlib.util
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import models
from utils import scores
from utils.loaders import MEAN, STD, Batches, ImageSet
from utils.runtime import (
    CIFAR,
    Cache,
    UserError,
    autocast,
    compile_inference,
    compile_openvino,
    inference_batch,
    prepare,
    printable,
    ranks,
)

from .fitting import check_needs, checked_values
from .shards import Shards
from .told import digest, head_arrays, multiply_adds, own_code

CACHE = CIFAR / "cache"
# To be raised when the same weights and images give other outputs than before, also after an input
# step: what is cached is not read then. A test holds the outputs of fixed networks and
# says so when they change.
FORWARD = 3
# their bfloat16 outputs are rounded differently
EAGER, COMPILED, OPENVINO = "eager", "compiled", "openvino"
# Multiplications that take as long as compiling does: on a CPU 15,000 images of a WRN-40-2; on a
# GPU about a million, a guess.
COMPILE_ABOVE = {"cpu": 5e12, "cuda": 3e14}


class Network:
    """A loaded snapshot, and the outputs it gives for image sets.

    ``outputs(images)`` are those of one forward pass; ``stepped_outputs(images, score)`` those at
    the images moved by a score's input step. Both are read from the cache where an
    earlier run has left them.

    ``compiling``: "on", "off" (at first), or "auto" = what the cache has, else compiled if the work
    is worth it (``plan``). ``kind`` says which of the two the outputs are, cached or not; None
    before "auto" is settled.
    """

    def __init__(self, model, sha256, device, precision, batch_size=200, cache=None, arch=""):
        self.model, self.sha256, self.device = prepare(model, device).eval(), sha256, device
        self.precision, self.batch_size = precision, inference_batch(batch_size, device)
        self.cache, self.memory = Cache(cache or CACHE), {}
        self.model.requires_grad_(False)  # the input step differentiates by the image alone
        self.kind, self.compiled = EAGER, None
        self.mean, self.std = MEAN, STD
        self.code = own_code(model, arch)

    def compiling(self, compile: str) -> "Network":
        """The same network: compiled "on", "off", by "openvino", or "auto" as ``plan`` settles it.

        UserError for OpenVINO on another device than a CPU, or where it is not installed.
        """
        self.kind = {"on": COMPILED, "off": EAGER, "auto": None, OPENVINO: OPENVINO}[compile]
        if compile == OPENVINO and self.device.type != "cpu":
            raise UserError("--compile openvino is for the CPU. Run with: --device cpu")
        if compile == OPENVINO and importlib.util.find_spec("openvino") is None:
            raise UserError(
                "--compile openvino needs the package openvino. Run: pip install openvino"
            )
        return self

    def key(self, images: ImageSet, kind: str | None = None) -> str:
        """Name of an ImageSet's outputs in the cache: all that changes them is in it."""
        numerics = f"{self.precision}-{self.device.type}-{kind or self.kind}"
        if torch.are_deterministic_algorithms_enabled() and self.device.type != "cpu":
            numerics += "-deterministic"
        return f"{self.place(images)}-{numerics}-{digest(FORWARD, self.mean, self.std, *self.code)}"

    def place(self, images: ImageSet) -> str:
        return f"{self.sha256[:16]}/{images.fingerprint[:16]}"

    def plan(self, image_sets: list[ImageSet]) -> None:
        """Settle of which kind all outputs are, given the sets they will be asked for,
        and compile if one needs it.

        "auto": the kind of which the cache has all; else compiled if that costs less, of a pass
        over what is missing half the multiplications' time, and once half of ``COMPILE_ABOVE``.
        Where compiling fails all are eager.
        """
        missing = {EAGER: 0, COMPILED: 0}  # images whose outputs the cache has not
        for kind in missing:
            absent = [one for one in image_sets if not self.has(self.key(one, kind), one)]
            missing[kind] = sum(map(len, absent))
        if self.kind is None:
            self.kind = min(missing, key=missing.get)
            if missing[self.kind] and self.folds(image_sets[0].images.shape[1:]):
                self.kind = COMPILED  # it costs nothing
            elif missing[self.kind]:
                work = multiply_adds(self.model, image_sets[0])
                compiling = COMPILE_ABOVE.get(self.device.type, math.inf) + missing[COMPILED] * work
                self.kind = COMPILED if missing[EAGER] * work > compiling / 2 else EAGER
        if self.kind == COMPILED and missing[COMPILED] and self.compiled is None:
            self.forward(torch.zeros(1, *image_sets[0].images.shape[1:], device=self.device))

    def by_openvino(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """(logits, features) of a whole batch; UserError where OpenVINO cannot take the network."""
        if self.compiled is None:
            try:
                self.compiled = compile_openvino(self.model, batch, self.precision)
            except Exception as error:  # whatever it has for an operator it does not know
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise UserError(
                    f"OpenVINO cannot take this network: {printable(reason)}. "
                    "Leave --compile openvino out"
                ) from None
        outputs = self.compiled(batch.contiguous().numpy())
        return [torch.from_numpy(np.array(outputs[i])) for i in range(2)]

    def folds(self, size: tuple[int, int, int]) -> bool:
        """Whether the network needs no compiler to be a compiled one; ``compiled`` is it then."""
        if self.precision == "bf16" and self.device.type == "cpu":
            with torch.inference_mode():
                self.compiled = models.fold(self.model, tuple(size))
        return self.compiled is not None

    def outputs(self, images: ImageSet) -> scores.Outputs:
        """Outputs of an ImageSet: logits (N,C) and features (N,D) float32 in the set's order."""
        self.plan([images])
        arrays = self.cached(lambda: self.key(images), images, self.forward)
        return self.with_head(arrays, images)

    def stepped_outputs(self, images: ImageSet, score: scores.Score) -> scores.Outputs:
        """Outputs at x - eps * sign(gradient of the score's objective) / std per
        channel, in normalised space.

        The step is computed in float32: the sign of a gradient rounded to bfloat16 is another
        image. A score of the user's own counts with its source file,
        for the reason ``own_code`` gives.
        """
        learnt = [
            part for key, value in sorted(score.stats.items()) for part in (key, value.tobytes())
        ]
        own = getattr(score, "own", False)
        code = [Path(inspect.getfile(type(score))).read_bytes()] if own else []
        made_by = (score.name, sorted(score.hyper.items()), *learnt, *code)
        inputs = digest(FORWARD, self.mean, self.std, *self.code, *made_by)
        key = f"{self.place(images)}-step-{self.device.type}-{inputs}"
        arrays = self.cached(lambda: key, images, lambda x: self.forward_stepped(x, score))
        return self.with_head(arrays, images)

    def with_head(self, arrays: dict[str, np.ndarray], images: ImageSet) -> scores.Outputs:
        """Outputs of arrays, with a copy of the network's head and the set's labels;
        UserError when they are not finite.

        All are read-only: a score that changed them in place would change
        those of every later score.
        """
        weight, bias = head_arrays(self.model)
        for array in (arrays["logits"], arrays["features"], weight, bias):
            if array is not None:
                array.setflags(write=False)
        labels = None if images.labels is None else images.labels.numpy()
        try:
            return scores.Outputs(arrays["logits"], arrays["features"], labels, weight, bias)
        except ValueError as error:
            raise UserError(
                f"'{images.name}': {error}: the snapshot is broken, "
                "or trained in a way that diverged"
            ) from None

    def shards(self, key: str, images: ImageSet) -> Shards:
        """The outputs of a streamed set on disk."""
        return Shards(self.cache.folder / f"{key}.stream", len(images))

    def has(self, key: str, images: ImageSet) -> bool:
        """Whether the outputs of a set are there."""
        if images.streamed:
            return self.shards(key, images).done == len(images)
        return self.cache.path(key).exists()

    def cached(
        self, key: Callable[[], str], images: ImageSet, forward: Callable
    ) -> dict[str, np.ndarray]:
        """Arrays from memory or the cache, or those of a pass by ``forward``, which are written
        there; of a streamed set they are maps of files.

        The key is asked for again after the pass: outputs that could not be compiled are eager
        ones.
        """
        arrays = self.memory.get(key())
        if arrays is None and images.streamed:
            shards = self.shards(key(), images)
            done = ranks.lowest(shards.done)
            wrong = done == len(images) and not self.fits(shards.arrays(), len(images))
            done = 0 if ranks.any_of(wrong) else done  # a wrong file is made anew
            if done < len(images):
                shards.write(self.run(images, forward, done), done)
                ranks.meet()
            arrays = shards.arrays()
        elif arrays is None:
            arrays = self.cache.load(key())
            arrays = arrays if arrays and self.fits(arrays, len(images)) else None
            if not ranks.everyone(arrays is not None):
                arrays = self.gather(len(images), self.run(images, forward))
                self.cache.save(key(), arrays)
        self.memory[key()] = arrays
        return arrays

    def fits(self, arrays: dict[str, np.ndarray], count: int) -> bool:
        """Whether arrays are outputs of this network for so many images: a file in the cache may
        hold anything.
        """
        weight, _ = head_arrays(self.model)
        widths = {"logits": None, "features": None}
        if weight is not None:
            widths = {"logits": weight.shape[0], "features": weight.shape[1]}
        return set(arrays) == set(widths) and all(
            array.dtype == np.float32
            and array.ndim == 2
            and len(array) == count
            and widths[name] in (None, array.shape[1])
            and all(np.isfinite(array[i : i + 10_000]).all() for i in range(0, count, 10_000))
            for name, array in arrays.items()
        )

    def run(
        self, images: ImageSet, forward: Callable, first: int = 0
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """(logits, features) float32 of each batch from an image on; the device is waited for once
        a batch, when it copies out. Of several ranks each computes every so-manieth batch, and has
        all of them.
        """
        batches = Batches(images, self.batch_size, self.device, statistics=(self.mean, self.std))
        bar = {"unit": "batch", "disable": None, "leave": False}
        total, done = len(batches), first // self.batch_size
        own = batches.from_image(first, ranks.size(), ranks.rank())
        made = (tuple(part.float().cpu().numpy() for part in forward(x)) for x, _ in own)
        rounds = -(-(len(images) - first) // (self.batch_size * ranks.size()))
        every = ranks.interleaved(made, rounds)
        yield from tqdm(every, images.name, total, initial=done, **bar)

    def gather(
        self, count: int, batches: Iterable[tuple[np.ndarray, ...]]
    ) -> dict[str, np.ndarray]:
        """The batches' parts in preallocated arrays (count,...) of their names."""
        arrays, start = {}, 0
        for parts in batches:
            for name, part in zip(("logits", "features"), parts):
                if name not in arrays:
                    arrays[name] = np.empty((count, part.shape[1]), np.float32)
                arrays[name][start : start + len(part)] = part
            start += len(parts[0])
        return arrays

    @torch.inference_mode()
    def forward(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        """(logits, features) of a normalised batch, in the network's precision,
        compiled where that has been settled.
        """
        with autocast(self.device, self.precision):
            if self.kind == EAGER:
                return self.model(x)
            # compiled for whole batches only
            full = torch.cat([x, x[-1:].expand(self.batch_size - len(x), -1, -1, -1)])
            full = full.contiguous(memory_format=torch.channels_last)
            if self.kind == OPENVINO:
                return [part[: len(x)] for part in self.by_openvino(full)]
            if self.compiled is None and not self.folds(full.shape[1:]):
                self.compiled = compile_inference(self.model, full)
                self.kind = EAGER if self.compiled is self.model else COMPILED
            return [part[: len(x)] for part in self.compiled(full)]

    def forward_stepped(self, x: torch.Tensor, score: scores.Score) -> Sequence[torch.Tensor]:
        """(logits, features) at the batch moved by the score's input step, in float32."""
        with torch.enable_grad():
            x.requires_grad_(True)
            (gradient,) = torch.autograd.grad(score.objective(*self.model(x)), x)
        std = torch.tensor(self.std, device=x.device).view(1, 3, 1, 1)
        with torch.no_grad():
            return self.model(x - score.eps * gradient.sign() / std)

    def fit(self, score: scores.Score, train_images: ImageSet) -> scores.Score:
        """Fit a score on the outputs of the ID training images;
        not cached, as it takes less than a second for 50,000.
        """
        check_needs(self.model, score)
        return score.fit(self.outputs(train_images))

    def score(self, score: scores.Score, images: ImageSet) -> np.ndarray:
        """(N,) float64 scores of an ImageSet, larger = more OOD;
        UserError naming the image if one is NaN.
        """
        check_needs(self.model, score)
        stepped = "gradient" in score.needs
        outputs = self.stepped_outputs(images, score) if stepped else self.outputs(images)
        return checked_values(score, outputs, images)
