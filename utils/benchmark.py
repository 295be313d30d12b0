"""Speed of this project against plain code on the same machine: ``python -m utils.benchmark [--parts ...] [--out FILE]``.

Every alternative of a part is timed in turn, round after round, in one process, so that a machine whose speed drifts slows
all of them alike; each row is the median over the rounds and its ratio to the part's first row, the plain alternative:
eager float32 NCHW convolutions, stock dropout, a PIL DataLoader, scikit-learn's metrics. ONNX Runtime and OpenVINO are
timed where they are installed. Weights and images are random: speed does not depend on them.
"""
import argparse
import contextlib
import copy
import io
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

import models
import models.wrn

from . import datasets, loaders, runtime
from .losses import sroe
from .metrics import detection_metrics
from .training import make_optimizer

PARTS = ("data", "metrics", "inference", "training", "tuning")


def timed(function, device):
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(part, alternatives, items, rounds, device):
    """Rows of a part: alternatives is {name: function}, each call of which handles ``items`` images."""
    for function in alternatives.values():
        timed(function, device)                      # warm-up and compilation
    seconds = {name: [] for name in alternatives}
    for _ in range(rounds):
        for name, function in alternatives.items():
            seconds[name].append(timed(function, device))
    plain = np.median(next(iter(seconds.values())))
    return [{"part": part, "what": name, "rate": items / float(np.median(values)), "ratio": float(plain / np.median(values)),
             "spread": float((np.quantile(values, 0.75) - np.quantile(values, 0.25)) / np.median(values)), "rounds": rounds}
            for name, values in seconds.items()]


def random_set(count):
    rng = np.random.default_rng(0)
    return datasets.make_set(rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, count), "random")


def pil_loader(images, batch_size):
    """The plain data path: PIL images, torchvision's operators, a DataLoader without workers."""
    from PIL import Image
    from torchvision import transforms as T
    augment = T.Compose([T.RandomHorizontalFlip(), T.RandomCrop(32, padding=4), T.ToTensor(), T.Normalize(datasets.MEAN, datasets.STD)])
    pixels, labels = images.images.permute(0, 2, 3, 1).numpy(), images.labels.tolist()

    class Dataset(torch.utils.data.Dataset):
        def __len__(self):
            return len(pixels)

        def __getitem__(self, i):
            return augment(Image.fromarray(pixels[i])), labels[i]
    return torch.utils.data.DataLoader(Dataset(), batch_size=batch_size, shuffle=True)


def drain(batches):
    for _ in batches:
        pass


def part_data(args, device, precision):
    images = random_set(1280)
    ours, plain = loaders.Batches(images, 128, device, augment=True), pil_loader(images, 128)
    return compare("data path, batch 128", {"torchvision PIL DataLoader": lambda: drain(plain),
                   "this project": lambda: drain(ours.epoch(torch.Generator().manual_seed(0)))}, len(images), args.rounds, device)


def part_metrics(args, device, precision):
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
    rng = np.random.default_rng(0)
    inner, outer = rng.normal(size=args.scores), rng.normal(1, 1, size=args.scores)
    joined, is_ood = np.concatenate([inner, outer]), np.repeat([0, 1], args.scores)

    def plain():
        false, true, _ = roc_curve(is_ood, joined)
        return false[np.searchsorted(true, 0.95)], roc_auc_score(is_ood, joined), \
            average_precision_score(is_ood, joined), average_precision_score(1 - is_ood, -joined)
    return compare(f"metrics, {args.scores:,} + {args.scores:,} scores",
                   {"scikit-learn": plain, "one np.argsort": lambda: np.argsort(joined),
                    "this project": lambda: detection_metrics(inner, outer)}, 2 * args.scores, args.rounds, device)


def part_inference(args, device, precision):
    rows = []
    for batch in args.batch:
        plain = models.build(args.arch, 10, args.layers, args.widen_factor).eval().requires_grad_(False).to(device)
        model = runtime.prepare(copy.deepcopy(plain), device)
        x = torch.randn(batch, 3, 32, 32, device=device)
        channels_last = x.contiguous(memory_format=torch.channels_last)

        def ours(model=model, x=channels_last):
            with torch.inference_mode(), runtime.autocast(device, precision):
                model(x)
        with torch.inference_mode(), runtime.autocast(device, precision):
            compiled = runtime.compile_inference(model, channels_last)
        alternatives = {"eager fp32 NCHW": torch.inference_mode()(lambda plain=plain, x=x: plain(x)),
                        f"this project, {precision}, eager": ours}
        if compiled is not model:
            alternatives[f"this project, {precision}, compiled"] = lambda compiled=compiled, x=channels_last: ours(compiled, x)
        if device.type == "cpu":
            alternatives.update(other_runtimes(plain, x))
        rows += compare(f"inference, batch {batch}", alternatives, batch, args.rounds, device)
    return rows


