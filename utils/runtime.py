"""Device, precision, seeds, safe files and the errors a user sees: every ``if device`` of the project lives here."""
import contextlib
import copy
import errno
import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from models import fused

ROOT = Path(__file__).resolve().parent.parent
CIFAR = ROOT / "CIFAR"
DATA = ROOT / "data"
CPU_BATCH = 100


class UserError(Exception):
    """What went wrong, where it looked, what there is, and the next command: printed as one line, exit status 2."""


def run(main):
    """Call ``main()`` for a script and return its exit status: 0, 2 after a user's error, 130 after Ctrl-C.

    A worker of the standard library or torch reports a full disk in its own words; they become one line too.
    """
    program = Path(sys.argv[0]).name
    sys.path.append(os.getcwd())   # where a user's own network lies (--arch module:function) when the script is run from elsewhere
    try:
        return main() or 0
    except UserError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(f"{program}: out of memory ({str(error).partition(chr(10))[0][:200] or 'too large an array'}). Try fewer or smaller images at once: "
              f"--batch_size, --oe_batch_size, --test_bs, --image-size", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):   # the reader (head, less) has gone
            sys.stderr.close()
            return 1
        print(f"{program}: {error.strerror or error}: {error.filename or 'while writing'}; "
              f"nothing already on disk was changed", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"\n{program}: interrupted. {interrupt}", file=sys.stderr)
        return 130


def out_of_memory(error):
    """Whether an exception says that memory of the host or the device was not enough: torch has a class for the device's alone."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error) or "out of memory" in str(error)


def run_script(command):
    """Print and run a script of the project, [script, word, ...]; SystemExit with its status if it fails, its error being on stderr."""
    script, *words = map(str, command)
    print(f"\n$ python {' '.join([script, *words])}", flush=True)
    process = subprocess.Popen([sys.executable, "-u", str(ROOT / script), *words])
    try:
        status = process.wait()
    except KeyboardInterrupt:      # Ctrl-C reached the script too, which says how to go on
        process.wait()
        raise KeyboardInterrupt("The same command goes on with what is there") from None
    if status:
        raise SystemExit(status)


def pick_device(name="auto", ngpu=1):
    """torch.device for auto | cpu | cuda | mps; auto takes the first accelerator there is. ngpu 0 forces the CPU."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((n for n in ("cuda", "mps") if there[n]), "cpu") if ngpu else "cpu"
    if not there[name]:
        raise UserError(f"device '{name}' is not available here. There is: {', '.join(n for n in there if there[n])}")
    if ngpu > 1:
        print(f"note: --ngpu {ngpu}: one device is used", file=sys.stderr)
    return torch.device(name)


def cpu_has_bf16():
    """Whether the CPU multiplies bfloat16 faster than float32: with AMX, or with AVX-512 BF16 at full rate.

    Intel's cores carry out an AVX-512 BF16 instruction at half the rate of AMD's: where AMX is missing (it is often hidden
    from a virtual machine), bfloat16 convolutions reach 0.6 times the speed of float32 ones. Emulation is slower still.
    """
    with contextlib.suppress(OSError):
        words = set(Path("/proc/cpuinfo").read_text().split())
        return "amx_bf16" in words or ("avx512_bf16" in words and "GenuineIntel" not in words)
    return False


