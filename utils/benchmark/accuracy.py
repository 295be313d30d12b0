"""What bfloat16 moves: FPR95 and AUROC of a trained network on real images at both precisions."""

from pathlib import Path

import torch

from utils import loaders, runtime, scores, snapshots
from utils.evaluation.network import Network
from utils.evaluation.rows import measure_set

DATASET = loaders.ID_SETS[0]
SNAPSHOT = f"{DATASET}_wrn_pretrained"
SCORES = "msp,energy"
METRICS = {"fpr95": "FPR95", "auroc": "AUROC"}


def measure_precisions(
    file: Path, id_set: loaders.ImageSet, ood_sets: list[loaders.ImageSet], device: torch.device
) -> dict:
    """{(score, set): {precision: {metric: percent}}} of a snapshot,
    by the passes of test.py, or its cache.
    """
    rows = {}
    for precision in ("fp32", "bf16"):
        model, description = snapshots.load_model(file)
        network = Network(
            model, runtime.sha256_file(file), device, precision, arch=description["arch"]
        ).compiling("auto")
        network.plan([id_set, *ood_sets])
        for score in scores.choose(SCORES, DATASET):
            inner = network.score(score, id_set)
            for ood in ood_sets:
                measured = measure_set(inner, network.score(score, ood), ood.name)
                rows.setdefault((score.label, ood.name), {})[precision] = {
                    metric: measured[metric] for metric in METRICS
                }
    return rows


def measure_accuracy(data: str, device: torch.device) -> dict:
    """What the result file says of it; UserError where there is no such snapshot or
    there are no such images.
    """
    file = snapshots.find_snapshots(SNAPSHOT)[0]
    id_set = loaders.load_id(DATASET, "test", data)
    there = [name for name in loaders.ood_names(DATASET, data) if loaders.is_there(name, data=data)]
    rows = measure_precisions(
        file, id_set, loaders.parse_ood(",".join(there), DATASET, data), device
    )
    largest = {
        metric: max(abs(row["bf16"][metric] - row["fp32"][metric]) for row in rows.values())
        for metric in METRICS
    }
    return {
        "snapshot": snapshots.short_name(file),
        "id_images": len(id_set),
        "largest": largest,
        "rows": [{"score": score, "set": name, **row} for (score, name), row in rows.items()],
    }


def format_accuracy(found: dict) -> str:
    """The table of both precisions, and the largest difference, as text."""
    titles = METRICS.values()
    lines = [f"{found['snapshot']}, percent".ljust(36)]
    lines[0] += "".join(f"{f'{title} fp32':>12}{'bf16':>8}" for title in titles)
    for row in found["rows"]:
        cells = (f"{row['fp32'][key]:12.2f}{row['bf16'][key]:8.2f}" for key in METRICS)
        lines.append(f"{row['score'] + ' ' + row['set']:36}" + "".join(cells))
    largest = (f"{title} {found['largest'][key]:.3f}" for key, title in METRICS.items())
    return "\n".join([*lines, f"largest difference: {', '.join(largest)}"])
