"""Small files from disk: both readers give the same images, the files go, a full disk is one line."""

import json
from collections import namedtuple

import pytest

from utils.benchmark import streaming as small_files
from utils.loaders import streaming
from utils.paper import results, speed
from utils.runtime import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Temporary folders lie in ``tmp_path``, and passes run in this process."""
    before = streaming.use_streaming()
    monkeypatch.setattr(small_files.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(small_files, "BATCH", 7)
    monkeypatch.setattr(small_files, "CLASSES", 3)
    monkeypatch.setattr(small_files, "PICTURES", 5)
    yield tmp_path
    streaming.use_streaming(**before)


def passes(made):
    """``call_apart`` in this process; what each pass was is added to ``made``."""

    def call(function, *given, keep):
        found = small_files.read_all(*given)
        made.append((given[0], given[-1], keep, found))
        return found, 0.0, 0.0

    return call


def test_rows_of_both_readers_of_the_same_images_and_their_table(here, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(small_files, "call_apart", passes(made))
    out = here / "streaming.json"
    small_files.main(["--images", "24", "--workers", "1", "--rounds", "1", "--out", str(out)])
    plain, ours = small_files.PLAIN, small_files.OURS
    # memory first, then the timed pass, the two in turn; freed memory is kept as in the scripts
    assert [one[:3] for one in made] == [
        (plain, True, False),
        (ours, True, True),
        (plain, False, False),
        (ours, False, True),
    ]
    read = [found for *_, found in made]
    assert {(one["images"], one["labels"]) for one in read} == {(24, 8 * (0 + 1 + 2))}
    assert [one["pixels"] for one in read] == [pytest.approx(read[0]["pixels"], abs=1e-4)] * 4
    assert all(0 < one["first_s"] <= one["seconds"] for one in read)
    record = json.loads(out.read_text())
    assert [row["what"] for row in record["rows"]] == [plain, ours]
    assert record["rows"][1]["ratio"] == pytest.approx(read[2]["seconds"] / read[3]["seconds"])
    assert record["rows"][1]["first_ratio"] == pytest.approx(
        read[2]["first_s"] / read[3]["first_s"]
    )
    assert "this project" in capsys.readouterr().out
    assert not list(here.glob("small-files-*"))  # the files have gone
    monkeypatch.setattr(results, "RECORDED", here)
    table = speed.render_streaming().splitlines()
    assert table[2].startswith(f"| {plain} | ") and table[3].startswith(f"| {ours} | ")
    assert "24 files, 1 worker, 1 rounds" in table[-1]


def test_no_two_files_are_equal_and_interrupted_all_go(here, monkeypatch):
    seen = []

    def interrupted(function, name, folder, *given, keep):
        files = sorted(here.glob("small-files-*/class_*/*.jpg"))
        seen.extend(file.read_bytes() for file in files)
        raise KeyboardInterrupt

    monkeypatch.setattr(small_files, "call_apart", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small_files.measure(12, 1, 1)
    assert len(seen) == len(set(seen)) == 12 and not list(here.glob("small-files-*"))


def test_a_disk_that_is_too_small_is_said_before_a_file_is_written(here, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(small_files.shutil, "disk_usage", lambda _: Usage(0, 0, 3 << 20))
    with pytest.raises(UserError, match=r"3 MiB free, 1,000 files need 4\. .*TMPDIR.*--images"):
        small_files.measure(1000, 1, 1)
    assert not list(here.glob("small-files-*"))


def test_memory_is_that_of_the_processes_together():
    found = small_files.tree_mib()
    assert found is None or found > 50
