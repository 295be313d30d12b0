"""torchvision's published weights: found by name, checked by hash, scored as plain code does."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image

from utils import scores
from utils.evaluation import load, torchvision_weights
from utils.evaluation.case import Case, load_sets
from utils.runtime import UserError

torchvision = pytest.importorskip("torchvision")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_a_file_is_named_and_checked(hub):
    with pytest.raises(UserError, match=r"resnet50-0676ba61\.pth.*--download"):
        torchvision_weights.find_weights("torchvision:resnet50")
    (hub / "resnet50-0676ba61.pth").write_bytes(b"other")
    with pytest.raises(UserError, match="damaged"):
        torchvision_weights.find_weights("torchvision:resnet50")
    with pytest.raises(UserError, match="no weights"):
        torchvision_weights.find_weights("torchvision:resnet5")


def photographs(folder, count, classes):
    """Parts of the photographs that scikit-learn ships, 256 pixels high, in class folders."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(len(folder.name))
    for i in range(count):
        top, left = rng.integers(0, 170), rng.integers(0, 300)
        photo = load_sample_images().images[i % 2][top : top + 256, left : left + 300]
        place = folder / f"n{i % classes:04}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(place / f"{i}.png")


def test_imagenet4_is_a_plain_computation(tmp_path, capsys):
    """Resize(256), CenterCrop(224), ImageNet's statistics and whole sets, against torchvision's own
    transforms and a loop, on a small network of torchvision with weights at random."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=4).eval()
    file = tmp_path / "resnet18-x.pth"
    torch.save(model.state_dict(), file)
    photographs(tmp_path / "id" / "test", 4, 4)
    photographs(tmp_path / "data" / "iNaturalist", 3, 1)
    args = Namespace(
        device="cpu",
        ngpu=0,
        precision="fp32",
        test_bs=2,
        compile="off",
        arch="torchvision:resnet18",
        id=str(tmp_path / "id"),
        id_train=None,
        T=None,
        data=str(tmp_path / "data"),
        image_size=None,
        skip_bad=False,
        ood="",
        protocol="imagenet4",
        harmonise=None,
        out_as_pos=False,
        noise=None,
        split=None,
    )
    net, description = load.load_network(file, args)
    net.cache.folder = tmp_path / "cache"
    description.setdefault("dataset", None)
    sets = load_sets(description, file, args, False)
    assert sets.missing == ("sun", "places_mos", "textures")
    assert "Places.tar.gz" in capsys.readouterr().err
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    case = Case(file, description, net, sets, [], args)
    for score in scores.choose("energy,msp,maxlogit,gen", None, None, None):
        rows, vectors = case.measure(score)
        for name, folder in (("id", tmp_path / "id"), ("inaturalist", tmp_path / "data")):
            files = sorted(folder.rglob("*.png"))
            images = [transform(Image.open(path)) for path in files]
            with torch.no_grad():
                logits = model(torch.stack(images)).numpy()
            wanted = score.score(scores.Outputs(logits, logits))
            assert np.allclose(vectors[name], wanted, atol=2e-4), score.label
        assert rows[0]["draws"] == 1 and rows[0]["n"] == 3
