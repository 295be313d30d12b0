"""Where the project lies, and safe files: written under a temporary name, then renamed."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import subprocess
import tempfile
import time
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch

from . import ranks
from .errors import UserError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

ROOT = Path(__file__).resolve().parents[2]


CIFAR = ROOT / "CIFAR"


DATA = ROOT / "data"


# what temporary files are called by, as folders may be shared by machines
MACHINE = f"{zlib.crc32(platform.node().encode(errors='surrogateescape')):08x}"
TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})_(\d+)_\w{8}", re.DOTALL)
DAY = 86400  # seconds without a change after which a temporary file is nobody's any more


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """One process at a time is inside, of those that name this folder; a kill lets the next one in.
    Without POSIX locks all are.
    """
    handle = None
    try:
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file under a temporary name in the same folder, then rename it:
    the old file lives until the new is whole.
    """
    write_files({path: data})


def write_files(contents: dict) -> None:
    """Write files that belong together, {path: bytes, or a function that writes into a file}:
    none is renamed to its own name before all are whole on disk. Of several ranks the first one
    writes.
    """
    if ranks.rank():
        return
    temporaries, replaced = {}, []
    try:
        for path, data in contents.items():
            path = Path(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            begun = [os.path.basename(file) for file in temporaries.values()]
            remove_left(path.parent, begun)  # the disk's clock may be years apart
            handle, temporaries[path] = tempfile.mkstemp(
                dir=path.parent, prefix=f".{path.name}.{MACHINE}_{os.getpid()}_"
            )
            with os.fdopen(handle, "wb") as file:
                data(file) if callable(data) else file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporaries[path], 0o644)
        for path in list(temporaries):
            os.replace(temporaries[path], path)
            del temporaries[path]
            replaced.append(path.name)
    except BaseException as error:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(
                f"the disk is full: {path} was not written"
                + (f", {', '.join(replaced)} was; " if replaced else "; ")
                + "a file of that name that was there before is unharmed. Free some space, "
                "then run the same command again (a training that had begun: with --resume)"
            ) from None
        raise


def remove_left(folder: str | Path, keep: Collection[str] = ()) -> None:
    """Remove what killed processes left in a folder of files that they wrote there, none of the
    names ``keep``.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            made = TEMPORARY.fullmatch(entry.name)
            with contextlib.suppress(OSError):  # another process may be faster
                if made and entry.name not in keep and is_left(entry, *made.groups()):
                    os.unlink(entry.path)


def is_left(entry: os.DirEntry, machine: str, process: str) -> bool:
    """Whether nobody writes a temporary file any more: its process, of this machine, has gone; one
    of another machine, or whose number has been given anew, has not been changed for a day.
    """
    if not entry.is_file(follow_symlinks=False):
        return False
    if machine == MACHINE and is_gone(process):
        return True
    return entry.stat(follow_symlinks=False).st_mtime < time.time() - DAY


def is_gone(process: str) -> bool:
    """Whether no process of that number is running on this machine."""
    if os.name != "posix":  # elsewhere the question itself may end it
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def make_folder(path: str | Path) -> Path:
    """The folder, made where it is missing; UserError when it cannot be."""
    path = Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"folder {path} cannot be made: {error.strerror}. Choose another: --save DIR"
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"folder {path} cannot be written to. Choose another: --save DIR")
    return path


def short_path(path: str | Path) -> Path:
    """The path as seen from the project, where it lies in it."""
    path = Path(path).resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def portable(value: object) -> object:
    """A value for a result file: a path inside the project as seen from there,
    anything else as it is.
    """
    inside = (
        isinstance(value, str)
        and os.path.isabs(value)
        and Path(value).resolve().is_relative_to(ROOT)
    )
    return str(short_path(value)) if inside else value


def write_text(path: str | Path, text: str) -> None:
    """``write_bytes`` of a text."""
    write_bytes(path, text_bytes(text))


def text_bytes(text: str) -> bytes:
    """A text in UTF-8; bytes of a file's name that are no UTF-8 become escapes."""
    return text.encode(errors="backslashreplace")


def json_bytes(record: dict) -> bytes:
    """A record as indented JSON."""
    return (json.dumps(record, indent=1) + "\n").encode()


def write_json(path: str | Path, record: dict) -> None:
    write_bytes(path, json_bytes(record))


def sha256_file(path: str | Path) -> str:
    """sha256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def describe_machine(device: torch.device) -> dict:
    """Versions, device and code commit: what a result file says of the machine that made it."""

    def git(*words):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(
                ["git", "-C", str(ROOT), *words],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "commit": git("rev-parse", "HEAD"),
        "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "cpu_features": cpu_features(),
    }


def cpu_features() -> list[str]:
    """Those instruction sets of the CPU that decide how it computes, in its own words."""
    with contextlib.suppress(OSError):
        return sorted(
            {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16"}
            & set(Path("/proc/cpuinfo").read_text().split())
        )
    return []


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
