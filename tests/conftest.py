"""What the tests of the scripts share: copies of the project to run them in,
a quick way to run them, small image sets.
"""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

# The tests' tensors are so small that starting a second thread costs more than it saves.
# Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?"
DEPARTURES = re.compile(
    rf"_(?:(?:b|oe|lr|layers|widen|epochs|alpha|momentum|decay|droprate|padding|outlier-padding|m-in"
    rf"|m-out|image-size|split|accumulate){NUMBER}|fp32|\d+-changes-[0-9a-f]{{8}}"
    r"|(?:from|outliers|load|mean|grad-scale|sampling)(?:-[A-Za-z0-9]+(?:\.\d+)?)+)(?=[_.\W]|$)"
)

NO_MATPLOTLIB = "import sys\nsys.modules['matplotlib'] = None\n"


def plain(text):
    """A text in which the names of runs are those of the recipe: the tests train with few epochs and
    small networks, and what departs is in each name (tests/training/test_names.py).
    """
    return DEPARTURES.sub("", text)


def photographs(count, seed, side=32):
    """uint8 (N,side,side,3) of smooth shapes with some noise, as photographs have them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 6, 6, 3)).astype(np.uint8)
    smooth = [np.asarray(Image.fromarray(x).resize((side, side), Image.BICUBIC)) for x in coarse]
    noisy = np.stack(smooth) + rng.normal(0, 4, (count, side, side, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def jpeg(pixels, quality=75):
    """uint8 (H,W,3) as it comes out of a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


class Project:
    """A copy of the project in a folder of its own, so that no test touches the snapshots
    and results of the real one.
    """

    def __init__(self, root, server):
        self.root, self.server = root, server
        self.snapshots, self.results = root / "CIFAR" / "snapshots", root / "CIFAR" / "results"
        for file in [
            *ROOT.glob("*.py"),
            *ROOT.glob("data/*.py"),
            *ROOT.glob("data/*.json"),
            ROOT / "CIFAR/published.json",
            ROOT / "CIFAR/README.md",
        ]:
            target = root / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        for folder in ("utils", "models"):
            # the compiled kernels come along
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("*.pyc"))

    def run(self, command, cwd=None, prelude="", figure=False, **environment):
        """Run ``baseline.py digits --epochs 1`` or the like; its status, and ``plain`` out and err.
        ``prelude``: Python run before it. A training finds no matplotlib, whose figure takes as
        long as the small runs themselves, but with ``figure``.
        """
        script, *arguments = shlex.split(command) if isinstance(command, str) else map(str, command)
        if script in ("baseline.py", "tune.py") and not figure:
            prelude = NO_MATPLOTLIB + prelude
        request = {
            "script": str(self.root / script),
            "arguments": arguments,
            "cwd": str(cwd or self.root),
            "prelude": prelude,
            "environment": environment,
            "seconds": 120,
            "out": str(self.root / "out"),
            "err": str(self.root / "err"),
        }
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        status = int(self.server.stdout.readline())
        return SimpleNamespace(
            status=status,
            out=plain((self.root / "out").read_text()),
            err=plain((self.root / "err").read_text()),
        )

    def do(self, command, **keywords):
        """``run`` a command that must succeed without a word on stderr; returns what it printed.

        A fine-tuning may note a raised ID error: of so few images one is several percent, and can
        be lost to another processor's rounding.
        """
        result = self.run(command, **keywords)
        assert result.status == 0, f"{command}: {result.status}\n{result.err}"
        assert re.sub("note: fine-tuning has raised the ID error .*\n", "", result.err) == ""
        return result.out

    def refuse(self, command, *words, **keywords):
        """``run`` a command that must fail as a user's error does: status 2, one line on stderr
        that holds the words, and every file of the snapshots,
        results and data folders as it was."""
        before = self.files()
        result = self.run(command, **keywords)
        assert result.status == 2, f"{command}: {result.status}\n{result.out}\n{result.err}"
        assert len(result.err.splitlines()) == 1, result.err
        missing = [word for word in words if word.lower() not in result.err.lower()]
        assert not missing, f"{missing} not in: {result.err}"
        assert self.files() == before
        return result.err

    def files(self):
        """{path: (bytes, time of change)} of all files below CIFAR and data but for caches."""
        return {
            file: (file.read_bytes(), file.stat().st_mtime_ns)
            for folder in ("CIFAR", "data")
            for file in (self.root / folder).rglob("*")
            if file.is_file() and not {"cache", "__pycache__"} & set(file.parts)
        }

    def latest_result(self, name, ending=".json"):
        """Path of the newest result of this name; a hash follows it where images or
        draws are not the usual ones.
        """
        files = [
            file
            for file in self.results.glob(f"*{ending}")
            if re.fullmatch(
                re.escape(plain(name)) + r"(_[0-9a-f]{8})?" + re.escape(ending), plain(file.name)
            )
        ]
        return max(files, key=lambda file: file.stat().st_mtime_ns)

    def names(self, folder):
        """Sorted ``plain`` file names in a folder of snapshots."""
        files = (self.snapshots / folder).glob("*")
        return sorted(plain(file.name) for file in files if file.is_file())

    def file(self, name):
        """Path of the only file of this ``plain`` name, "pretrained/NAME_epoch_0.pt", among the
        snapshots.
        """
        folder, name = (self.snapshots / name).parent, Path(name).name
        (file,) = [file for file in folder.iterdir() if plain(file.name) == name]
        return file


