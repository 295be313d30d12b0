"""The commands behind each row of the SR framework's tables, as a user types them."""

from utils.losses import LOSSES

from .markdown import table
from .published import ID_SETS, TABLES, published_rows

NETWORKS = ("srf1", "srf3")  # all methods on the WRN, then SR on four networks


def commands_of(dataset: str, network: str, score: str, stage: str) -> list[str]:
    """The training, or fine-tuning, and the scoring of a row; none where its loss is not here."""
    arch = "" if network == "wrn" else f" --arch {network}"
    if stage == "pretrained":
        train, model = f"baseline.py {dataset}{arch}", f"{dataset}_{network}_pretrained"
    elif stage in LOSSES:
        loss = "" if stage == "sr" else f" --loss {stage}"
        train = f"tune.py {dataset}{arch}{loss}"
        model = f"tune_{stage}/{dataset}_{network}_s1_tune"
    else:
        return []
    return [f"python {train}", f"python test.py --model {model} --score {score}"]


def render_workflows() -> str:
    """Every row of the framework's tables 1, 2 and 4 with its two commands."""
    rows = []
    for dataset in ID_SETS:
        for name in NETWORKS:
            for method, network, score, stage in published_rows(TABLES[name], dataset):
                if name == "srf3" and network == "wrn":  # among all methods already
                    continue
                made = commands_of(dataset, network, score, stage)
                cells = [f"`{command}`" for command in made] or ["not in this project", ""]
                rows.append([dataset, network, method, *cells])
    return table("ID | network | row | trained by | scored by", rows)
