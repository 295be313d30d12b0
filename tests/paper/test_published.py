"""CIFAR/published.json: well-formed, free of duplicates,
and consistent with itself wherever the papers are.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest

PUBLISHED = json.loads(
    (Path(__file__).parents[2] / "CIFAR" / "published.json").read_text(encoding="utf-8")
)
RECORDS = PUBLISHED["records"]

FIELDS = (
    "method",
    "network",
    "id_set",
    "ood_set",
    "metric",
    "value",
    "protocol",
    "source",
    "score",
    "stage",
)
METRICS = {"fpr95", "auroc", "aupr", "id_error"}
SIX = ("textures", "svhn", "places365", "lsun_c", "lsun_r", "isun")
FOUR = ("inaturalist", "sun", "places", "textures")
FAR = ("mnist", "svhn", "textures", "places365")
# A mean of rows and a printed mean, each rounded to two decimals, are at most 0.005 + 0.005 apart.
ROUNDING = 0.01 + 1e-9


def key_of(record):
    """What a record is about: all its fields but the value."""
    return tuple(record[field] for field in FIELDS if field != "value")


def sets_of(record):
    """The OOD sets whose mean the record is; () for a single set and for an error."""
    near = ("cifar100" if record["id_set"] == "cifar10" else "cifar10", "tin")
    return {
        ("paper", "average"): SIX,
        ("imagenet4", "average"): FOUR,
        ("openood", "near"): near,
        ("openood", "far"): FAR,
    }.get((record["protocol"], record["ood_set"]), ())


def find(**wanted):
    """The one record that has all of these fields."""
    found = [r for r in RECORDS if all(r[field] == value for field, value in wanted.items())]
    assert len(found) == 1, f"{len(found)} records have {wanted}"
    return found[0]


def means_of_rows():
    """(record of a printed average, mean of its rows) for every average
    whose rows are all there.
    """
    value = {key_of(r): r["value"] for r in RECORDS}
    pairs = []
    for record in RECORDS:
        rows = [value.get(key_of({**record, "ood_set": name})) for name in sets_of(record)]
        if rows and None not in rows:
            pairs.append((record, sum(rows) / len(rows)))
    return pairs


def test_every_record_is_well_formed():
    for r in RECORDS:
        assert tuple(r)[: len(FIELDS)] == FIELDS and set(r) - set(FIELDS) <= {"flag"}, r
        assert all(
            isinstance(r[f], str) and r[f] for f in FIELDS if f not in ("ood_set", "value")
        ), r
        assert isinstance(r["value"], float) and 0 < r["value"] < 100, r
        assert r["metric"] in METRICS and r["source"] in PUBLISHED["sources"], r
        assert (r["ood_set"] is None) == (r["metric"] == "id_error"), r
        assert (
            r["ood_set"] is None or isinstance(r["ood_set"], str) and r["ood_set"] != r["id_set"]
        ), r
        assert "flag" not in r or set(r["flag"]) == {"kind", "note"} and r["flag"]["note"], r


def test_every_declared_source_protocol_and_flag_is_used():
    assert {r["source"] for r in RECORDS} == set(PUBLISHED["sources"])
    assert {r["protocol"] for r in RECORDS} == set(PUBLISHED["protocols"])
    assert {r["flag"]["kind"] for r in RECORDS if "flag" in r} == set(PUBLISHED["flags"])
    for source in PUBLISHED["sources"].values():
        assert set(source) == {"title", "authors", "venue", "year", "link"}
        assert source["link"].startswith("https://") and 2016 <= source["year"] <= 2030


def test_no_number_is_there_twice():
    seen = defaultdict(list)
    for r in RECORDS:
        seen[key_of(r)].append(r["value"])
    assert [key for key, values in seen.items() if len(values) > 1] == []


def test_the_six_sets_are_the_only_ones_of_the_paper_protocol():
    assert {r["ood_set"] for r in RECORDS if r["protocol"] == "paper"} == {"average", None, *SIX}


def test_every_per_set_row_belongs_to_a_printed_average():
    averaged = {(key_of({**r, "ood_set": "-"}), name) for r in RECORDS for name in sets_of(r)}
    single = {
        (key_of({**r, "ood_set": "-"}), r["ood_set"])
        for r in RECORDS
        if r["ood_set"] and not sets_of(r)
    }
    assert single <= averaged


def test_an_average_is_flagged_as_a_mismatch_exactly_where_its_rows_do_not_give_it():
    pairs = means_of_rows()
    assert len(pairs) >= 46  # 18 of energy, 8 of srf, 12 of dice, 8 of reweightood
    wrong = {key_of(r) for r, mean in pairs if abs(r["value"] - mean) > ROUNDING}
    assert wrong == {key_of(r) for r in RECORDS if r.get("flag", {}).get("kind") == "mismatch"}


def test_a_mismatch_note_gives_the_mean_of_the_rows():
    for r, mean in means_of_rows():
        if r.get("flag", {}).get("kind") == "mismatch":
            assert f"{mean:.2f}" in r["flag"]["note"]


def test_energy_rows_average_to_the_energy_table():
    energy = [
        (r, mean)
        for r, mean in means_of_rows()
        if r["source"] == "energy" and r["id_set"] == "cifar10"
    ]
    assert {(r["method"], r["metric"]) for r, _ in energy} == {
        (method, metric)
        for method in ("MSP", "Energy", "OE", "Energy fine-tune")
        for metric in ("fpr95", "auroc", "aupr")
    }
    for r, mean in energy:
        assert r["value"] == pytest.approx(mean, abs=ROUNDING)


def test_every_misprint_and_unconfirmed_number_is_flagged():
    kinds = defaultdict(set)
    for r in RECORDS:
        if "flag" in r:
            kinds[r["flag"]["kind"]].add(
                (r["source"], r["method"], r["id_set"], r["ood_set"], r["metric"], r["value"])
            )
    assert kinds["misprint"] == {
        ("srf", "OE", "cifar10", "average", "auroc", 3.31),
        ("srf", "DICE", "cifar10", "average", "fpr95", 26.55),
        ("srf", "DICE", "cifar10", "average", "auroc", 94.57),
        ("srf", "DICE", "cifar10", "average", "aupr", 94.50),
    }
    assert {value for *_, value in kinds["disagreement"]} == {33.01, 34.92, 31.32}
    assert {k for k in kinds["unconfirmed"] if k[0] == "dice"} == {
        ("dice", "DICE", "imagenet1k", "inaturalist", "auroc", 94.49),
        ("dice", "DICE", "imagenet1k", "average", "auroc", 90.77),
    }
    assert kinds["second-hand"] == {
        ("greg", method, "cifar10", "average", "fpr95", value)
        for method, values in (("Energy loss", (11.14, 13.11, 11.26)), ("GReg", (7.90, 7.95, 7.93)))
        for value in values
    }


def test_the_disputed_dice_row_equals_the_densenet_energy_row():
    for metric in ("fpr95", "auroc"):
        srf = find(source="srf", method="DICE", id_set="cifar10", metric=metric)
        dice = find(
            source="dice", method="Energy", network="densenet", id_set="cifar10", metric=metric
        )
        assert srf["value"] == dice["value"]


@pytest.mark.parametrize(
    "source, method, network, id_set, ood_set, metric, value",
    [
        ("energy", "MSP", "wrn", "cifar10", "average", "fpr95", 51.04),
        ("energy", "ODIN", "wrn", "cifar100", None, "id_error", 24.04),
        ("energy", "OE", "wrn", "cifar10", "places365", "aupr", 99.06),
        ("sr", "SROE", "wrn", "cifar100", "average", "fpr95", 23.84),
        ("sr", "SR", "wrn", "cifar10", "average", "fpr95", 19.19),
        ("srf", "SR", "wrn", "cifar10", "average", "fpr95", 16.30),
        ("srf", "SR", "wrn", "cifar100", "lsun_r", "auroc", 88.36),
        ("srf", "Baseline", "allconv", "cifar100", None, "id_error", 25.28),
        ("srf", "VOS", "wrn", "cifar100", "average", "fpr95", 31.65),
        ("dice", "DICE+ReAct", "resnet50", "imagenet1k", "sun", "auroc", 93.94),
        ("greg", "GReg+", "densenet121", "imagenet10", "average", "fpr95", 35.08),
        ("reweightood", "ReweightOOD", "resnet18", "cifar10", "svhn", "fpr95", 0.32),
        ("openood", "SCALE", "resnet18", "cifar100", "far", "auroc", 81.42),
    ],
)
def test_spot_values(source, method, network, id_set, ood_set, metric, value):
    found = find(
        source=source, method=method, network=network, id_set=id_set, ood_set=ood_set, metric=metric
    )
    assert found["value"] == value


def test_a_value_not_printed_has_no_record():
    odin = [
        r
        for r in RECORDS
        if r["source"] == "energy" and r["method"] == "ODIN" and r["id_set"] == "cifar100"
    ]
    assert {r["metric"] for r in odin} == {"fpr95", "id_error"}
