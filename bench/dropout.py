"""What kinds of dropout cost: masks shared by a batch, Monte Carlo prediction (also in PyTorch), and large arrays.

    python bench/dropout.py [--turns N] [--only shared|mc|copy]

shared   a training step with Dropout(0.5, shared="batch"), whose dropped units are not computed, against ordinary
         dropout: 784-1024-1024-1024-10 with 128 rows and 784-4096-4096-10 with 256, for three optimizers. The last
         column is the part of the multiply-adds that is left.
mc       100 Monte Carlo samples of 10,000 rows through 784-512-512-10 against 100 plain predictions, with dropout
         after each hidden layer, and with input dropout as well; the same loop in PyTorch, where it is installed.
copy     dropout on arrays from one place to another, against numpy.copyto of the same arrays; "and read" with a pass
         over the result, which is not in the caches where it was written past them.

Medians of alternating turns; all on the threads that the machine grants.
"""

import argparse
import itertools
import math
import statistics
import time
from functools import partial
from itertools import pairwise

import numpy as np
from measuring import seconds, take_turns

import cydrop as cd
from cydrop import functional


def layers(hidden, rate=0.5, shared=None, first=None):
    stack = [] if first is None else [cd.Dropout(first)]
    for units in hidden:
        stack += [cd.Dense(units), cd.ReLU(), cd.Dropout(rate, shared=shared)]
    return [*stack, cd.Dense(10)]


def medians(calls, turns):
    """Seconds of each call."""
    return [statistics.median(taken) for taken in take_turns(dict(enumerate(calls)), turns, math.inf).values()]


def shared_masks(turns):
    print('\na training step with shared="batch" at rate .5, against ordinary dropout')
    print(f"{'network':<28}{'optimizer':<16}{'ordinary, us':>14}{'shared, us':>12}{'times':>8}{'arithmetic left':>17}")
    for hidden, rows, steps in (((1024, 1024, 1024), 128, 24), ((4096, 4096), 256, 4)):
        rng = np.random.default_rng(0)
        X, y = rng.random((rows * steps, 784), dtype=np.float32), rng.integers(0, 10, rows * steps)
        sizes = [784, *hidden, 10]
        kept = [1.0, *([0.5] * len(hidden)), 1.0]
        few = [size * share for size, share in zip(sizes, kept, strict=True)]
        left = sum(a * b for a, b in pairwise(few)) / sum(a * b for a, b in pairwise(sizes))
        for name, optimizer in (
            ("Adam", cd.Adam(1e-3)),
            ("SGD, momentum", cd.SGD(0.01, momentum=0.9)),
            ("SGD", cd.SGD(0.01)),
        ):
            calls = []
            for shared in (None, "batch"):
                net = cd.Network(layers(hidden, shared=shared), optimizer=optimizer, seed=0)
                calls.append(partial(net.partial_fit, X, y, batch_size=rows))
            ordinary, faster = (1e6 * s / steps for s in medians(calls, turns))
            label = "-".join(map(str, sizes)) + f", {rows}"
            times = ordinary / faster
            print(f"{label:<28}{name:<16}{ordinary:>14,.0f}{faster:>12,.0f}{times:>8.2f}{left:>17.0%}", flush=True)


def torch_loop(X, first):
    """100 stochastic predictions in PyTorch, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    stack = [] if first is None else [torch.nn.Dropout(first)]
    for n_in, n_out in ((784, 512), (512, 512)):
        stack += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU(), torch.nn.Dropout(0.5)]
    model = torch.nn.Sequential(*stack, torch.nn.Linear(512, 10)).train()
    tensor = torch.from_numpy(X)

    def run():
        with torch.no_grad():
            samples = torch.stack([torch.softmax(model(tensor), dim=1) for _ in range(100)])
            samples.mean(dim=0), samples.std(dim=0)

    return run


def monte_carlo(turns):
    print("\n100 samples of 10,000 rows, 784-512-512-10, dropout .5 after each hidden layer")
    print(f"{'':<26}{'predict_mc, s':>15}{'100 predict, s':>16}{'ratio':>8}{'PyTorch, s':>13}{'times':>8}")
    X = np.random.default_rng(0).random((10_000, 784), dtype=np.float32)
    for label, first in (("hidden layers", None), ("and .2 of the input", 0.2)):
        net = cd.Network(layers((512, 512), first=first), seed=0).build(784)

        def plain(net=net):
            for _ in range(100):
                net.predict(X)

        mc, predictions = medians([lambda net=net: net.predict_mc(X, 100, seed=0), plain], turns)
        line = f"{label:<26}{mc:>15.2f}{predictions:>16.2f}{mc / predictions:>8.2f}"
        peer = torch_loop(X, first)
        if peer is not None:
            peer()
            taken = seconds(peer)
            time.sleep(0.15)  # its threads spin for a while
            line += f"{taken:>13.2f}{taken / mc:>8.1f}"
        print(line, flush=True)


def copies(turns):
    print("\ndropout from one array to another, in times of numpy.copyto, which takes")
    titles = {"copyto, ms": 11, "rate .3": 9, "rate .5": 9, "backward": 10, ".3 and read": 13, "copy and read": 15}
    print(" " * 20 + "".join(f"{title:>{width}}" for title, width in titles.items()))
    rng = np.random.default_rng(0)
    for exponent, n_threads in itertools.product((20, 21, 22, 23, 24, 26), (1, 2)):
        x = rng.standard_normal(2**exponent, dtype=np.float32)
        keep, out, other = rng.random(len(x)) < 0.7, np.zeros_like(x), np.zeros_like(x)
        given = {"out": out, "n_threads": n_threads}
        drop = partial(functional.dropout, x, 0.3, seed=1, **given)
        copy = partial(np.copyto, other, x)
        calls = {
            "copy": copy,
            "rate .3": drop,
            "rate .5": partial(functional.dropout, x, 0.5, seed=1, **given),
            "backward": partial(functional.dropout_backward, x, keep, 0.3, **given),
            ".3 and read": lambda drop=drop, out=out: (drop(), out.max()),
            "copy and read": lambda copy=copy, other=other: (copy(), other.max()),
        }
        repeats = max(1, 2**24 // len(x))
        calls = {name: partial(several, call, repeats) for name, call in calls.items()}
        taken = take_turns(calls, turns, math.inf)
        line = f"{1e3 * statistics.median(taken['copy']) / repeats:>11.3f}"
        for name in list(calls)[1:]:
            ratio = statistics.median(s / c for s, c in zip(taken[name], taken["copy"], strict=True))
            line += f"{ratio:>{titles[name]}.2f}"
        label = f"2^{exponent}, {n_threads} thread{'s' if n_threads > 1 else ''}"
        print(f"{label:<20}{line}", flush=True)


def several(call, count):
    for _ in range(count):
        call()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=7, metavar="N", help="default 7")
    parser.add_argument("--only", choices=["shared", "mc", "copy"])
    arguments = parser.parse_args()
    config = cd.show_config()
    print(f"cydrop {config['cydrop']}, {config['simd']}, {config['n_threads']} threads")
    if arguments.only in (None, "shared"):
        shared_masks(arguments.turns)
    if arguments.only in (None, "mc"):
        monte_carlo(max(3, arguments.turns // 2))
    if arguments.only in (None, "copy"):
        copies(arguments.turns)


if __name__ == "__main__":
    main()
