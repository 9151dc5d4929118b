"""Trainings that are always the same, and the hash of what they end in."""

import functools
import hashlib
import os
import subprocess
import sys

import numpy as np

import cydrop as cd

HE = {"weight_init": "he_normal", "bias_init": "zeros"}  # the golden hashes are of networks that begin so


@functools.cache
def fused(simd):
    """Whether the kernels of an instruction set have the fused multiply-add. There are two kinds of bits."""
    script = "from cydrop._core.engine import target; print(target()[1])"
    environment = {**os.environ, "CYDROP_SIMD": simd}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return {"True": True, "False": False}[done.stdout.strip()]


def bytes_of(array):
    """An array's bytes, whatever order the machine keeps them in."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def digest(net):
    """SHA-256 of all parameters."""
    total = hashlib.sha256()
    for name, array in net.parameters().items():
        total.update(name.encode() + bytes_of(array))
    return total.hexdigest()


def trained(n_threads, activation="relu", optimizer="adam", rate=0.3, sizes=(300, 200)):
    rng = np.random.default_rng(0)
    X = rng.random((700, 90), dtype=np.float32)
    y = rng.integers(0, 10, 700)
    layers = [cd.Dropout(0.2)]
    for size in sizes:
        layers += [cd.Dense(size, activation=activation, **HE), cd.Dropout(rate)]
    net = cd.Network([*layers, cd.Dense(10, **HE)], optimizer=optimizer, seed=11, n_threads=n_threads)
    net.fit(X, y, epochs=3, batch_size=128, verbose=0)
    return net, X
