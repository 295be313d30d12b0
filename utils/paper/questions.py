"""The questions that the papers raise, each answered in two sentences out of the recorded results;
± is one standard error.
"""

from utils.losses import LOSSES
from utils.training import recipes

from . import published
from .compared import SURE, Family, at_alpha, error_of, families, first_with, gain, lower, mean
from .markdown import NOTHING
from .published import own_split
from .results import epochs_of, recorded_file
from .usual import USUAL


def render_questions(name: str, *wanted: str) -> str:
    """A paragraph a question, of those named by ``wanted`` or of all."""
    found = families(name)
    asked = {
        "sr": ("Does SR lower the FPR95 of the energy score at equal accuracy?", answer_sr),
        "images": (
            "Are the published numbers reached on the papers' very images?",
            answer_same_images,
        ),
        "outliers": ("What do auxiliary outliers cost or bring?", answer_outliers),
        "sroe": ("Is SROE ahead of OE and of energy fine-tuning?", answer_sroe),
        "alpha": ("Does the alpha chosen without OOD images beat the paper's?", answer_alpha),
    }
    chosen = [asked[key] for key in wanted or asked]
    return "\n\n".join(f"**{text}** {answer(name, found)}" for text, answer in chosen)


def answer_sr(name: str, found: list[Family]) -> str:
    if (family := first_with(found, "sr")) is None:
        return NOTHING
    before, after = family.entry("pretrained"), family.entry("sr")
    points, error = gain(before, after)
    costs = family.error("sr") - family.error("pretrained")
    equal = costs <= SURE * family.error_apart("pretrained", "sr")
    verdict = (
        "No" if points <= SURE * error else "Yes" if equal else "Lower, but not at equal accuracy"
    )
    text = (
        f"{verdict}: from {mean(before)} to {mean(after)} % in the mean over the sets, "
        f"{lower(before, after)}; ID error {family.error('pretrained'):.2f} % before and "
        f"{family.error('sr'):.2f} % after ({family.images('sr')}; "
        f"{epochs_of(family['sr'])} epochs). "
    )
    text += f"{own_split(family['sr']['id'])} ".lstrip()
    run = at_alpha(name, family, 0)
    if run is None:
        return text + "The control, the same fine-tuning with alpha 0, has not been run on it."
    control = run.entry()
    more, error = gain(control, after)
    return text + (
        f"The control, the same fine-tuning with alpha 0, comes to {mean(control)} %: "
        f"{more:.2f} ± {error:.2f} of the {points:.2f} points are the norm's."
    )


def answer_same_images(name: str, found: list[Family]) -> str:
    """Each stage of the longest family that has it, on the sets that are the papers' own."""
    lines, reached = [], []
    for stage in ("pretrained", *LOSSES):
        if (family := first_with(found, stage)) is None:
            continue
        entry = family.entry(stage)
        for row in filter(published.is_official, entry["sets"]):
            printed = sorted(printed_of(name, stage, entry["score"], row["set"]))
            if not printed:
                continue
            title = "pre-trained, energy" if stage == "pretrained" else LOSSES[stage].title
            numbers = " and ".join(f"{value:.2f}" for value in printed)
            lines.append(
                f"{title} {row['fpr95']:.2f} ± {error_of(row):.2f} (published {numbers}; "
                f"{epochs_of(family[stage])} epochs)"
            )
            where = f"{published.display(row['set'])}, n {row['n']:,}"
            if row["fpr95"] <= max(printed) + SURE * error_of(row):
                reached.append(title)
    if not lines:
        return NOTHING
    end = f"Reached, to {SURE} standard errors, by {', '.join(reached)}."
    end = end if reached else f"None is reached to {SURE} standard errors."
    return f"{where}, FPR95 in percent: {', '.join(lines)}. {end}"


def printed_of(name: str, stage: str, score: str, place: str) -> set[float]:
    """The published FPR95 of a stage on a set, of every paper that has it."""
    wanted = {"id_set": name, "stage": stage, "score": score, "ood_set": place, "metric": "fpr95"}
    wanted |= {"network": USUAL["arch"], "protocol": "paper"}
    records = published.PUBLISHED["records"]
    return {record["value"] for record in records if wanted.items() <= record.items()}


def answer_outliers(name: str, found: list[Family]) -> str:
    if (family := first_with(found, "oe", "energy", "sr")) is None:
        return NOTHING
    outliers = family["oe"]["snapshot"]["outliers"]
    return (
        f"With {outliers['images']:,} images of {outliers['name']}, OE comes to "
        f"{family.mean('oe')} % and energy fine-tuning to {family.mean('energy')} %, SR, which needs "
        f"none, to {family.mean('sr')} % (mean FPR95, each with its paper's score; "
        f"{epochs_told(family, 'oe', 'energy', 'sr')}). The ID error is {family.error('oe'):.2f}, "
        f"{family.error('energy'):.2f} and {family.error('sr'):.2f} %, before fine-tuning "
        f"{family.error('pretrained'):.2f} % ({family.images('oe')}, standard error of a "
        f"difference {family.error_apart('oe', 'sr'):.2f})."
    )


def answer_sroe(name: str, found: list[Family]) -> str:
    if (family := first_with(found, "sroe", "oe", "energy")) is None:
        return "Not measured: no SROE run of the papers' recipe stands beside OE and energy fine-tuning."
    words = []
    for stage in ("oe", "energy"):
        points, error = family.gain(stage, "sroe")
        word = "ahead of" if points > 0 else "behind"
        word = word if abs(points) > SURE * error else "level with"
        words.append(f"{word} {LOSSES[stage].title} ({family.mean(stage)} %)")
    return (
        f"At {family.mean('sroe')} % mean FPR95 it is {' and '.join(words)}. Its ID error is "
        f"{family.error('sroe'):.2f} %, theirs {family.error('oe'):.2f} and "
        f"{family.error('energy'):.2f} % ({epochs_told(family, 'sroe', 'oe', 'energy')})."
    )


def epochs_told(family: Family, *stages: str) -> str:
    """The epochs of some stages: once where all have the same, else each stage's."""
    each = {stage: epochs_of(family[stage]) for stage in stages}
    if len(set(each.values())) == 1:
        return f"{each[stages[0]]} epochs"
    return "epochs: " + ", ".join(f"{LOSSES[one].title} {count}" for one, count in each.items())


def answer_alpha(name: str, found: list[Family]) -> str:
    """Whole runs at the alpha of the recorded sweep and at the paper's, from the sweep's network."""
    record = recorded_file(f"{name}_sweep_alpha")
    usual = recipes.resolve("tune", name, "sr")["alpha"]
    if record is None:
        return NOTHING
    chosen = record["recommended"]
    if chosen == usual:
        return f"The sweep chose the paper's, {usual:g}."
    family = next((one for one in found if one["pretrained"].sha256 == record["parent"]), {})
    run = at_alpha(name, family, chosen) if "sr" in family else None
    if run is None:
        return f"Not measured: no whole run at {chosen:g}, the sweep's choice, beside one at {usual:g}."
    after = run.entry()
    points, error = gain(family.entry("sr"), after)
    verdict = "Yes" if points > SURE * error else "No"
    return (
        f"{verdict}: {chosen:g} comes to {mean(after)} %, the paper's {usual:g} to "
        f"{family.mean('sr')} % mean FPR95, at ID errors of {run.error:.2f} and "
        f"{family.error('sr'):.2f} % ({epochs_of(run)} epochs). How blind the "
        "choice was is told under *Which alpha?* and *What of SR does it?*"
    )
