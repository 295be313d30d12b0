"""Plain code for the project's work, which ``python -m utils.benchmark`` measures it against.

PIL images and torchvision's operators in a DataLoader, PyTorch's own operators in training,
scikit-learn's metrics, and the inference libraries that are installed.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

import models
from utils import loaders, runtime


class PILSet(torch.utils.data.Dataset):
    """An ImageSet as torchvision's own data sets are:
    one PIL image at a time through ``transform``.
    """

    def __init__(self, images, transform):
        self.pixels, self.transform = images.images.permute(0, 2, 3, 1).numpy(), transform
        self.labels = [0] * len(images) if images.labels is None else images.labels.tolist()

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[i])), self.labels[i]


def pil_loader(
    images: loaders.ImageSet, batch_size: int, augment: bool = False, workers: int = 0
) -> torch.utils.data.DataLoader:
    """Batches (x (B,3,H,W) float32 normalised, y (B,)) of a DataLoader;
    ``augment`` flips, crops and shuffles.
    """
    from torchvision import transforms as T

    random = (
        [T.RandomHorizontalFlip(), T.RandomCrop(images.images.shape[-1], padding=4)]
        if augment
        else []
    )
    transform = T.Compose([*random, T.ToTensor(), T.Normalize(loaders.MEAN, loaders.STD)])
    return torch.utils.data.DataLoader(
        PILSet(images, transform),
        batch_size=batch_size,
        shuffle=augment,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=workers > 0,
    )


@contextlib.contextmanager
def operators(stock: bool) -> Iterator[None]:
    """In this context networks run with PyTorch's own operators and settings (``stock``) or with
    this project's; then as before.
    """
    before = models.use_kernels(fused=not stock, mask=not stock)
    settings = (
        torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True)
        if stock
        else contextlib.nullcontext()
    )
    try:
        with settings:
            yield
    finally:
        models.use_kernels(**before)


def sklearn_metrics(id_scores: np.ndarray, ood_scores: np.ndarray) -> dict[str, float]:
    """fpr95, auroc, aupr_in in [0, 1] with ID as the positive class, and aupr_out,
    for scores that are larger for OOD.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    joined = np.concatenate([id_scores, ood_scores])
    is_id = np.repeat([1, 0], [len(id_scores), len(ood_scores)])
    false, true, _ = roc_curve(is_id, -joined)
    return {
        "fpr95": float(false[np.searchsorted(true, 0.95)]),
        "auroc": float(roc_auc_score(is_id, -joined)),
        "aupr_in": float(average_precision_score(is_id, -joined)),
        "aupr_out": float(average_precision_score(1 - is_id, joined)),
    }


def onnx_runtime(model: torch.nn.Module, x: torch.Tensor) -> tuple[str, Callable]:
    """(name, function) of the model in ONNX Runtime with as many threads as PyTorch has."""
    import onnxruntime
    import onnxscript  # noqa: F401  (the exporter needs it)

    file, options = io.BytesIO(), onnxruntime.SessionOptions()
    torch.onnx.export(model, (x,), file, dynamo=True, verbose=False)
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: x.numpy()}
    return "ONNX Runtime fp32", lambda: session.run(None, feed)


def open_vino(model: torch.nn.Module, x: torch.Tensor) -> tuple[str, Callable]:
    """(name, function) of the model in OpenVINO, bfloat16 where the CPU has it,
    with as many threads as PyTorch has.
    """
    import openvino

    compiled = runtime.compile_openvino(model, x, "bf16")
    precision = (
        "bf16"
        if compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.bf16
        else "fp32"
    )
    return f"OpenVINO {precision}", lambda: compiled(x.numpy())


RUNTIMES = {"ONNX Runtime": onnx_runtime, "OpenVINO": open_vino}


def that_work(
    makers: dict[str, Callable], model: torch.nn.Module, x: torch.Tensor
) -> dict[str, Callable]:
    """{name: function} of the alternatives to a network's pass that work here; others are left out
    with a note, and those that are not installed without one.

    A maker takes (model, x) and gives (name, function), and the function logits (N,C) and features
    (N,D). It is called once: some libraries convert a network that they then cannot run, or answer
    with nothing or with something else.
    """
    with torch.no_grad():
        expected = [part.cpu().numpy() for part in model(x)]
    found = {}
    for title, make in makers.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what these libraries use of PyTorch
                name, function = make(model, x)
                check_outputs(name, function(), expected, x)
        except ImportError:
            continue
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            print(f"{title} is left out: {type(error).__name__}: {reason}")
            continue
        found[name] = function
    return found


def check_outputs(
    name: str, outputs: Sequence, expected: list[np.ndarray], x: torch.Tensor
) -> None:
    """ValueError unless an alternative's outputs are those of the plain model, as far as bf16, on
    CUDA TF32, else fp32 can tell.
    """
    allowed = 0.1 if "bf16" in name else 1e-2 if x.is_cuda else 1e-3
    given = [outputs[i] for i in range(len(outputs))]
    given = [p.float().cpu().numpy() if torch.is_tensor(p) else np.asarray(p) for p in given]
    shapes = [part.shape for part in expected]
    if [part.shape for part in given] != shapes:
        raise ValueError(f"outputs of the shapes {[part.shape for part in given]}, not {shapes}")
    error = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(given, expected))
    if not error < allowed:  # a NaN is none
        raise ValueError(f"its outputs differ by {error:.2g}")
