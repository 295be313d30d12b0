"""--tune-scores: choose a score's hyper-parameters on ID training images and generated noise, or
the OOD images of --validation-ood; never on an OOD test set.

A thousand ID training images (a tenth, where there are fewer than ten thousand) are held out;
fitted scores are fitted on the others. Against them stand as many images of each kind of noise,
none of which is one of the project's OOD sets, or all validation OOD images.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from utils.loaders import ImageSet, make_set
from utils.metrics import detection_metrics
from utils.runtime import UserError
from utils.scores import Score, as_user_error

from .network import Network

HELD_OUT = 1000


def noise_sets(images: ImageSet, seed: int = 0) -> list[ImageSet]:
    """ImageSets of uniform noise, of shuffled pixels and of mixed halves made from an ImageSet,
    as many images each.
    """
    rng = np.random.default_rng(seed)
    pixels = images.images.permute(0, 2, 3, 1).contiguous().numpy()
    count, height, width, _ = pixels.shape
    uniform = rng.integers(0, 256, pixels.shape, dtype=np.uint8)
    flat = pixels.reshape(count, height * width, 3)
    shuffled = np.stack([image[rng.permutation(height * width)] for image in flat]).reshape(
        pixels.shape
    )
    halves = pixels.copy()
    halves[:, :, width // 2 :] = pixels[rng.permutation(count)][:, ::-1, width // 2 :]
    return [
        make_set(made, None, name)
        for name, made in (
            ("uniform noise", uniform),
            ("shuffled pixels", shuffled),
            ("mixed halves", halves),
        )
    ]


class Validation:
    """Held-out ID images, and noise or ``given`` OOD sets, for one network and ID training set."""

    def __init__(self, network, train_set, given=(), seed=0):
        order = np.random.default_rng(seed).permutation(len(train_set))
        held = max(1, min(HELD_OUT, len(order) // 10))
        if len(order) < 2 * held:
            raise UserError(
                f"--tune-scores needs more than {len(order)} ID training images: "
                "some are held out, the others fitted on"
            )
        self.network, outputs = network, network.outputs(train_set)
        self.fit_outputs = outputs.take(np.sort(order[held:]))
        self.id_set = train_set.subset(np.sort(order[:held]), "held-out ID")
        self.ood = list(given) or noise_sets(self.id_set, seed)
        names = ", ".join(images.name for images in given)
        self.against = f"validation OOD images ({names})" if given else "generated noise"

    def tune(self, score: Score, dataset: str) -> tuple[Score, list[dict]]:
        """(score with the best values of its grid, rows of the whole grid):
        lowest mean FPR95, then highest mean AUROC.

        What the user has set is not searched. Of equal lines the one with the score's present
        values is taken. Each row: {"hyper": {...}, "fpr95": percent, "auroc": percent}. A
        combination the data cannot bear (k above the number of images,
        D above the width) is left out.
        """
        rows = []
        grid = {
            key: values
            for key, values in score.grid.items()
            if key not in getattr(score, "chosen", ())
        }
        for values in product(*grid.values()):
            hyper = dict(zip(grid, values))
            try:
                candidate = varied(score, dataset, hyper)
                if "train" in candidate.needs:
                    candidate.fit(self.fit_outputs)
                id_scores = self.network.score(candidate, self.id_set)
                measured = [
                    detection_metrics(id_scores, self.network.score(candidate, images))
                    for images in self.ood
                ]
            except (ValueError, UserError):
                continue
            rows.append(
                {
                    "hyper": hyper,
                    "fpr95": 100 * float(np.mean([m["fpr95"] for m in measured])),
                    "auroc": 100 * float(np.mean([m["auroc"] for m in measured])),
                }
            )
        if not rows or not grid:
            return score, []
        present = {key: score.hyper[key] for key in grid}
        best = min(
            rows, key=lambda row: (round(row["fpr95"], 6), -row["auroc"], row["hyper"] != present)
        )
        return varied(score, dataset, best["hyper"]), rows


def tune_scores(
    chosen: list[Score],
    network: Network,
    train_set: ImageSet,
    dataset: str | None,
    given: Sequence[ImageSet] = (),
) -> tuple[list[Score], dict[str, list]]:
    """Each score with the best values of its grid, and {score: rows of its grid}, which are
    printed; one without a grid stays. ``given``: OOD sets of --validation-ood.
    """
    held_out, tuned, grids = Validation(network, train_set, given), [], {}
    for score in chosen:
        rows = []
        if score.grid:
            with as_user_error(score):
                score, rows = held_out.tune(score, dataset)
            print("\n" + format_grid(score, rows, held_out.against))
        tuned.append(score)
        grids[score.name] = rows
    return list({score.label: score for score in tuned}.values()), grids


def varied(score: Score, dataset: str, hyper: dict) -> Score:
    """The same score with other hyper-parameters; one of the user's own keeps its name."""
    own = {  # a data set's own value gives way to what is searched, one that was typed does not
        key: value
        for key, value in score.hyper.items()
        if score.yields.get(key) not in hyper or key in getattr(score, "chosen", ())
    }
    made = type(score)(dataset, **{**own, **hyper})
    vars(made).update({key: value for key, value in vars(score).items() if key in ("name", "own")})
    return made


def format_grid(score: Score, rows: list[dict], against: str = "generated noise") -> str:
    """The grid as text, its chosen line marked."""
    lines = [
        (
            f"{score.name}: chosen on held-out ID training images against {against} "
            "(FPR95, AUROC, percent)"
        )
    ]
    for row in rows:
        words = ", ".join(
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in row["hyper"].items()
        )
        mark = (
            "  <- chosen"
            if all(score.hyper[key] == value for key, value in row["hyper"].items())
            else ""
        )
        lines.append(f"  {words:30}{row['fpr95']:8.2f}{row['auroc']:8.2f}{mark}")
    return "\n".join(lines)
