"""The questions that the papers raise, each answered in two sentences out of the recorded results.

Networks are compared within a family: a pre-trained network and what was fine-tuned from it. ± is
one standard error, binomial in the number of images of each set; of a difference it is that of two
independent sets of images, which overstates it.
"""

from utils.evaluation import report
from utils.losses import LOSSES
from utils.training import recipes

from . import published, results
from .markdown import NOTHING
from .rendered import epochs_of, whole_sr_runs
from .results import parent_of, recorded_file
from .usual import USUAL

CONTROL = "control"  # SR's fine-tuning with alpha 0
SURE = 2  # standard errors


def render_questions(name: str) -> str:
    """A paragraph a question."""
    found = families(name)
    asked = {
        "Does SR lower the FPR95 of the energy score at equal accuracy?": answer_sr,
        "Are the published numbers reached on the papers' very images?": answer_same_images,
        "What do auxiliary outliers cost or bring?": answer_outliers,
        "Is SROE ahead of OE and of energy fine-tuning?": answer_sroe,
        "Does the alpha chosen without OOD images beat the paper's?": answer_alpha,
    }
    return "\n\n".join(f"**{text}** {answer(name, found)}" for text, answer in asked.items())


def families(name: str) -> list[dict[str, dict]]:
    """{stage: result} of each pre-trained network and of what came of it by the papers' recipes,
    the longest trained network first; SR's control is a stage too.
    """
    wanted = [
        one
        for one in results.recorded_results(name)
        if results.enters(one) and results.stage_of(one["snapshot"])[1] == USUAL["arch"]
    ]
    wanted.sort(key=lambda one: one["snapshot"]["recipe"]["epochs"])
    found = {}
    for one in wanted:
        if parent_of(one) is None and has(one, "energy"):
            found[one["snapshot"]["sha256"]] = {"pretrained": one}
    for one in wanted:
        loss = one["snapshot"].get("loss")
        if parent_of(one) in found and has(one, LOSSES[loss].score):
            found[parent_of(one)][loss] = one
    for one in whole_sr_runs(name):
        family = found.get(parent_of(one), {})
        if "sr" in family and same_but_alpha(one, family["sr"]) and alpha_of(one) == 0:
            family[CONTROL] = one
    return list(found.values())[::-1]


def first_with(found: list[dict], *stages: str) -> dict | None:
    return next((family for family in found if set(stages) <= set(family)), None)


def has(result: dict, score: str) -> bool:
    return any(entry["score"] == score for entry in result["scores"])


def alpha_of(result: dict) -> float:
    return result["snapshot"]["recipe"]["alpha"]


def same_but_alpha(one: dict, other: dict) -> bool:
    first, second = (result["snapshot"]["recipe"] for result in (one, other))
    return all(first[key] == second[key] for key in ("epochs", "padding"))


def entry_of(family: dict, stage: str) -> dict:
    """A stage's entry with the score of its paper; energy for the pre-trained network."""
    score = LOSSES[stage].score if stage in LOSSES else "energy"
    return report.entry_of(family[stage], score)


def error_of(row: dict) -> float:
    """Standard error in percent of the FPR95 of a set of n images."""
    return (row["fpr95"] * (100 - row["fpr95"]) / row["n"]) ** 0.5


def mean_error(entry: dict) -> float:
    """That of the mean over an entry's sets."""
    return sum(error_of(row) ** 2 for row in entry["sets"]) ** 0.5 / len(entry["sets"])


def mean(entry: dict) -> str:
    return f"{entry['average']['fpr95']:.2f} ± {mean_error(entry):.2f}"


def gain(before: dict, after: dict) -> tuple[float, float]:
    """(points by which the mean FPR95 is lower after, their standard error)."""
    points = before["average"]["fpr95"] - after["average"]["fpr95"]
    return points, (mean_error(before) ** 2 + mean_error(after) ** 2) ** 0.5


def lower(before: dict, after: dict) -> str:
    """On how many sets FPR95 is lower after, and on how many surely so."""
    pairs = list(zip(before["sets"], after["sets"]))
    gains = [
        (a["fpr95"] - b["fpr95"], (error_of(a) ** 2 + error_of(b) ** 2) ** 0.5) for a, b in pairs
    ]
    surely = sum(points > SURE * error for points, error in gains)
    count = sum(points > 0 for points, _ in gains)
    return f"lower on {count} of {len(pairs)} sets, on {surely} by more than {SURE} standard errors"


def id_error(result: dict) -> float:
    return result["id"]["error"]


def id_uncertainty(before: dict, after: dict) -> float:
    """Standard error of the difference of two ID errors, in points."""
    parts = [id_error(one) * (100 - id_error(one)) / one["id"]["images"] for one in (before, after)]
    return sum(parts) ** 0.5


def answer_sr(name: str, found: list[dict]) -> str:
    if (family := first_with(found, "sr")) is None:
        return NOTHING
    before, after = entry_of(family, "pretrained"), entry_of(family, "sr")
    points, error = gain(before, after)
    costs = id_error(family["sr"]) - id_error(family["pretrained"])
    equal = costs <= SURE * id_uncertainty(family["pretrained"], family["sr"])
    verdict = (
        "No" if points <= SURE * error else "Yes" if equal else "Lower, but not at equal accuracy"
    )
    text = (
        f"{verdict}: from {mean(before)} to {mean(after)} % in the mean over the sets, "
        f"{lower(before, after)}; ID error {id_error(family['pretrained']):.2f} % before and "
        f"{id_error(family['sr']):.2f} % after (n {family['sr']['id']['images']:,}; "
        f"{epochs_of(family['sr'], name)} epochs). "
    )
    if CONTROL not in family:
        return text + "The control, the same fine-tuning with alpha 0, has not been run on it."
    control = report.entry_of(family[CONTROL], "energy")
    more, error = gain(control, after)
    return text + (
        f"The control, the same fine-tuning with alpha 0, comes to {mean(control)} %: "
        f"{more:.2f} ± {error:.2f} of the {points:.2f} points are the norm's."
    )


