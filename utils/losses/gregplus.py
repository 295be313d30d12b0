"""GReg+: GReg on outliers that are chosen by their energy."""

from .greg import GReg


class GRegPlus(GReg):
    """GReg whose outliers are chosen out of three times as many, by clusters of their features (sampling.py).

    Source: [GReg].
    """

    name = "greg+"
    title = "GReg+"
    formula = f"{GReg.formula}, outliers chosen by clusters"
    help = {**GReg.help, "sampling": "how a step's outliers are chosen"}
    choices = {**GReg.choices, "sampling": ("random", "clusters")}
    defaults = {**GReg.defaults, "sampling": "clusters"}
    recipe = {**GReg.recipe, "oe_batch_size": 128}
