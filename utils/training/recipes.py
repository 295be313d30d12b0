"""The one table of training recipes: what each option is by default, per stage, loss and data set, and where that comes from."""
from typing import NamedTuple, Optional

from utils.losses import LOSSES
from utils.runtime import UserError


class Layer(NamedTuple):
    """Values that hold for a stage ("pretrain", "tune"), a loss, a data set, a network and a preset (None = any); later layers win."""

    values: dict
    origin: str
    stage: Optional[str] = None
    loss: Optional[str] = None
    dataset: Optional[str] = None
    arch: Optional[str] = None
    preset: str = "paper"


OF_OUTLIERS = {"outlier_padding", "outlier_norm", "oe_batch_size", "l1_on"}    # options without effect on a loss without outliers

PRESETS = {
    "paper": "the papers' recipes",
    "code": "the papers' recipes with what their published code does otherwise (padding, outlier statistics, L1 on outliers)",
    "quick": "the papers' recipes with a short, complete schedule, to try things out",
}

LAYERS = (
    Layer(dict(momentum=0.9, decay=5e-4, batch_size=128, droprate=0.3, layers=40, widen_factor=2, seed=1,
               arch="wrn", test_bs=200), "[Energy], [SR]"),
    # one normalisation for all, lest contrast tell outliers from ID images
    Layer(dict(outlier_padding=4, outlier_norm="id"), "this project"),
    Layer(dict(epochs=100, learning_rate=0.1, padding=4), "[Energy], [SR]", stage="pretrain"),
    Layer(dict(epochs=10, learning_rate=1e-3, oe_batch_size=256), "[Energy], [SR]", stage="tune"),
    Layer(dict(padding=4), "this project", stage="tune"),    # as pre-training; SR's published code: none
    Layer(dict(l1_on="id"), "[SRF]", stage="tune"),
    Layer(dict(alpha=0.02), "[SR]", stage="tune", loss="sr"),
    Layer(dict(alpha=0.02, beta=0.5), "[SR]", stage="tune", loss="sroe"),
    Layer(dict(beta=0.5), "[OE]", stage="tune", loss="oe"),
    # CIFAR-10's margins, also for images of one's own: the energies of the network at hand tell better ones
    Layer(dict(beta=0.1, m_in=-23.0, m_out=-5.0), "[Energy]", stage="tune", loss="energy"),
    Layer(dict(m_in=-27.0), "[Energy]", stage="tune", loss="energy", dataset="cifar100"),
    Layer(dict(droprate=0.0), "published code of [SR]", arch="densenet"),
    # 758 small images: a small network and batches that still give a few hundred steps. The fine-tuning rate is that of 0.01
    # and 0.03 with the lower training objective; the OOD tables of both were seen, so these digits are no blind test of SR or SROE.
    Layer(dict(layers=10, widen_factor=1, droprate=0.0, padding=2, outlier_padding=2), "this project", dataset="digits"),
    Layer(dict(epochs=30, batch_size=64), "this project", stage="pretrain", dataset="digits"),
    Layer(dict(epochs=10, batch_size=64, oe_batch_size=128, learning_rate=3e-2), "this project", stage="tune", dataset="digits"),
    Layer(dict(m_in=-12.0, m_out=-4.0), "this project", stage="tune", loss="energy", dataset="digits"),
    Layer(dict(padding=0, outlier_padding=8, outlier_norm="imagenet", l1_on="all"), "published code of [SR]",
          stage="tune", preset="code"),
    Layer(dict(epochs=5), "this project", stage="pretrain", preset="quick"),
    Layer(dict(epochs=2), "this project", stage="tune", preset="quick"),
)


def resolve(stage, dataset, loss=None, preset="paper", arch="wrn"):
    """The recipe as a dict option -> value."""
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}'. There is: {', '.join(PRESETS)}")
    recipe = {}
    for layer in LAYERS:
        if layer.preset in ("paper", preset) and layer.stage in (None, stage) \
                and layer.loss in (None, loss) and layer.dataset in (None, dataset) and layer.arch in (None, arch):
            recipe.update(layer.values)
    return recipe


def departures(description):
    """{option: (value, usual value)} of what a snapshot's .json has otherwise than the papers' recipe.

    Epochs, seed and network may differ, and so may what concerns the outliers where the loss has none.
    """
    made, loss = description.get("recipe") or {}, description.get("loss")
    usual = resolve("tune" if loss else "pretrain", description["dataset"], loss, arch=description["arch"])
    free = {"epochs", "seed", "arch"} | (OF_OUTLIERS if loss in LOSSES and not LOSSES[loss].outliers else set())
    return {key: (made[key], value) for key, value in usual.items() if key not in free and made.get(key, value) != value}


def describe(option, stage):
    """Every default of an option and its origin, for --help."""
    found = []
    for layer in LAYERS:
        if option in layer.values and layer.stage in (None, stage):
            when = [layer.loss, layer.dataset, layer.arch, layer.preset if layer.preset != "paper" else None]
            found.append(f"{layer.values[option]} ({': '.join([' '.join(filter(None, when)), layer.origin]).lstrip(': ')})")
    return "default: " + ", ".join(found) if found else ""
