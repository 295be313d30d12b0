"""The protocol: which sets, how many draws, and the rows of a table they give."""
import zlib

import numpy as np

from utils.metrics import METRICS, detection_metrics, quirks


def draw_indices(count, size, draws, seed, name):
    """Index arrays of ``draws`` random draws of ``size`` out of ``count`` images without replacement.

    A set of at most ``size`` images is used whole, once. The draws depend on the seed and the set's name alone.
    """
    if count <= size:
        return [np.arange(count)]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return [rng.choice(count, size, replace=False) for _ in range(draws)]


def measure_set(id_scores, ood_scores, name, draws, seed, protocol):
    """Metrics in percent of one OOD set: mean and sd over the draws, and over the whole set.

    protocol "paper": draws of len(ID)//5 OOD images ([Energy]); "full": the whole set once. The sd is the sample
    standard deviation over the draws, 0 where there is only one.
    """
    whole = detection_metrics(id_scores, ood_scores)
    size = max(len(id_scores) // 5, 1) if protocol == "paper" else len(ood_scores)
    parts = draw_indices(len(ood_scores), size, draws, seed, name)
    rows = [whole] if len(parts) == 1 else [detection_metrics(id_scores, ood_scores[part]) for part in parts]
    values = {metric: 100 * np.array([row[metric] for row in rows]) for metric in METRICS}
    return {"set": name, "n": len(ood_scores), "drawn": len(parts[0]), "draws": len(parts),
            **{metric: float(v.mean()) for metric, v in values.items()},
            "sd": {metric: float(v.std(ddof=1)) if len(v) > 1 else 0.0 for metric, v in values.items()},
            "whole": {metric: 100 * whole[metric] for metric in METRICS}, "flags": quirks(id_scores, ood_scores)}


def mean_row(rows):
    """The plain mean over the sets, as the papers print it; its sd is that of the mean of independent draws.

    ``draws`` are those of the set with the fewest: where that is one draw of all its images, the sd leaves that set's part out.
    """
    return {"set": "average", "draws": min(row["draws"] for row in rows), **{metric: float(np.mean([row[metric] for row in rows])) for metric in METRICS},
            "sd": {metric: float(np.sqrt(sum(row["sd"][metric] ** 2 for row in rows)) / len(rows)) for metric in METRICS},
            "whole": {metric: float(np.mean([row["whole"][metric] for row in rows])) for metric in METRICS}, "flags": []}
