"""A process that has imported torch once and forks a process of its own
for each script a test runs.

The forked process is a user's in all that counts: its own working directory, arguments,
environment, output, exit status, and modules of the project imported anew from the script's folder.
Only the seconds that importing torch takes are saved.
"""

import gc
import json
import os
import runpy
import signal
import sys
import traceback


def become(request):
    """Turn this forked process into the script of a request;
    ``prelude`` is Python run before it.
    """
    signal.alarm(request["seconds"])
    # which a test run in the background would ignore
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    for target, name in ((1, "out"), (2, "err")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, target)
    sys.path[0] = os.path.dirname(request["script"])
    sys.path[1:1] = [p for p in request["environment"].get("PYTHONPATH", "").split(os.pathsep) if p]
    sys.argv = [request["script"], *request["arguments"]]
    status = 0
    try:
        exec(request["prelude"], {})
        runpy.run_path(request["script"], run_name="__main__")
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # tearing down torch's modules takes a second


def serve():
    import matplotlib.figure  # noqa: F401
    import PIL.Image  # noqa: F401
    import scipy.io
    import scipy.ndimage
    import scipy.spatial.distance  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch._dynamo  # noqa: F401  (the first optimiser imports it)
    import tqdm  # noqa: F401

    gc.collect()
    gc.freeze()  # or the first collection of each forked process copies all memory
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)


if __name__ == "__main__":
    serve()
