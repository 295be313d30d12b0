"""Device, seeds, disk and exit status: what every other room stands on."""

from utils.output import Printed, print_note, printable

from . import ranks
from .cache import Cache, only_read
from .device import (
    autocast,
    compile_inference,
    compile_openvino,
    inference_batch,
    pick_device,
    pick_precision,
    prepare,
    to_device,
    use_deterministic,
)
from .errors import UserError, run
from .files import (
    CIFAR,
    DATA,
    ROOT,
    cpu_features,
    describe_machine,
    json_bytes,
    locked,
    make_folder,
    portable,
    remove_left,
    sha256_file,
    short_path,
    text_bytes,
    write_bytes,
    write_files,
    write_json,
    write_text,
)
from .memory import keep_freed_memory, peak_memory, whole_memory
from .regular import check_regular, open_regular, read_json, read_regular_text
from .seeds import STREAMS, Streams, data_generator, derive_seed, seed_all
