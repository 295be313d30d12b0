"""Published networks: listed by address and checksum, used where they are, refused by name."""

import hashlib
import re

import pytest

import models
from utils import snapshots
from utils.runtime import UserError
from utils.snapshots import published


def test_the_list():
    known = published.networks()
    assert len(known) == 6 and len({entry["sha256"] for entry in known.values()}) == 6
    for name, entry in known.items():
        assert re.fullmatch("[0-9a-f]{64}", entry["sha256"])
        assert name.startswith(("cifar10_", "cifar100_")) and entry["from"].startswith("https://")


def test_one_that_is_there_is_used_and_another_file_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PUBLISHED", tmp_path)
    name, known = "published/cifar10_wrn_energy_ft", published.networks()
    with pytest.raises(UserError, match="not there. Get the file from https.*78a288.*put it at"):
        snapshots.find_snapshots(name)
    with pytest.raises(UserError, match="unknown published network 'vgg'. There is: cifar10_wrn"):
        snapshots.find_snapshots("published/vgg")
    file = tmp_path / "cifar10_wrn_energy_ft.pt"
    net = models.build("wrn", 10, layers=10, widen_factor=1)
    file.write_bytes(snapshots.to_bytes(net.state_dict()))
    with pytest.raises(UserError, match="is not the published"):
        snapshots.find_snapshots(name)
    known["cifar10_wrn_energy_ft"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(published, "networks", lambda: known)
    assert snapshots.find_snapshots(name) == [file]
    assert snapshots.load_model(file)[1]["dataset"] == "cifar10"
