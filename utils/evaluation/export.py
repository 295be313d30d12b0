"""A detector in one file: normalisation, network, score and threshold as one graph, ONNX or .pt2."""

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import models
from utils import loaders, scores
from utils.runtime import UserError, make_folder, write_bytes
from utils.scores.dice import sparsify

from .case import Case, choose_scores
from .fitting import check_needs
from .load import load_network
from .network import Network
from .verdicts import load_sets, load_threshold

TOLERANCE = 1e-4  # of a score's or logit's size where that is above 1
CHECKED = 64  # ID test images that the file is compared with Python on
OUTPUTS = ("logits", "score", "threshold", "inside")
OPSET = 18
Graph = Callable[[Tensor, Tensor], Tensor]  # of logits and features
Runner = Callable[[Tensor], list[np.ndarray]]  # images uint8 (N,3,H,W) -> OUTPUTS


# A score in the graph: (the fitted score, its head's weight (C,D) and bias (C,) as float64 tensors)
# -> a function of logits (N,C) and features (N,D) float64 that gives (N,). Whatever stands here is
# compared with the score's own file on every export.


def energy(f: Tensor, T: float = 1.0) -> Tensor:
    """-T logsumexp(f/T), by hand: the operator is not in every runtime for float64."""
    top = f.amax(1)
    return -top - T * ((f - top[:, None]) / T).exp().sum(1).log()


def constant(score: scores.Score, name: str) -> Tensor:
    """What a score has learned, as a float64 tensor of the graph."""
    return torch.as_tensor(np.asarray(score.stats[name]), dtype=torch.float64)


def energy_graph(score: scores.Score, weight: Tensor, bias: Tensor) -> Graph:
    return lambda f, h: energy(f, score.T)


def msp_graph(score: scores.Score, weight: Tensor, bias: Tensor) -> Graph:
    def graph(f, h):
        others = (f - f.amax(1, keepdim=True)).exp().sum(1)
        return others.log()

    return graph


def maxlogit_graph(score: scores.Score, weight: Tensor, bias: Tensor) -> Graph:
    return lambda f, h: -f.amax(1)


def react_graph(score: scores.Score, weight: Tensor, bias: Tensor) -> Graph:
    c = constant(score, "c")
    return lambda f, h: energy(torch.minimum(h, c) @ weight.T + bias)


def dice_graph(score: scores.Score, weight: Tensor, bias: Tensor) -> Graph:
    sparse = torch.as_tensor(
        sparsify(weight.numpy(), score.stats["mean"], score.p), dtype=torch.float64
    )
    c = constant(score, "c") if "c" in score.stats else torch.tensor(torch.inf).double()
    return lambda f, h: energy(torch.minimum(h, c) @ sparse.T + bias)


def mahalanobis_graph(score: scores.Score, weight: Tensor, bias: Tensor) -> Graph:
    means, V = constant(score, "means"), constant(score, "V")
    centre = means.mean(0)
    places = (means - centre) @ V

    def graph(f, h):
        offsets = ((h - centre) @ V)[:, None, :] - places
        return offsets.square().sum(2).amin(1) / 2

    return graph


def residual_graph(score: scores.Score, weight: Tensor, bias: Tensor) -> Graph:
    u, R = constant(score, "u"), constant(score, "R")
    return lambda f, h: ((h - u) @ R).square().sum(1).sqrt()


def vim_graph(score: scores.Score, weight: Tensor, bias: Tensor) -> Graph:
    norm, alpha = residual_graph(score, weight, bias), constant(score, "alpha")
    return lambda f, h: alpha * norm(f, h) + energy(f)


GRAPHS = {
    "energy": energy_graph,
    "msp": msp_graph,
    "maxlogit": maxlogit_graph,
    "react": react_graph,
    "dice": dice_graph,
    "dice+react": dice_graph,
    "mahalanobis": mahalanobis_graph,
    "vim": vim_graph,
    "residual": residual_graph,
}


class Detector(nn.Module):
    """Images uint8 (N,3,H,W), RGB, 0 to 255 -> logits (N,C) float32, score (N,) float64, larger =
    more OOD, the threshold () float64, and whether each image is in, score <= threshold, (N,) bool.
    """

    def __init__(self, network: nn.Module, statistics: tuple, graph, threshold: float):
        super().__init__()
        self.network, self.graph = network, graph
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        self.register_buffer("limit", torch.tensor(threshold, dtype=torch.float64))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits, features = self.network(images.float() * self.scale + self.shift)
        score = self.graph(logits.double(), features.double())
        return logits, score, self.limit.clone(), score <= self.limit


