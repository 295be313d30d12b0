"""The table of networks on harmonised images."""

import json

from utils.paper import others, results


def result(sha256, fpr95, **arguments):
    cell = {"set": "isun", "fpr95": fpr95, "auroc": 90.0, "aupr_in": 95.0, "draws": 1}
    return {
        "arguments": arguments,
        "protocol": "paper",
        "precision": "fp32",
        "snapshot": {"name": f"folder/{sha256}", "sha256": sha256},
        "id": {"error": 10.0},
        "scores": [{"score": "energy", "sets": [{"n": 5, **cell}], "average": cell}],
    }


def test_each_network_stands_below_itself_on_the_images_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RECORDED", tmp_path)
    for index, record in enumerate(
        (
            result("a", 1.25, harmonise=75),
            result("a", 2.5),
            result("a", 3.75, num_to_avg=3),  # not the papers' protocol
            result("b", 5.0, harmonise=75),  # with nothing to hold it against
            result("c", 6.0),
        )
    ):
        (tmp_path / f"cifar10_{index}.json").write_text(json.dumps(record))
    (tmp_path / "cifar10_sweep_alpha.json").write_text('{"arguments": {}}')
    lines = others.render_harmonised("cifar10").splitlines()
    assert len(lines) == 4
    assert "as they are" in lines[2] and "2.50" in lines[2]
    assert "harmonised, JPEG 75" in lines[3] and "1.25" in lines[3]
    assert others.render_harmonised("cifar100") == "Not measured yet."
