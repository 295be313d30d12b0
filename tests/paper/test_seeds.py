"""Several seeds' chains at a time, and the mean of their tables."""

import argparse
import os

import pytest

from utils import runtime
from utils.paper import seeds


def table_of(path, fpr95, error):
    path.write_text(
        "method,id_error,set,n,fpr95,fpr95_sd,auroc,auroc_sd\n"
        f"SR,{error},isun,5,77,0,77,0\nSR,{error},average,,{fpr95},0,90,0\n"
        f"MSP,{error},average,,50,0,80,0\n"
    )


class Chain:
    """Stands for a process: ends after a few looks, with its status, and leaves its table."""

    alive, most = 0, 0

    def __init__(self, folder, seed, status=0):
        Chain.alive += 1
        Chain.most = max(Chain.most, Chain.alive)
        self.folder, self.seed, self.returncode, self.looks = folder, seed, status, 0

    def poll(self):
        self.looks += 1
        if self.looks < 3:
            return None
        Chain.alive -= 1
        name = "digits_table.csv" if self.seed == 1 else f"digits_s{self.seed}_table.csv"
        table_of(self.folder / name, 10.0 * self.seed, self.seed)
        return self.returncode


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """{seed: (words, place)} of the chains that were begun."""
    found, failing = {}, []
    Chain.alive = Chain.most = 0

    def start(words, place, log):
        seed = int(words[words.index("--seed") + 1])
        found[seed] = (words, place)
        return Chain(tmp_path, seed, int(seed in failing))

    monkeypatch.setattr(seeds, "start", start)
    monkeypatch.setattr(seeds, "POLL", 0)
    monkeypatch.setattr(seeds.report, "RESULTS", tmp_path)
    monkeypatch.setattr(seeds.options, "common_words", lambda args: [])
    return found, failing


def args(**changed):
    given = {"dataset": "digits", "seeds": [1, 2, 3], "jobs": 2, "arch": "wrn"}
    return argparse.Namespace(**{**given, "preset": "paper", "fresh": False, **changed})


def test_mean_and_sd_of_the_seeds_tables(begun, capsys):
    path = seeds.chains(args())
    assert Chain.most == 2 and sorted(begun[0]) == [1, 2, 3]
    assert "--own-folders" in begun[0][2][0] and "--own-folders" not in begun[0][1][0]
    assert path.read_text().splitlines()[1] == "SR,20.0,10.0,90.0,0.0,2.0,1.0"
    assert "20.00 ± 10.00" in capsys.readouterr().out


def test_one_that_fails_is_named_after_the_others_have_ended(begun):
    begun[1].append(2)
    with pytest.raises(runtime.UserError, match=r"seed 2 failed.*digits_s2\.log"):
        seeds.chains(args(jobs=1))
    assert sorted(begun[0]) == [1, 2, 3] and Chain.most == 1


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