def export(file: Path, args: Namespace) -> str:
    """Write the detector of a snapshot file and one score to --export; returns what to say of it.

    args: test.py's. Computed in float32 on the CPU, threshold included, so that every runtime can
    follow; the file is compared with Python before it gets its name. UserError: a score that has no
    graph here, a package that is missing, or a file that gives other values.
    """
    target = Path(args.export).expanduser()
    check_target(target)
    args = Namespace(**{**vars(args), "device": "cpu", "precision": "fp32", "compile": "off"})
    network, description = load_network(file, args)
    chosen = choose_scores(description, file, args)
    score = one_score(chosen)
    check_needs(network.model, score)
    case = Case(file, description, network, load_sets(file, description, chosen, args), [], args)
    if case.sets.id is None:
        raise UserError(
            "the threshold comes from the ID test images: "
            + loaders.missing_message(description["dataset"], "test", args.data)
        )
    with scores.as_user_error(score):
        if "train" in score.needs:
            network.fit(score, case.sets.train)
        threshold = load_threshold(case, score)
    some = case.sets.id.subset(np.arange(min(CHECKED, len(case.sets.id))))
    expected = network.outputs(some).logits, network.score(score, some)
    detector = make_detector(network, score, threshold.value)
    about = {
        "score": score.label,
        "larger": "more out-of-distribution",
        "threshold": threshold.value,
        "tpr": threshold.tpr,
        "inside": "score <= threshold",
        "input": "uint8 (N,3,H,W), RGB, 0 to 255",
        "classes": list(description.get("classes") or ()),
        "mean": list(network.mean),
        "std": list(network.std),
        "snapshot_sha256": network.sha256,
    }
    write = write_onnx if target.suffix == ".onnx" else write_pt2
    data, run = write(detector, some.images[:2].contiguous(), about)
    told = (
        compare(run, some.images.contiguous(), expected, target)
        if run
        else ("not compared with Python: onnxruntime is not installed (pip install onnxruntime)")
    )
    make_folder(target.parent)
    former = " (the former file of that name is replaced)" * target.exists()
    write_bytes(target, data)
    return (
        f"detector: {target}{former}, {len(data) / 2**20:.1f} MiB, {score.label}, threshold "
        f"{threshold.value:.6g}; input: images uint8 (N,3,{some.images.shape[2]},"
        f"{some.images.shape[3]}), output: {', '.join(OUTPUTS)}; {told}"
    )


def only_one(files: list[Path], target: str) -> Path:
    """The snapshot to export; UserError for several, of which the last would replace the others."""
    if len(files) > 1:
        raise UserError(
            f"--export {target} is one file for one snapshot, and --model means {len(files)}. Name "
            f"one with its folder, or a file for each"
        )
    return files[0]


def check_target(target: Path) -> None:
    """UserError unless a detector can be written to this path."""
    if target.suffix not in (".onnx", ".pt2"):
        raise UserError(f"--export {target}: the file must end in .onnx or .pt2")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if target.suffix == ".onnx" and missing:
        raise UserError(
            f"--export {target} needs {' and '.join(missing)}, not installed here. Run: "
            f"pip install {' '.join(missing)} onnxruntime; or export to .pt2"
        )


def one_score(chosen: list[scores.Score]) -> scores.Score:
    """The score to export; UserError for several, or one without a graph here."""
    if len(chosen) != 1:
        raise UserError(f"--export takes one --score, not {len(chosen)}")
    (score,) = chosen
    if score.name not in GRAPHS or getattr(score, "own", False) or "gradient" in score.needs:
        step = " with an input step" if score.name in GRAPHS else ""
        raise UserError(
            f"score '{score.label}'{step} cannot be exported. There is: {', '.join(GRAPHS)}"
        )
    return score


def make_detector(network: Network, score: scores.Score, threshold: float) -> Detector:
    """The Detector of a Network and a fitted score."""
    head = models.linear_head(network.model)
    weight = bias = None
    if head is not None:
        weight = head.weight.detach().double().cpu()
        bias = torch.zeros(len(weight)).double() if head.bias is None else head.bias.detach()
        bias = bias.double().cpu()
    graph = GRAPHS[score.name](score, weight, bias)
    return Detector(network.model, (network.mean, network.std), graph, threshold).eval()


def write_pt2(detector: Detector, example: Tensor, about: dict) -> tuple[bytes, Runner]:
    """(bytes of a .pt2, a function that runs them)."""
    program, buffer = trace(detector, example), io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={"detector.json": json.dumps(about)})
        loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    return buffer.getvalue(), lambda images: [part.numpy() for part in loaded(images)]


def write_onnx(detector: Detector, example: Tensor, about: dict) -> tuple[bytes, Runner | None]:
    """(bytes of an .onnx, a function that runs them or None where onnxruntime is missing)."""
    import onnx

    with quiet():
        program = torch.onnx.export(
            trace(detector, example),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(OUTPUTS),
            verbose=False,
        )
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {key: as_text(value) for key, value in about.items()})
    data = proto.SerializeToString()
    if importlib.util.find_spec("onnxruntime") is None:
        return data, None
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return data, lambda images: session.run(list(OUTPUTS), {"images": images.numpy()})


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress and no advice of torch's exporters, which speak to programmers."""
    level = logging.root.manager.disable
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with warnings.catch_warnings(), silent[0], silent[1]:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def trace(detector: Detector, example: Tensor) -> torch.export.ExportedProgram:
    """The detector as a graph for any number of images; UserError where it cannot be traced."""
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(
                detector,
                (example,),
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=1 << 20)}},
                strict=False,
            )
    except Exception as error:  # an operator or a branch that export does not know
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise UserError(f"the network cannot be written as a graph ({reason})") from None


def compare(run: Runner, images: Tensor, expected: tuple, target: Path) -> str:
    """What running the file on images gives beside Python's logits (N,C) and scores (N,);
    UserError where they differ by more than TOLERANCE.

    The images are run together and the first one alone, so that the number of images is free.
    """
    together, alone = run(images), run(images[:1])
    apart = 0.0
    for got, want in zip((*together[:2], *alone[:2]), (*expected, *(e[:1] for e in expected))):
        if np.shape(got) != want.shape or not np.isfinite(got).all():
            raise UserError(f"{target} is not written: its outputs are not those of Python")
        apart = max(apart, float((abs(got - want) / np.maximum(abs(want), 1)).max()))
    if apart > TOLERANCE:
        raise UserError(
            f"{target} is not written: its outputs differ from Python's by {apart:.2g} "
            f"(of their size where that is above 1), more than {TOLERANCE:g}"
        )
    return f"differs from Python by {apart:.1g} at most on {len(images)} ID images"
