"""Which precision and batch a device gets."""
from pathlib import Path

import pytest
import torch

from utils import features, runtime

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))
# vendor and flags as Linux gives them, and what "auto" takes there
CPUS = {"Zen 4": ("AuthenticAMD", "avx512f avx512_bf16 avx512_vnni", "bf16"), "Ice Lake": ("GenuineIntel", "avx512f avx512_vnni", "fp32"),
        "Sapphire Rapids": ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile", "bf16"),
        "Emerald Rapids without AMX": ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16", "fp32"), "Zen 3": ("AuthenticAMD", "avx2", "fp32")}


@pytest.mark.parametrize("name", CPUS)
def test_auto_takes_bf16_where_the_cpu_is_faster_at_it(name, monkeypatch):
    vendor, flags, expected = CPUS[name]
    monkeypatch.setattr(Path, "read_text", lambda path: f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n")
    assert runtime.pick_precision("auto", CPU) == expected
    assert runtime.pick_precision("fp32", CPU) == "fp32"
    assert runtime.pick_precision("bf16", CPU) == "bf16"


def test_auto_takes_fp32_where_the_cpu_says_nothing_of_itself(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)
    monkeypatch.setattr(Path, "read_text", missing)
    assert runtime.pick_precision("auto", CPU) == runtime.pick_precision("auto", MPS) == "fp32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_takes_bf16_on_cuda_from_sm_80(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert runtime.pick_precision("auto", CUDA) == expected


def test_a_large_batch_goes_through_a_cpu_in_parts(tmp_path):
    assert [runtime.inference_batch(size, CPU) for size in (1, 200, 1000)] == [1, 100, 100]
    assert runtime.inference_batch(1000, CUDA) == 1000
    network = features.Network(torch.nn.Linear(1, 1), "a" * 64, CPU, "fp32", batch_size=1000, cache=tmp_path)
    assert network.batch_size == 100