def answer_same_images(name: str, found: list[dict]) -> str:
    """Each stage of the longest family that has it, on the sets that are the papers' own."""
    lines, reached = [], []
    for stage in ("pretrained", *LOSSES):
        if (family := first_with(found, stage)) is None:
            continue
        entry = entry_of(family, stage)
        for row in filter(published.is_official, entry["sets"]):
            printed = sorted(printed_of(name, stage, entry["score"], row["set"]))
            if not printed:
                continue
            title = "pre-trained, energy" if stage == "pretrained" else LOSSES[stage].title
            error = error_of(row)
            lines.append(
                f"{title} {row['fpr95']:.2f} ± {error:.2f} (published "
                f"{' and '.join(f'{value:.2f}' for value in printed)}; "
                f"{epochs_of(family[stage], name)} epochs)"
            )
            where = f"{published.display(row['set'])}, n {row['n']:,}"
            if row["fpr95"] <= max(printed) + SURE * error:
                reached.append(title)
    if not lines:
        return NOTHING
    end = (
        f"Reached, to {SURE} standard errors, by {', '.join(reached)}."
        if reached
        else (f"None is reached to {SURE} standard errors.")
    )
    return f"{where}, FPR95 in percent: {', '.join(lines)}. {end}"


def printed_of(name: str, stage: str, score: str, place: str) -> set[float]:
    """The published FPR95 of a stage on a set, of every paper that has it."""
    return {
        record["value"]
        for record in published.PUBLISHED["records"]
        if (record["id_set"], record["stage"], record["score"]) == (name, stage, score)
        and (record["ood_set"], record["metric"]) == (place, "fpr95")
        and (record["network"], record["protocol"]) == (USUAL["arch"], "paper")
    }


def answer_outliers(name: str, found: list[dict]) -> str:
    if (family := first_with(found, "oe", "energy", "sr")) is None:
        return NOTHING
    oe, energy = family["oe"], family["energy"]
    outliers = oe["snapshot"]["outliers"]
    return (
        f"With {outliers['images']:,} images of {outliers['name']}, OE comes to "
        f"{mean(entry_of(family, 'oe'))} % and energy fine-tuning to "
        f"{mean(entry_of(family, 'energy'))} %, SR, which needs none, to "
        f"{mean(entry_of(family, 'sr'))} % (mean FPR95, each with its paper's score; "
        f"{epochs_of(oe, name)} epochs). The ID error is {id_error(oe):.2f}, "
        f"{id_error(energy):.2f} and {id_error(family['sr']):.2f} %, before fine-tuning "
        f"{id_error(family['pretrained']):.2f} % (n {oe['id']['images']:,}, standard error of a "
        f"difference {id_uncertainty(oe, family['sr']):.2f})."
    )


def answer_sroe(name: str, found: list[dict]) -> str:
    if (family := first_with(found, "sroe", "oe", "energy")) is None:
        return "Not measured: no SROE run of the papers' recipe stands beside OE and energy fine-tuning."
    sroe = entry_of(family, "sroe")
    words = []
    for stage in ("oe", "energy"):
        points, error = gain(entry_of(family, stage), sroe)
        word = (
            "ahead of"
            if points > SURE * error
            else "behind"
            if -points > SURE * error
            else "level with"
        )
        words.append(f"{word} {LOSSES[stage].title} ({mean(entry_of(family, stage))} %)")
    return (
        f"At {mean(sroe)} % mean FPR95 it is {' and '.join(words)}. Its ID error is "
        f"{id_error(family['sroe']):.2f} %, theirs {id_error(family['oe']):.2f} and "
        f"{id_error(family['energy']):.2f} % ({epochs_of(family['sroe'], name)} epochs)."
    )


def answer_alpha(name: str, found: list[dict]) -> str:
    """Whole runs at the alpha of the recorded sweep and at the paper's, from one network."""
    record = recorded_file(f"{name}_sweep_alpha")
    usual = recipes.resolve("tune", name, "sr")["alpha"]
    if record is None:
        return NOTHING
    chosen = record["recommended"]
    if chosen == usual:
        return f"The sweep chose the paper's, {usual:g}."
    runs = whole_sr_runs(name)
    for family in found:
        if "sr" not in family or alpha_of(family["sr"]) != usual:
            continue
        for run in runs:
            same = parent_of(run) == parent_of(family["sr"]) and same_but_alpha(run, family["sr"])
            if same and alpha_of(run) == chosen:
                before, after = entry_of(family, "sr"), report.entry_of(run, "energy")
                points, error = gain(before, after)
                verdict = "Yes" if points > SURE * error else "No"
                return (
                    f"{verdict}: {chosen:g} comes to {mean(after)} %, the paper's {usual:g} to "
                    f"{mean(before)} % mean FPR95, at ID errors of {id_error(run):.2f} and "
                    f"{id_error(family['sr']):.2f} % ({epochs_of(run, name)} epochs). How blind the "
                    "choice was is told under *Which alpha?* and *What of SR does it?*"
                )
    return f"Not measured: no whole run at {chosen:g}, the sweep's choice, beside one at {usual:g}."
