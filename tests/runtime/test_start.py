"""While a script imports its libraries: Ctrl-C, and which it imports."""

import signal
import subprocess
import sys
import time

import pytest

from utils.runtime import ROOT


@pytest.mark.parametrize("script", ["baseline.py", "tune.py", "test.py", "reproduce.py"])
def test_it_is_one_line(script, tmp_path):
    """The import of torch stops at a module of its name that waits."""
    (tmp_path / "torch.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_suffix('.on').touch()\ntime.sleep(60)\n"
    )
    # a shell has commands in the background ignore Ctrl-C, and what they start
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = [{script!r}]; "
    program += f"import runpy; runpy.run_path({str(ROOT / script)!r}, run_name='__main__')"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    for _ in range(1000):
        if (tmp_path / "torch.on").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=50)
    assert told == f"\n{script}: interrupted before it began\n"
    assert process.returncode in (-signal.SIGINT, 130)


def test_what_only_some_runs_need_is_not_imported_by_all():
    """scikit-learn, matplotlib and torchvision take seconds."""
    program = "import sys, baseline, tune, test; slow = {'sklearn', 'scipy.stats', "
    program += (
        "'scipy.ndimage', 'matplotlib', 'torchvision'}; print(sorted(slow & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert found.stdout == "[]\n"
