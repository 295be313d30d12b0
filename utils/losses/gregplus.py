"""GReg+: GReg on outliers that are chosen by their energy."""

from .greg import GReg


class GRegPlus(GReg):
    """GReg whose outliers are chosen out of three times as many,
    by clusters of their features (sampling.py).

    From scratch the learning rate is 0.1 for 50 epochs and 0.01 for 10; the published code's Adam
    at 0.1 is not copied. Source: [GReg].
    """

    name = "greg+"
    title = "GReg+"
    formula = f"{GReg.formula}, outliers chosen by clusters"
    help = {**GReg.help, "sampling": "how a step's outliers are chosen"}
    choices = {**GReg.choices, "sampling": ("random", "clusters")}
    defaults = {**GReg.defaults, "sampling": "clusters"}
    stages = ("pretrain", "tune")
    recipe = {**GReg.recipe, "oe_batch_size": 128}
    scratch = {"epochs": 60, "batch_size": 64, "oe_batch_size": 128, "decay": 1e-4}
    drops = (50 / 60,)
