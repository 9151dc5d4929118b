"""A process that is killed while it writes a checkpoint leaves the old file or the new one, whole.

Run as a script, `python test_killed_while_saving.py FOLDER` does it 200 times and prints what was found.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import cydrop as cd
from cydrop._run.core import core_of

KILLS = 200


def filled(net, number):
    """The network with every number that training changes set to one."""
    for tensor in core_of(net).model.tensors().values():
        tensor[...] = number


def number_in(path):
    """The number of the network in a file; fails unless all of it is there, from one saving."""
    net = cd.load(path, n_threads=1)
    tensors = core_of(net).model.tensors().values()
    (number,) = {float(value) for tensor in tensors for value in (tensor.min(), tensor.max())}
    assert core_of(net).epochs == number
    assert net.predict(np.zeros((2, 256))).shape == (2, 8)
    return number


def killed_savings(folder):
    """Forks children that save a network of their own number, and kills each at a random moment."""
    path = os.path.join(folder, "net.safetensors")
    net = cd.Network([cd.Dense(512), cd.ReLU(), cd.Dropout(0.5), cd.Dense(256), cd.Dense(8)], n_threads=1).build(256)
    checkpoint = cd.callbacks.Checkpoint(path)
    filled(net, 0)
    start = time.perf_counter()
    checkpoint.on_epoch_end(net, 1, {})
    span = 2.0 * (time.perf_counter() - start)
    rng = random.Random(0)
    counts = {"old": 0, "new": 0, "left behind": 0}
    present = 0
    for number in range(1, KILLS + 1):
        filled(net, number)
        core_of(net).epochs = number
        ready, begin = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(begin, b"!")
                checkpoint.on_epoch_end(net, number, {})
                time.sleep(60)
            finally:
                os._exit(1)
        os.read(ready, 1)
        os.close(ready)
        os.close(begin)
        time.sleep(rng.uniform(0.0, span))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        found = number_in(path)
        assert found in (present, number), f"kill {number}: the file holds {found}, expected {present} or {number}"
        counts["new" if found == number else "old"] += 1
        present = found
        span *= 0.95 if found == number else 1.05  # how long writing takes depends on who else uses the disk
        for name in set(os.listdir(folder)) - {"net.safetensors"}:
            assert name.startswith(".net.safetensors.")
            assert name.endswith(".tmp")
            os.unlink(os.path.join(folder, name))
            counts["left behind"] += 1
    return counts | {"bytes": os.path.getsize(path)}


@pytest.mark.skipif(os.name != "posix", reason="Windows has neither fork nor SIGKILL")
def test_two_hundred_kills_while_saving_leave_the_old_file_or_the_new_one(tmp_path):
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert counts["old"] + counts["new"] == KILLS
    assert counts["bytes"] > 3_000_000
    assert counts["left behind"] >= KILLS // 5, f"too few kills hit the writing: {counts}"
    assert counts["old"] >= KILLS // 10, f"too few kills came before the renaming: {counts}"
    assert counts["new"] >= KILLS // 10, f"too few kills came after the renaming: {counts}"


if __name__ == "__main__":
    print(json.dumps(killed_savings(sys.argv[1])))
