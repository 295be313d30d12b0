"""Several seeds' chains at a time, and the mean of their tables."""

import argparse
import os
import time

import pytest

from utils import runtime
from utils.paper import seeds


def table_of(path, fpr95, error):
    path.write_text(
        "method,id_error,set,n,fpr95,fpr95_sd,auroc,auroc_sd\n"
        f"SR,{error},isun,5,77,0,77,0\nSR,{error},average,,{fpr95},0,90,0\n"
        f"MSP,{error},average,,50,0,80,0\n"
    )


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """{seed: (words, place)} of the chains that were begun, the seeds that fail, and how many ran at
    a time: each chain stands for a process that leaves its table."""
    found, failing, alive, most = {}, [], set(), []

    def run_chain(words, place, log):
        seed = int(words[words.index("--seed") + 1])
        found[seed] = (words, place)
        assert all(place["cores"] != found[other][1]["cores"] for other in alive)
        alive.add(seed)
        most.append(len(alive))
        time.sleep(0.05)
        name = "digits_table.csv" if seed == 1 else f"digits_s{seed}_table.csv"
        table_of(tmp_path / name, 10.0 * seed, seed)
        alive.remove(seed)
        return int(seed in failing)

    monkeypatch.setattr(seeds, "run_chain", run_chain)
    monkeypatch.setattr(seeds, "places", lambda jobs: [{"cores": [job]} for job in range(jobs)])
    monkeypatch.setattr(seeds.report, "RESULTS", tmp_path)
    monkeypatch.setattr(seeds.options, "common_words", lambda args: [])
    return found, failing, most


def args(**changed):
    given = {"dataset": "digits", "seeds": [1, 2, 3], "jobs": 2, "arch": "wrn"}
    return argparse.Namespace(**{**given, "preset": "paper", "fresh": False, **changed})


def test_mean_and_sd_of_the_seeds_tables(begun, capsys):
    path = seeds.chains(args())
    assert max(begun[2]) == 2 and sorted(begun[0]) == [1, 2, 3]
    assert "--own-folders" in begun[0][2][0] and "--own-folders" not in begun[0][1][0]
    assert path.read_text().splitlines()[1] == "SR,20.0,10.0,90.0,0.0,2.0,1.0"
    assert "20.00 ± 10.00" in capsys.readouterr().out


def test_one_that_fails_is_named_after_the_others_have_ended(begun):
    begun[1].append(2)
    with pytest.raises(runtime.UserError, match=r"seed 2 failed.*digits_s2\.log"):
        seeds.chains(args(jobs=1))
    assert sorted(begun[0]) == [1, 2, 3] and max(begun[2]) == 1


def test_a_chain_runs_on_its_cores_with_its_output_in_a_log(tmp_path, monkeypatch):
    (tmp_path / "reproduce.py").write_text(
        "import os, sys\nprint(sys.argv[1:], os.sched_getaffinity(0), os.environ['OMP_NUM_THREADS'])\n"
        "sys.exit(3)\n"
    )
    monkeypatch.setattr(runtime, "ROOT", tmp_path)
    (place,) = seeds.places(1)
    assert seeds.run_chain(["digits"], place, tmp_path / "log") == 3
    told = f"['digits'] {set(place['cores'])} {place['environment']['OMP_NUM_THREADS']}"
    assert (tmp_path / "log").read_text().strip() == told


def test_each_has_cores_of_its_own():
    made = seeds.places(2)
    cores = [set(place["cores"]) for place in made]
    assert not cores[0] & cores[1] and set.union(*cores) == os.sched_getaffinity(0)
    assert [int(place["environment"]["OMP_NUM_THREADS"]) for place in made] == [
        max(len(own), 1) for own in cores
    ]


@pytest.mark.parametrize("text", ("1", "1,1", "1,x", "-1,2"))
def test_seeds_that_are_none(text):
    with pytest.raises(argparse.ArgumentTypeError):
        seeds.parse_seeds(text)
    assert seeds.parse_seeds("1,2") == [1, 2]
