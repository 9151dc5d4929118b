"""What batches in shards cost: training steps with `parallel=DataParallel(shards=8)` against ordinary ones, in turns.

    python bench/shards.py [--threads N ...] [--shards N] [--repeats N] [--only NAME ...]

ReLU networks with dropout 0.5 and Adam. A line is a network, its batch size and the threads; the medians of both, in
milliseconds a step; the median of the turns' ratios; and the ratio of processor time of all threads, which other work
on the machine disturbs less.
"""

import argparse
import time
from statistics import median

import numpy as np
from measuring import Call, take_turns

import cydrop as cd

STEPS = 4  # in an epoch
CASES = {  # units, and rows of a batch
    "M": ((784, 512, 512, 10), 512),
    "L": ((784, 1024, 1024, 1024, 10), 512),
    "XL": ((784, 4096, 4096, 10), 256),
}


def epoch(units: tuple[int, ...], rows: int, n_threads: int, shards: int) -> Call:
    """Trains an epoch of STEPS steps."""
    rng = np.random.default_rng(0)
    X, y = rng.random((STEPS * rows, units[0]), dtype=np.float32), rng.integers(0, units[-1], STEPS * rows)
    hidden = [layer for width in units[1:-1] for layer in (cd.Dense(width, activation="relu"), cd.Dropout(0.5))]
    net = cd.Network([*hidden, cd.Dense(units[-1])], seed=0, n_threads=n_threads)
    parallel = cd.distributed.DataParallel(shards=shards) if shards else None
    return lambda: net.fit(X, y, epochs=1, batch_size=rows, shuffle=False, verbose=0, parallel=parallel)


class Counted:
    """A call, and the processor time that it took so far."""

    def __init__(self, call: Call) -> None:
        self.call, self.seconds = call, 0.0

    def __call__(self) -> None:
        start = time.process_time()
        self.call()
        self.seconds += time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of batches in shards.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, cd.show_config()["n_threads"]], metavar="N")
    parser.add_argument("--shards", type=int, default=8, metavar="N")
    parser.add_argument("--repeats", type=int, default=41, metavar="N")
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=list(CASES), metavar="NAME")
    given = parser.parse_args()
    for name in given.only:
        units, rows = CASES[name]
        for n_threads in sorted(set(given.threads)):
            calls = {shards: Counted(epoch(units, rows, n_threads, shards)) for shards in (0, given.shards)}
            times = take_turns({str(shards): call for shards, call in calls.items()}, given.repeats, longest=60.0)
            ordinary, sharded = times.values()
            ratio = median(b / a for a, b in zip(ordinary, sharded, strict=True))
            of_processors = calls[given.shards].seconds / calls[0].seconds
            a_step = [1e3 * median(found) / STEPS for found in (ordinary, sharded)]
            print(
                f"{name:<3} {'-'.join(map(str, units)):<24} batch {rows:<4} {n_threads} threads: {a_step[0]:8.2f} ms, "
                f"in {given.shards} shards {a_step[1]:8.2f} ms: {ratio:.3f} of the time, "
                f"{of_processors:.3f} of the processors'", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
