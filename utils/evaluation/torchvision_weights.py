"""Networks of torchvision with its published weights, by name: ``--model torchvision:resnet50``."""

from pathlib import Path

import torch

from data.archives import DownloadError
from data.transfer import transfer
from utils.runtime import UserError, sha256_file

LARGEST = 4 << 30  # bytes of a file of weights


def is_published(name: str) -> bool:
    """Whether --model names a network of torchvision and no snapshot."""
    return name.startswith("torchvision:")


def find_weights(name: str, download: bool = False) -> Path:
    """The file of a network's first published ImageNet weights (IMAGENET1K_V1) in torch's cache,
    checked by the hash in its name; fetched where that was asked for. UserError: an unknown
    network, no file, another content.
    """
    try:
        from torchvision.models import get_model_weights

        weights = next(iter(get_model_weights(name.partition(":")[2])))
    except (ImportError, ValueError, StopIteration) as error:
        raise UserError(
            f"--model {name}: torchvision has no weights of that name ({error})"
        ) from None
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not path.is_file() and download:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        try:
            transfer(weights.url, part, LARGEST)
        except (DownloadError, OSError) as error:
            raise UserError(f"{weights.url} could not be fetched ({error})") from None
        part.replace(path)
    if not path.is_file():
        raise UserError(
            f"--model {name}: there is no {path}. Put {weights.url} there, or have it fetched: "
            "--download; a file elsewhere is scored with --model PATH --arch " + name
        )
    wanted = path.stem.rpartition("-")[2]
    if not sha256_file(path).startswith(wanted):
        raise UserError(f"{path} is damaged: its sha256 does not begin with {wanted}. Remove it")
    return path
