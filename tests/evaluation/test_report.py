"""Draws, the rows of the papers' table, and what is written of them."""

import argparse
import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from utils import runtime, snapshots
from utils.evaluation import printed, report
from utils.evaluation.case import Case
from utils.evaluation.protocol import USUAL, Protocol, departures, is_usual
from utils.evaluation.record import chance_note, described
from utils.evaluation.rows import draw_indices, mean_row, measure_set
from utils.metrics import METRICS, detection_metrics


def scores(n=500, m=300, seed=0, shift=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.normal(shift, size=m)


def measure(ids, oods, name="svhn", draws=10, seed=1, protocol="paper"):
    return measure_set(ids, oods, name, Protocol(num_to_avg=draws, seed=seed, protocol=protocol))


class TestDraws:
    def test_without_replacement(self):
        parts = draw_indices(300, 100, 10, 1, "svhn")
        assert len(parts) == 10
        for part in parts:
            assert (
                len(part) == len(set(part.tolist())) == 100 and part.min() >= 0 and part.max() < 300
            )

    def test_every_image_is_as_likely(self):
        parts = np.concatenate(draw_indices(40, 10, 4000, 1, "svhn"))
        share = np.bincount(parts, minlength=40) / 4000
        assert abs(share - 0.25).max() < 0.04  # six standard deviations

    def test_seed_and_name_alone_decide(self):
        def drawn(*arguments):
            return [part.tolist() for part in draw_indices(300, 100, *arguments)]

        first = drawn(5, 1, "svhn")
        np.random.seed(3)
        assert drawn(5, 1, "svhn") == first and drawn(3, 1, "svhn") == first[:3]
        assert drawn(5, 2, "svhn") != first and drawn(5, 1, "isun") != first
        assert len({tuple(part) for part in first}) == 5

    @pytest.mark.parametrize("count", (1, 99, 100))
    def test_small_sets_are_used_whole_and_once(self, count):
        (part,) = draw_indices(count, 100, 10, 1, "svhn")
        assert part.tolist() == list(range(count))


class TestMeasureSet:
    def test_rows_by_a_slow_loop(self):
        ids, oods = scores()
        row = measure(ids, oods)
        # 500 // 5
        assert (row["set"], row["n"], row["drawn"], row["draws"]) == ("svhn", 300, 100, 10)
        parts = [
            detection_metrics(ids, oods[part]) for part in draw_indices(300, 100, 10, 1, "svhn")
        ]
        for metric in METRICS:
            values = [100 * part[metric] for part in parts]
            mean = sum(values) / 10
            assert row[metric] == pytest.approx(mean, abs=1e-9)
            assert row["sd"][metric] == pytest.approx(
                (sum((v - mean) ** 2 for v in values) / 9) ** 0.5, abs=1e-9
            )
            assert row["whole"][metric] == 100 * detection_metrics(ids, oods)[metric]
        assert row["sd"]["fpr95"] > 0

    def test_the_papers_draw_is_2000_of_10000_id_images(self):
        ids, oods = scores(10000, 2500)
        assert measure(ids, oods, draws=2)["drawn"] == 2000

    @pytest.mark.parametrize(
        "protocol, n, m", (("full", 500, 300), ("paper", 500, 90), ("paper", 500, 100))
    )
    def test_whole_sets_have_no_spread(self, protocol, n, m):
        row = measure(*scores(n, m), protocol=protocol)
        assert (row["drawn"], row["draws"]) == (m, 1) and set(row["sd"].values()) == {0.0}
        assert all(row[metric] == row["whole"][metric] for metric in METRICS)

    def test_few_id_images(self):
        assert measure(np.arange(3.0), np.arange(5.0))["drawn"] == 1

    def test_one_draw_has_no_spread(self):
        row = measure(*scores(), draws=1)
        assert row["draws"] == 1 and row["drawn"] == 100 and row["sd"]["auroc"] == 0.0

    def test_another_seed_moves_the_mean_but_not_the_whole(self):
        ids, oods = scores()
        one, other = measure(ids, oods, seed=1), measure(ids, oods, seed=2)
        assert (
            one["fpr95"] != other["fpr95"]
            and one["whole"] == other["whole"]
            and one == measure(ids, oods, seed=1)
        )

    def test_flags(self):
        assert measure(np.zeros(50), np.zeros(20))["flags"] == ["constant"]
        assert measure(*scores())["flags"] == []


class TestMeanRow:
    def test_plain_mean_whatever_the_sizes(self):
        rows = [
            measure(*scores(m=m, shift=shift), name=name)
            for name, m, shift in (("svhn", 300, 1.0), ("isun", 150, 2.0), ("lsun_c", 20, 3.0))
        ]
        average = mean_row(rows)
        for metric in METRICS:
            assert average[metric] == pytest.approx(sum(row[metric] for row in rows) / 3)
            assert average["whole"][metric] == pytest.approx(
                sum(row["whole"][metric] for row in rows) / 3
            )
            assert average["sd"][metric] == pytest.approx(
                sum(row["sd"][metric] ** 2 for row in rows) ** 0.5 / 3
            )


@pytest.fixture
def rows():
    made = [
        measure(*scores(m=300), name="svhn"),
        measure(np.zeros(500), np.zeros(20), name="scenes_resize"),
    ]
    return [*made, mean_row(made)]


class TestTables:
    def test_set_table(self, rows):
        lines = printed.format_set_table("energy", rows, 5.084).splitlines()
        assert lines[0].startswith("energy   (ID error 5.08 %; ID positive")
        assert lines[1].split() == ["FPR95", "AUROC", "AUPR"]
        for line, row in zip(lines[2:5], rows):
            cells = " ".join(
                f"{row[m]:.2f} ±{row['sd'][m]:5.2f}" for m in ("fpr95", "auroc", "aupr_in")
            )
            assert (
                line.split()[0] == row["set"]
                and cells.split() == line.split()[1 : len(cells.split()) + 1]
            )
        assert (
            "100 of 300 images x 10" in lines[2]
            and "20 of 20 images x 1" in lines[3]
            and "images" not in lines[4]
        )
        assert (
            lines[3].endswith("[constant]")
            and lines[5] == "[constant]: the score is the same for all images"
        )
        assert len(lines) == 6

    def test_set_table_with_ood_positive(self, rows):
        lines = printed.format_set_table("energy", rows, 5.0, out_as_pos=True).splitlines()
        assert "OOD positive" in lines[0]
        numbers = [float(word.strip("±")) for word in lines[2].replace("±", " ").split()[1:7]]
        assert numbers[::2] == [round(rows[0][m], 2) for m in ("fpr95_out", "auroc", "aupr_out")]

    def test_summary(self, rows):
        record = {"score": "energy", "sets": rows[:2], "average": rows[2]}
        lines = printed.format_summary([record, {**record, "score": "msp"}]).splitlines()
        assert lines[0].split() == ["FPR95,", "percent", "svhn", "scenes_resize", "average"]
        assert [line.split()[0] for line in lines[1:3]] == ["energy", "msp"]
        assert lines[1].split()[1:] == [
            f"{rows[0]['fpr95']:.2f}",
            f"{rows[1]['fpr95']:.2f}*",
            f"{rows[2]['fpr95']:.2f}",
        ]
        assert lines[3].startswith("* flagged")

    def test_result_name(self, tmp_path):
        def name(path, scores, protocol="paper"):
            return report.result_name(tmp_path / path, scores, protocol)

        assert (
            name("pretrained/cifar10_wrn_pretrained_epoch_99.pt", ["energy"])
            == "cifar10_wrn_pretrained_energy"
        )
        assert (
            name("tune_sr/cifar10_wrn_s1_tune_best.pt", ["msp", "knn:k=50"], "full")
            == "cifar10_wrn_s1_tune_best_sr_msp+knn-k-50_full"
        )
        assert (
            name("mine/cifar10_wrn_s1_tune_epoch_9.pt", ["msp"]) == "cifar10_wrn_s1_tune_mine_msp"
        )
        many = [f"score_number_{i}" for i in range(20)]
        assert name("a/b_epoch_1.pt", many) != name("a/b_epoch_1.pt", many[1:] + ["x"])
        assert len(name("a/b_epoch_1.pt", many)) < 60


def record_of(sha256, rows):
    return {
        "command": "test.py --model x",
        "snapshot": {"sha256": sha256},
        "scores": [{"score": "energy", "sets": rows[:2], "average": rows[2]}],
    }


def case_of(file, description=None, **options):
    """A case of test.py with these options, as far as its result's name goes."""
    args = argparse.Namespace(
        **{"score": "energy", "save": "results", "protocol": "paper", **options}
    )
    return Case(file, {"dataset": "cifar10", **(description or {})}, None, None, [], args)


class TestNames:
    FILE = snapshots.SNAPSHOTS / "tune_sr" / "cifar10_wrn_s1_tune_epoch_9.pt"

    def name(self, tmp_path, description=None, file=FILE, labels=("energy",), **options):
        return report.result_path(
            case_of(file, description, save=str(tmp_path), **options), list(labels)
        ).name

    @pytest.mark.parametrize("description", [{}, {"recipe": {"epochs": 10}, "epoch": 9}])
    def test_the_last_epoch_has_the_plain_name(self, tmp_path, description):
        assert self.name(tmp_path, description) == "cifar10_wrn_s1_tune_sr_energy"

    def test_another_epoch_has_it_in_its_name(self, tmp_path):
        assert (
            self.name(tmp_path, {"recipe": {"epochs": 20}, "epoch": 9})
            == "cifar10_wrn_s1_tune_epoch_9_sr_energy"
        )

    def test_a_run_that_has_not_ended_is_named_by_the_folder_it_goes_to(self, tmp_path):
        file = self.FILE.parent / f"cifar10_wrn_s1_tune{snapshots.RUN}" / self.FILE.name
        assert (
            self.name(tmp_path, {"recipe": {"epochs": 20}, "epoch": 9}, file)
            == "cifar10_wrn_s1_tune_epoch_9_sr_energy"
        )

    def test_what_is_not_usual_makes_another_name(self, tmp_path):
        unusual = [
            {"ood": "svhn"},
            {"id_train": "/x"},
            {"num_to_avg": 3},
            {"seed": 2},
            {"tune_scores": True},
            {"T": 2.0},
            {"noise": 0.0},
            {"image_size": 64},
            {"id": "/x"},
            {"data": "/x"},
            {"precision": "bf16"},
            {"skip_bad": True},
            {"arch": "a:b"},
            {"protocol": "full"},
        ]
        names = {self.name(tmp_path, **options) for options in [{}, *unusual]}
        assert len(names) == len(unusual) + 1
        assert self.name(tmp_path, out_as_pos=True, device="cuda") in names  # the same numbers
        assert self.name(tmp_path, file=tmp_path / self.FILE.name, labels=["energy"]) not in names
        plain = self.name(tmp_path, {"dataset": "flowers"})
        assert self.name(tmp_path, {"dataset": "flowers"}, id="/x") == plain  # always given by --id

    def test_names_are_those_of_the_recorded_results(self, tmp_path):
        """Each recorded result, made anew, replaces the one that is there."""
        found = [
            (path, report.read_result(path))
            for path in (report.RESULTS / "recorded").glob("*_wrn_*.json")
        ]
        assert len(found) > 5
        for path, result in found:
            arguments = {**result["arguments"], "data": str(runtime.DATA), "save": str(tmp_path)}
            case = Case(
                snapshots.SNAPSHOTS / f"{result['snapshot']['name']}.pt",
                result["snapshot"],
                None,
                None,
                [],
                argparse.Namespace(**arguments),
            )
            assert (
                report.result_path(case, [entry["score"] for entry in result["scores"]]).name
                == path.stem
            )

    def test_recorded_results_are_usual(self):
        found = [
            report.read_result(path) for path in (report.RESULTS / "recorded").glob("*_wrn_*.json")
        ]
        # but for what says in every table that it is not
        apart = [r for r in found if r["arguments"].get("harmonise") or r["protocol"] == "openood"]
        assert found and all(is_usual(result) for result in found if result not in apart)

    @pytest.mark.parametrize(
        "option, value, usual",
        [
            ("num_to_avg", 3, False),
            ("protocol", "full", False),
            ("id", "/x", False),
            ("T", 2.0, True),
            ("data", "/x", True),
            ("precision", "bf16", True),
            ("out_as_pos", True, True),
        ],
    )
    def test_usual_is_equal_to_the_record(self, option, value, usual):
        arguments = {"ood": "", "id": None, "model": "x", option: value}
        assert departures(arguments) == {option: value}
        assert (
            is_usual({"arguments": arguments, "protocol": arguments.get("protocol", "paper")})
            is usual
        )
        assert departures({"model": "x"}) == {} and Protocol.of({}) == USUAL


class TestAnotherSnapshotOfTheName:
    def write(self, path, sha256, rows, **vectors):
        report.write_result(path, record_of(sha256, rows), vectors or None)

    def test_its_result_is_kept(self, tmp_path, rows, capsys):
        path = tmp_path / "x_energy"
        self.write(path, "a" * 64, rows, former=np.zeros(3))
        before = {
            file.name.removeprefix("x_energy"): file.read_bytes() for file in tmp_path.iterdir()
        }
        self.write(path, "b" * 64, rows)
        assert {f"_aaaaaaaa{end}": content for end, content in before.items()} == {
            file.name.removeprefix("x_energy"): file.read_bytes()
            for file in tmp_path.iterdir()
            if "aaaaaaaa" in file.name
        }
        assert report.read_result(tmp_path / "x_energy.json")["snapshot"]["sha256"] == "b" * 64
        assert (
            "x_energy_aaaaaaaa.json" in capsys.readouterr().out
            and not (tmp_path / "x_energy_scores.npz").exists()
        )

    @pytest.mark.parametrize("content", [None, "{", "[]", '{"rows": []}'])
    def test_its_own_or_no_result_is_replaced(self, tmp_path, rows, capsys, content):
        self.write(tmp_path / "x_energy", "b" * 64, rows)
        if content:
            (tmp_path / "x_energy.json").write_text(content)
        self.write(tmp_path / "x_energy", "b" * 64, rows)
        assert len(list(tmp_path.iterdir())) == 2 and capsys.readouterr().out == ""


class TestOtherSettingsOfTheName:
    """--id at two places, or one place whose images have changed: names are the same there."""

    def record(self, rows, fingerprint, **arguments):
        images = {"name": "own", "fingerprint": fingerprint}
        return {**record_of("a" * 64, rows), "id": images, "ood": [], "arguments": arguments}

    def test_both_results_stay(self, tmp_path, rows, capsys):
        path = tmp_path / "x_energy"
        first = report.write_result(path, self.record(rows, "one"))
        assert first == path and capsys.readouterr().out == ""
        second = report.write_result(path, self.record(rows, "two"))
        told = capsys.readouterr().out
        assert second != path and f"{second.name}.json" in told and "(id)" in told
        again = report.write_result(path, self.record(rows, "two", data="/elsewhere", T=None))
        assert again == second and report.write_result(path, self.record(rows, "one")) == path
        third = report.write_result(path, self.record(rows, "one", harmonise=75))
        chosen = self.record(rows, "one", tune_scores=True, validation_ood="/a/own.npz")
        for at, fingerprint in enumerate("xyx"):  # images of one file that have changed
            chosen["validation_ood"] = [{"name": "own", "fingerprint": fingerprint}]
            report.write_result(tmp_path / "t" / "x", chosen)
            assert len(list((tmp_path / "t").glob("*.json"))) == min(at + 1, 2)
        found = {file: report.read_result(file) for file in tmp_path.glob("*.json")}
        assert len(found) == len({path, second, third}) == 3
        assert [found[file.with_name(file.name + ".json")]["id"]["fingerprint"]
                for file in (path, second, third)] == ["one", "two", "one"]  # fmt: skip

    def test_several_at_once_lose_none(self, tmp_path, rows):
        """Each would find nothing there if it looked before the others had written."""

        def write(number):
            return report.write_result(tmp_path / "x_energy", self.record(rows, str(number)))

        with ThreadPoolExecutor(8) as pool:
            paths = set(pool.map(write, range(8)))
        kept = {report.read_result(f)["id"]["fingerprint"] for f in tmp_path.glob("*.json")}
        assert len(paths) == 8 and kept == {str(number) for number in range(8)}

    def test_a_name_that_is_too_long_is_bounded(self):
        long = [report.result_name(Path(f"a/{'x' * 190}_{i}_epoch_1.pt"), ["energy"]) for i in "ab"]
        assert all(len(name) <= report.LONGEST for name in long) and long[0] != long[1]


def test_numbers_of_images_stay_with_the_snapshot():
    used = {"name": "own", "images": 2, "pixels": "AAAA"}
    made = {"arch": "wrn", "sha256": "a", "validation_ood": [used]}
    assert described(made) == {"arch": "wrn", "validation_ood": [{"name": "own", "images": 2}]}
    assert used["pixels"] == "AAAA" and described({"sha256": "a"}) == {}


class TestFiles:
    def test_json_and_csv_hold_the_same_numbers(self, tmp_path, rows):
        record = record_of("a" * 64, rows)
        report.write_result(tmp_path / "new" / "a.b_energy", record)
        assert (
            report.read_result(tmp_path / "new" / "a.b_energy.json")
            == json.loads(json.dumps(record))
            == record
        )
        lines = list(csv.DictReader((tmp_path / "new" / "a.b_energy.csv").open()))
        assert [line["set"] for line in lines] == ["svhn", "scenes_resize", "average"]
        assert {line["score"] for line in lines} == {"energy"}
        for line, row in zip(lines, rows):
            for metric in METRICS:
                assert float(line[metric]) == pytest.approx(row[metric], abs=5e-5)
                assert float(line[f"{metric}_sd"]) == pytest.approx(row["sd"][metric], abs=5e-5)
                assert float(line[f"{metric}_whole"]) == pytest.approx(
                    row["whole"][metric], abs=5e-5
                )
        assert [line["flags"] for line in lines] == ["", "constant", ""] and lines[0]["n"] == "300"
        assert lines[2]["n"] == ""
        assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
            "a.b_energy.csv",
            "a.b_energy.json",
        ]

    def test_scores_of_every_image(self, tmp_path, rows):
        vectors = {"energy/id": np.arange(3.0), "energy/svhn": np.array([0.5, np.inf])}
        report.write_result(tmp_path / "a", record_of("a" * 64, rows), vectors)
        with np.load(tmp_path / "a_scores.npz", allow_pickle=False) as content:
            assert content.files == list(vectors)
            assert all(np.array_equal(content[name], vector) for name, vector in vectors.items())


@pytest.mark.parametrize(
    "id_error, known, classes, images, warned",
    [
        (89.5, None, 10, 10000, True),  # a published file whose classes are in another order
        (89.5, 94.0, 10, 10000, True),
        (89.5, 11.0, 10, 10000, False),  # it says itself that it is no better
        (12.0, 94.0, 10, 10000, False),
        (75.0, None, 10, 10000, False),
        (48.0, 95.0, 2, 1000, True),
        (40.0, 95.0, 2, 1000, False),
        (70.0, None, 10, 20, True),  # of twenty images six may be right by chance
    ],
)
def test_an_error_near_chance_is_a_warning(id_error, known, classes, images, warned):
    description = {"num_classes": classes} | ({"id_accuracy": known} if known else {})
    sets = SimpleNamespace(id=range(images))
    case = SimpleNamespace(sets=sets, description=description, file=Path("some.pt"))
    note = chance_note(id_error, case)
    assert bool(note) is warned
    if warned:
        assert f"{id_error:.2f} %, is near chance ({100 - 100 / classes:.2f} %)" in note
    description["classifier"] = False  # a contrastive file of others: its head is no one's
    assert chance_note(id_error, case) is None
