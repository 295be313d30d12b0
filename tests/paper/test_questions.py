"""The questions' answers against numbers computed by hand from made-up results."""

import json

import pytest
from test_rendered import put, recorded  # noqa: F401 (a fixture)
from test_tables import STANDINS, change

from utils import runtime
from utils.paper import questions, results


def uncertainty(*fpr95):
    """Standard error of the sum or difference of means over the sets, each of one FPR95."""
    variances = [p * (100 - p) / n / len(STANDINS) ** 2 for p in fpr95 for n in STANDINS.values()]
    return sum(variances) ** 0.5


def answers(text=None):
    text = text or questions.render_questions("cifar10")
    return dict(part.strip("*").split("?** ", 1) for part in text.split("\n\n"))


def put_control(folder, value, alpha=0.0, **snapshot):
    path = put(folder, "sr", value=value, name=f"cifar10_sr_alpha{alpha}")
    recipe = {**json.loads(path.read_text())["snapshot"]["recipe"], "alpha": alpha}
    change(path, snapshot__recipe=recipe, **snapshot)


def test_nothing_measured_is_said_for_every_question(recorded):  # noqa: F811
    assert all(text.startswith("Not measured") for text in answers().values())
    assert len(answers()) == 5


@pytest.mark.parametrize(
    "value, error, verdict",
    [
        (30.0, 8.1, "Yes: "),
        (30.0, 9.0, "Lower, but not at equal accuracy: "),  # more than two standard errors, 0.39
        (39.5, 8.0, "No: "),
        (45.0, 8.0, "No: "),
    ],
)
def test_sr_lowers_fpr95_or_not(recorded, value, error, verdict):  # noqa: F811
    put(recorded)
    put(recorded, "sr", value=value, error=error)
    text = answers()["Does SR lower the FPR95 of the energy score at equal accuracy"]
    assert text.startswith(verdict)
    assert f"from 40.00 ± {uncertainty(40):.2f} to {value:.2f} ± {uncertainty(value):.2f} %" in text
    assert "(n 10,000; 15 + 15 epochs)" in text and "has not been run" in text


def test_the_control_s_part_is_taken_off(recorded):  # noqa: F811
    put(recorded)
    put(recorded, "sr", value=30.0)
    put_control(recorded, 37.0)
    put_control(recorded, 1.0, 0.5)  # another alpha is no control
    text = answers()["Does SR lower the FPR95 of the energy score at equal accuracy"]
    assert text.endswith(
        f"comes to 37.00 ± {uncertainty(37):.2f} %: 7.00 ± {uncertainty(37, 30):.2f} of the 10.00 "
        "points are the norm's."
    )


def test_only_the_papers_own_images_are_held_against_the_published_number(recorded):  # noqa: F811
    put(recorded, value=33.0)
    put(recorded, "oe", value=9.0)
    text = answers()["Are the published numbers reached on the papers' very images"]
    assert "iSUN, n 8,925" in text and "svhn" not in text.lower()
    assert "pre-trained, energy 33.00 ± 0.50 (published 29.93 and 33.68; 15 epochs)" in text
    assert "OE 9.00 ± 0.30 (published 6.32; 15 + 15 epochs)" in text
    assert text.endswith("Reached, to 2 standard errors, by pre-trained, energy.")


def test_outliers_and_sroe_are_compared_within_a_family(recorded):  # noqa: F811
    put(recorded, value=40.0)
    for loss, value in (("sr", 30.0), ("oe", 20.0), ("energy", 10.0), ("sroe", 10.5)):
        put(recorded, loss, value=value)
        outliers = {"name": "own", "images": 1234}
        change(recorded / f"cifar10_{loss}.json", snapshot__outliers=outliers)
    found = answers()
    assert found["What do auxiliary outliers cost or bring"].startswith(
        f"With 1,234 images of own, OE comes to 20.00 ± {uncertainty(20):.2f} % and energy"
    )
    assert "its paper's score; 15 + 15 epochs)" in found["What do auxiliary outliers cost or bring"]
    text = found["Is SROE ahead of OE and of energy fine-tuning"]
    assert "ahead of OE (20.00" in text and "level with Energy fine-tuning (10.00" in text
    recipe = json.loads((recorded / "cifar10_sr.json").read_text())["snapshot"]["recipe"]
    change(
        recorded / "cifar10_sr.json", snapshot__recipe={**recipe, "epochs": 4}, snapshot__epoch=3
    )
    told = "score; epochs: OE 15 + 15, Energy fine-tuning 15 + 15, SR 15 + 4)"
    assert told in answers()["What do auxiliary outliers cost or bring"]
    change(recorded / "cifar10_sroe.json", snapshot__parent_sha256="q" * 64)
    assert "Not measured" in answers()["Is SROE ahead of OE and of energy fine-tuning"]


def test_the_sweep_s_alpha_is_held_against_the_paper_s_run(recorded):  # noqa: F811
    put(recorded)
    put(recorded, "sr", value=30.0)
    put_control(recorded, 22.0, 0.05)
    sweep = results.RECORDED / "cifar10_sweep_alpha.json"
    runtime.write_json(sweep, {"recommended": 0.05, "parent": "p" * 64})
    text = answers()["Does the alpha chosen without OOD images beat the paper's"]
    assert text.startswith("Yes: 0.05 comes to 22.00") and "the paper's 0.02 to 30.00" in text
    for parent, chosen in (("p", 0.2), ("q", 0.05)):  # "q": the runs are of another network
        runtime.write_json(sweep, {"recommended": chosen, "parent": parent * 64})
        text = answers()["Does the alpha chosen without OOD images beat the paper's"]
        assert f"no whole run at {chosen:g}" in text