@pytest.fixture(scope="session")
def fork_server():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "fork_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    yield process
    process.stdin.close()
    process.wait(timeout=30)


@pytest.fixture(scope="session")
def make_project(fork_server, tmp_path_factory):
    """Function that makes a fresh copy of the project."""
    return lambda: Project(tmp_path_factory.mktemp("project"), fork_server)


@pytest.fixture(scope="module")
def project(make_project):
    """A copy of the project for a module's tests."""
    return make_project()


def stop_at_step(signal, step):
    """Prelude that sends the script this signal at its step-th optimiser step, counted from 1."""
    return f"""
import os, signal, torch
step, count = torch.optim.SGD.step, []
def stop(self, *a):
    count.append(1)
    if len(count) == {step}: os.kill(os.getpid(), signal.{signal})
    return step(self, *a)
torch.optim.SGD.step = stop
"""


def coloured(count, classes, size, seed):
    """uint8 (N,size,size,3) noisy images whose class is their colour,
    and labels (N,) that hold every class.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    colours = np.random.default_rng(0).integers(40, 216, (classes, 1, 1, 3))
    return (colours[labels] + rng.integers(-40, 40, (count, size, size, 3))).astype(
        np.uint8
    ), labels


def noise(count, size, seed):
    """uint8 (N,size,size,3) images of independent pixels."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def write_own(folder, classes=3, train=60, test=30, size=8):
    """train.npz and test.npz of small coloured images: an --id folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", train, 1), ("test", test, 2)):
        images, labels = coloured(count, classes, size, seed)
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    return folder


def write_images(folder, images, labels=None, ending=".png"):
    """Write uint8 images as 000.png, 001.png, ... below a folder;
    with labels, in folders class_0, class_1, ...
    """
    for i, image in enumerate(images):
        place = folder if labels is None else folder / f"class_{labels[i]}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i:03d}{ending}")
    return folder


def pack(folder, archive, names=None):
    """Pack the files below a folder into a .zip, .tar, .tar.gz, ...;
    ``names`` gives another order than the sorted.
    """
    names = names or sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()
    )
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                file.write(folder / name, name)
    else:
        with tarfile.open(archive, "w:" + archive.name.partition(".tar")[2].strip(".")) as file:
            for name in names:
                file.add(folder / name, name)
    return archive


@pytest.fixture
def data(tmp_path):
    """An empty data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def options(data, **given):
    """Arguments of a training script as far as data sets read them."""
    return SimpleNamespace(
        **{
            "dataset": "mine",
            "data": str(data),
            "id": None,
            "image_size": None,
            "skip_bad": False,
            "outliers": None,
            **given,
        }
    )