def other_runtimes(model, x):
    """{name: function} of the inference libraries that are installed."""
    found = {}
    with contextlib.suppress(ImportError):
        import onnx  # noqa: F401  (the exporter needs it)
        import onnxruntime
        file = io.BytesIO()
        torch.onnx.export(model, (x,), file, dynamo=False)
        session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: x.numpy()}
        found["ONNX Runtime fp32"] = lambda: session.run(None, feed)
    with contextlib.suppress(ImportError):
        import openvino
        compiled = openvino.compile_model(openvino.convert_model(model, example_input=x), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
        found["OpenVINO bf16 hint"] = lambda: compiled(x.numpy())
    return found


@contextlib.contextmanager
def stock_dropout():
    own, models.wrn.dropout = models.wrn.dropout, F.dropout
    try:
        yield
    finally:
        models.wrn.dropout = own


def part_training(args, device, precision, outliers=0):
    """One step of training (batch 128), or of fine-tuning (128 ID + 256 outliers), its batch made by the data path."""
    recipe = argparse.Namespace(learning_rate=0.01, momentum=0.9, decay=5e-4, alpha=0.02, beta=0.5, l1_on="id")
    plain = models.build(args.arch, 10, args.layers, args.widen_factor).to(device)
    model = runtime.prepare(copy.deepcopy(plain), device)
    plain_sgd = torch.optim.SGD(plain.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    sgd, images = make_optimizer(model, recipe), random_set(128 + outliers)
    loader, batches = pil_loader(images, 128 + outliers), loaders.Batches(images, 128 + outliers, device, augment=True)

    def step(network, optimizer, x, y, precision):
        with runtime.autocast(device, precision):
            logits, features = network(x)
        loss = sum(sroe(logits, features, y[:128], recipe).values()) if outliers else F.cross_entropy(logits, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def run_plain():
        with stock_dropout():
            for x, y in loader:
                step(plain, plain_sgd, x.to(device), y.to(device), "fp32")

    def run_ours():
        for x, y in batches.epoch(torch.Generator().manual_seed(0)):
            step(model, sgd, x, y, precision)
    name = f"fine-tuning step, batch 128 + {outliers}" if outliers else "training step, batch 128"
    return compare(name, {"eager fp32 NCHW, stock dropout, PIL": run_plain, f"this project, {precision}": run_ours},
                   128 + outliers, args.rounds, device)


def format_rows(rows):
    lines = [f"{'':36}{'what':38}{'per second':>12}{'ratio':>8}{'spread':>9}"]
    lines += [f"{row['part']:36}{row['what']:38}{row['rate']:12,.0f}{row['ratio']:8.2f}{row['spread']:8.0%}" for row in rows]
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m utils.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, nargs="+", default=[200, 1000], help="of inference")
    parser.add_argument("--scores", type=int, default=1_000_000, help="scores a side of the metrics")
    parser.add_argument("--arch", default="wrn")
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--widen-factor", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--out", default=str(runtime.CIFAR / "results" / "benchmark.json"))
    args = parser.parse_args(argv)
    device = runtime.pick_device(args.device)
    precision = runtime.pick_precision(args.precision, device)
    measure = {"data": part_data, "metrics": part_metrics, "inference": part_inference, "training": part_training,
               "tuning": lambda *given: part_training(*given, outliers=256)}
    rows = []
    for part in args.parts:
        rows += measure[part](args, device, precision)
        print(f"{part} done", file=sys.stderr)
    print(format_rows(rows))
    runtime.write_json(args.out, {"rows": rows, "arguments": {key: runtime.portable(value) for key, value in vars(args).items()}, "precision": precision, "machine": runtime.describe_machine(device)})


if __name__ == "__main__":
    sys.exit(runtime.run(main))
