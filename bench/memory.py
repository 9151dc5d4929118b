"""Peak memory of training 784-4096-4096-10 against what it needs at least.

    python bench/memory.py [--rows N] [--batch N] [--no-file]

Needed: parameters x (weights + the optimizer's two moments), the activations and gradients of one batch, and the data.
The peak is that of this process's resident memory (VmHWM), less what it had before the network was made. The weights of
the last epoch, to which DivergedError goes back, are in a temporary file if rows are many and there is a disk for it
(src/cydrop/_run/beginning.py); else, or with --no-file, they are one more copy in memory.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

SIZES = [784, 4096, 4096, 10]


def resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=10_240)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--no-file", action="store_true", help="keep the last epoch's weights in memory")
    arguments = parser.parse_args()
    if arguments.no_file:
        tempfile.tempdir = "/there is no such folder"
    import cydrop as cd

    layers = [layer for units in SIZES[1:-1] for layer in (cd.Dense(units), cd.ReLU(), cd.Dropout(0.5))]
    cd.Network([cd.Dense(4), cd.Dense(2)], seed=0).fit(np.zeros((4, 2), "f4"), [0, 1, 0, 1], epochs=1, verbose=0)
    before = resident("VmRSS")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((arguments.rows, SIZES[0]), dtype=np.float32)
    y = rng.integers(0, SIZES[-1], arguments.rows)
    network = cd.Network([*layers, cd.Dense(SIZES[-1])], seed=0)
    network.fit(X, y, epochs=2, batch_size=arguments.batch, verbose=0)
    peak = resident("VmHWM") - before

    parameters = sum(array.size for array in network.parameters().values())
    activations = arguments.batch * (sum(SIZES) + 2 * max(SIZES))
    needed = 4 * (3 * parameters + activations) + X.nbytes + y.nbytes
    print(f"parameters {parameters:,}; weights and moments {12 * parameters / 1e6:.1f} MB, activations and gradients "
          f"{4 * activations / 1e6:.1f} MB, data {(X.nbytes + y.nbytes) / 1e6:.1f} MB")  # fmt: skip
    print(f"needed {needed / 1e6:.1f} MB, peak {peak / 1e6:.1f} MB: {peak / needed:.3f} x; "
          f"a copy of the weights in memory is {4 * parameters / needed:.3f} x")  # fmt: skip


if __name__ == "__main__":
    main()