def pick_precision(name, device):
    """"bf16" or "fp32" for auto | fp32 | bf16: auto takes bfloat16 autocast only where the hardware is faster at it."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def inference_batch(size, device):
    """Images of one forward pass where ``size`` were asked for: on a CPU no more than stay in its cache from layer to layer."""
    return min(size, CPU_BATCH) if device.type == "cpu" else size


def autocast(device, precision):
    """Context in which convolutions run in bfloat16 when precision is "bf16", and nothing changes otherwise."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def prepare(model, device):
    """The model on the device with channels_last weights, the layout convolutions are fastest in on CPU and GPU.

    On CUDA float32 convolutions are float32 ones from here on, not TF32, whose 10 bits of mantissa would make ties.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return model.to(device, memory_format=torch.channels_last)


def prepare_training(model, device, compile="auto"):
    """``prepare`` for training, with the fused operators on a CPU unless compile is "off"."""
    fused.enabled = compile != "off"
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True    # thousands of batches of one shape pay for the search
    return prepare(model, device)


def compile_training(model, batch, precision):
    """torch.compile of the model in place, so that parameters keep their names; left as it was where that fails.

    One pass each way over ``batch`` (B,3,H,W) compiles it here and not in the first step; it leaves no trace in the model.
    For a GPU: on a CPU the fused operators are faster.
    """
    before = copy.deepcopy(model.state_dict())
    model.compile(dynamic=False)
    try:
        with autocast(batch.device, precision):
            logits, _ = model(batch)
        logits.sum().backward()
    except Exception:   # no compiler, an operator it does not know: eager is as right
        model._compiled_call_impl = None
    model.load_state_dict(before)
    model.zero_grad(set_to_none=True)


def describe_computing(device, precision, compile="auto"):
    """What the digits of a training run depend on beside its recipe: device, precision and whether the fused kernels are used."""
    return {"device": device.type, "precision": precision, "fused": device.type == "cpu" and compile != "off" and fused.kernels() is not None}


def to_device(tensor, device):
    """A CPU tensor's copy on the device, which the host does not wait for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def compile_inference(model, example):
    """The model compiled for batches of exactly this shape, or the model itself where that cannot be had.

    Weights are frozen into the code: in float32 BatchNorm is folded into the convolution before it, which does ReLU and
    residual sum as well. Under bf16 autocast it is one float32 operation with the ReLU after it instead: as a convolution's
    bias it would be rounded to bf16, the same error for every image.
    Needs a C++ compiler on a CPU; whatever fails, fails here, on the first batch.
    """
    logging.getLogger("torch").setLevel(logging.ERROR)
    torch.compiler.reset()    # code with other weights frozen into it, of a network of the same class, is never taken for this one's
    try:
        from torch._inductor import config    # half the compiler: only who compiles imports it
        frozen = copy.deepcopy(model)
        for module in frozen.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.register_forward_pre_hook(lambda module, inputs: inputs[0].float())
        compiled = torch.compile(frozen, dynamic=False)
        # not as torch.compile(options=...), which is read after tracing has made inputs of the weights: nothing is frozen then
        with config.patch(freezing=True), torch.inference_mode():
            compiled(example)
        return compiled
    except Exception:   # no compiler, an operator it does not know, a network it cannot trace: eager is as right
        torch.compiler.reset()
        return model


def derive_seed(*parts):
    """A seed below 2**48 that is a function of the parts alone: derive_seed(1, "outliers", 3)."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:6], "big")


def data_generator(*parts):
    """CPU generator for the order and augmentation of images."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_epoch(seed, epoch):
    """Seed every generator as a function of (seed, epoch) alone and return a generator for the data order.

    A run that goes on at epoch e therefore draws exactly what an uninterrupted one draws in epoch e.
    """
    value = derive_seed(seed, epoch)
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    return data_generator(seed, epoch)


def write_bytes(path, data):
    """Write a file under a temporary name in the same folder, then rename it: the old file lives until the new is whole."""
    write_files({path: data})


def write_files(contents):
    """Write files that belong together, {path: bytes}: none is renamed to its own name before all are whole on disk."""
    temporaries = {}
    try:
        for path, data in contents.items():
            path = Path(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporaries[path] = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporaries[path], 0o644)
        for path in list(temporaries):
            os.replace(temporaries[path], path)
            del temporaries[path]
    except BaseException as error:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(f"the disk is full: {path} was not written; the file that was there before is unharmed. "
                            f"Free some space, then run the same command again (a training that had begun: with --resume)") from None
        raise


def make_folder(path):
    """The folder, made where it is missing; UserError when it cannot be."""
    path = Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {path} cannot be made: {error.strerror}. Choose another: --save DIR") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"folder {path} cannot be written to. Choose another: --save DIR")
    return path


def short_path(path):
    """The path as seen from the project, where it lies in it."""
    path = Path(path).resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def portable(value):
    """A value for a result file: a path inside the project as seen from there, anything else as it is."""
    inside = isinstance(value, str) and os.path.isabs(value) and Path(value).resolve().is_relative_to(ROOT)
    return str(short_path(value)) if inside else value


def write_text(path, text):
    """``write_bytes`` of a text in UTF-8."""
    write_bytes(path, text.encode())


def json_bytes(record):
    """A record as indented JSON."""
    return (json.dumps(record, indent=1) + "\n").encode()


def write_json(path, record):
    write_bytes(path, json_bytes(record))


def sha256_file(path):
    """sha256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def describe_machine(device):
    """Versions, device and code commit: what a result file says of the machine that made it."""
    def git(*words):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True,
                                  timeout=10, check=True).stdout.strip()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
            "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "device": device.type, "device_name": name, "threads": torch.get_num_threads(), "cpu_features": cpu_features()}


def cpu_features():
    """Those instruction sets of the CPU that decide how it computes, in its own words."""
    with contextlib.suppress(OSError):
        return sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16"} & set(Path("/proc/cpuinfo").read_text().split()))
    return []


def cpu_name():
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
