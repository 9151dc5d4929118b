"""Does dropout help on handwritten digits? The same network with and without it, over several seeds.

    python digits.py                      # five seeds of each: under a minute on two cores
    python digits.py --seeds 10 --plot curves.png
    python digits.py --choose             # how the settings below were chosen; takes some minutes

The data ship with cydrop: 3,823 images of 8 x 8 pixels by 30 writers to train on, and 1,797 by 13 other
writers to test.

How the settings were chosen: never by the test set. The test asks about strangers, so validation has to do
so too. The training rows go through the 30 writers three times (1,934, 946 and 943 rows: the training,
validation and writer-dependent test sets of the data's authors), so the last rows are no strangers: their
writers are in the first rows as well. Here a fold is a fifth of the writers, that is a fifth of each of the
three runs (nearly), and every setting is trained five times on four fifths of the writers and judged by its
errors on the rest, all 3,823 images in sum. `--choose` does this for the grid of widths, learning rates and
numbers of epochs below, without dropout and with three pairs of rates, and takes the setting with the
fewest errors for each side (at a tie the lower cross-entropy). So the network without dropout has its own
best layers, learning rate and epochs; with dropout there are three times as many settings to choose from,
since there are rates to choose. The grid itself was narrowed by about a hundred earlier trials on the
training rows, again more of them with dropout than without.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

import cydrop as cd


@dataclass(frozen=True)
class Setting:
    """What is chosen by validation."""

    widths: tuple[int, ...]
    learning_rate: float
    epochs: int
    input_rate: float = 0.0
    hidden_rate: float = 0.0

    def __str__(self) -> str:
        shape = "-".join(map(str, (64, *self.widths, 10)))
        drop = f"{self.input_rate:g}/{self.hidden_rate:g}" if self.input_rate or self.hidden_rate else "none"
        return f"{shape:<14}  dropout {drop:<7}  rate {self.learning_rate:<6g}  {self.epochs:>3} epochs"


# The winners of `--choose`
BEGIN = {"weight_init": "he_normal", "bias_init": "zeros"}  # He et al. (2015); the settings were chosen with it
WITHOUT = Setting((512, 512), 1e-2, 120)
WITH = Setting((512, 512), 3e-3, 120, 0.0, 0.5)

WIDTHS = (1024,), (512, 512)
LEARNING_RATES = 1e-3, 3e-3, 1e-2
EPOCHS = 60, 120
RATES = (0.0, 0.5), (0.1, 0.5), (0.2, 0.5)  # input, hidden


def make_network(setting: Setting, seed: int) -> cd.Network:
    """Dropout on the pixels and after every hidden layer; the learning rate falls from halfway on."""
    layers: list = [cd.Dropout(setting.input_rate)]
    for units in setting.widths:
        layers += [cd.Dense(units, **BEGIN), cd.ReLU(), cd.Dropout(setting.hidden_rate)]
    schedule = cd.schedules.FlatCos(setting.learning_rate)
    return cd.Network([*layers, cd.Dense(10, **BEGIN)], optimizer=cd.Adam(schedule), seed=seed)


# The comparison ---------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One training: errors in %, the test error of every epoch, and what the test images were taken for."""

    test_error: float
    test_loss: float
    train_error: float
    seconds: float
    curve: np.ndarray
    predicted: np.ndarray


def train(setting: Setting, seed: int) -> Run:
    """The test set is only watched here, for the curves: nothing depends on it."""
    X, y, X_test, y_test = cd.datasets.load_optdigits()
    net = make_network(setting, seed)
    start = time.perf_counter()
    history = net.fit(X, y, epochs=setting.epochs, validation_data=(X_test, y_test), verbose=0)
    seconds = time.perf_counter() - start
    predicted = net.predict(X_test).argmax(axis=1)
    return Run(
        test_error=100 * float(np.mean(predicted != y_test)),
        test_loss=history.metrics["val_loss"][-1],
        train_error=100 * (1 - net.evaluate(X, y)["accuracy"]),
        seconds=seconds,
        curve=100 * (1 - np.array(history.metrics["val_accuracy"])),
        predicted=predicted,
    )


def print_table(runs: dict[str, list[Run]]) -> None:
    """Mean and standard deviation over the seeds."""
    columns = f"{'test error %':>14}  {'cross-entropy':>13}  {'training error %':>16}  {'seconds':>7}"
    print(f"\n{'network':<16}  {columns}")
    for name, of_name in runs.items():
        errors = [run.test_error for run in of_name]
        spread = f"{np.std(errors, ddof=1):.2f}" if len(errors) > 1 else "-"
        means = np.mean([(run.test_loss, run.train_error, run.seconds) for run in of_name], axis=0)
        rest = f"{means[0]:>13.3f}  {means[1]:>16.2f}  {means[2]:>7.1f}"
        print(f"{name:<16}  {np.mean(errors):>7.2f} ± {spread:<4}  {rest}")
    print("(± is the standard deviation over the seeds; the training error is measured without dropout)")


def print_differences(runs: dict[str, list[Run]]) -> None:
    """Seed by seed."""
    saved = [a.test_error - b.test_error for a, b in zip(*runs.values(), strict=True)]
    better = sum(gain > 0 for gain in saved)
    print(
        f"dropout was better for {better} of {len(saved)} seeds and changed the test error by "
        f"{-np.mean(saved):+.2f} points on average"
    )


def print_confused(runs: Sequence[Run], labels: np.ndarray, pairs: int = 5) -> None:
    """The pairs of digits that are most often taken for one another, summed over the seeds."""
    counts = np.zeros((10, 10), dtype=int)
    for run in runs:
        np.add.at(counts, (labels, run.predicted), 1)
    both = np.triu(counts + counts.T, 1)
    print("\nmost confused digits (with dropout, all seeds):")
    for place in both.ravel().argsort(kind="stable")[::-1][:pairs]:
        a, b = divmod(int(place), 10)
        print(f"  {a} and {b}: {both[a, b]}  ({a} taken for {b} {counts[a, b]}, {b} for {a} {counts[b, a]})")


def plot(runs: dict[str, list[Run]], path: str) -> None:
    """The test error over the epochs: the mean of the seeds, and a band from the lowest to the highest."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("\nno learning curves: matplotlib is not installed")
        return
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, of_name in runs.items():
        curves = np.array([run.curve for run in of_name])
        epochs = np.arange(1, curves.shape[1] + 1)
        (line,) = axes.plot(epochs, curves.mean(axis=0), label=name)
        axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=line.get_color(), alpha=0.2)
    final = [np.mean([run.test_error for run in of_name]) for of_name in runs.values()]
    axes.set(xlabel="epoch", ylabel="test error, %", ylim=(0, 3 * max(final)))
    axes.legend()
    figure.savefig(path, dpi=150)
    print(f"\nlearning curves: {path}")


def compare(seeds: int, epochs: int | None, path: str) -> None:
    settings = {"without dropout": WITHOUT, "with dropout": WITH}
    if epochs is not None:
        settings = {name: replace(setting, epochs=epochs) for name, setting in settings.items()}
    for name, setting in settings.items():
        print(f"{name:<16}  {setting}")
    runs: dict[str, list[Run]] = {name: [] for name in settings}
    for seed, (name, setting) in itertools.product(range(seeds), settings.items()):
        run = train(setting, seed)
        runs[name].append(run)
        print(f"seed {seed}  {name:<16}  test error {run.test_error:.2f} %  {run.seconds:.1f} s", flush=True)
    print_table(runs)
    print_differences(runs)
    print_confused(runs["with dropout"], cd.datasets.load_optdigits()[3])
    plot(runs, path)


# The choice, on the training set alone ----------------------------------------------------------------------


def writer_folds(folds: int = 5) -> Iterator[np.ndarray]:
    """Of each of the three runs through the writers the k-th part: True holds a row out."""
    ends = 0, 1934, 2880, 3823
    part = np.concatenate([np.arange(n) * folds // n for n in np.diff(ends)])
    for fold in range(folds):
        yield part == fold


def validate(setting: Setting) -> tuple[float, float]:
    """Error in % and cross-entropy on held-out writers, over all training images."""
    X, y, _, _ = cd.datasets.load_optdigits()
    errors, loss = 0.0, 0.0
    for seed, held in enumerate(writer_folds()):
        net = make_network(setting, seed)
        net.fit(X[~held], y[~held], epochs=setting.epochs, verbose=0)
        result = net.evaluate(X[held], y[held])
        errors += held.sum() * (1 - result["accuracy"])
        loss += held.sum() * result["loss"]
    return float(100 * errors / len(X)), float(loss / len(X))


def choose(epochs: int | None) -> None:
    print("error and cross-entropy on held-out writers of the training set")
    best: dict[bool, tuple[tuple[float, float], Setting]] = {}
    lengths = EPOCHS if epochs is None else (epochs,)
    for rates in ((0.0, 0.0), *RATES):
        for options in itertools.product(WIDTHS, LEARNING_RATES, lengths):
            setting = Setting(*options, *rates)
            result = validate(setting)
            print(f"{setting}  {result[0]:5.2f} %  {result[1]:.3f}", flush=True)
            drops = any(rates)
            if drops not in best or result < best[drops][0]:
                best[drops] = result, setting
    for drops, (result, setting) in best.items():
        print(f"best {'with' if drops else 'without'} dropout: {setting}  {result[0]:.2f} %  {result[1]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Digits with and without dropout.")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="training runs of each network, default 5")
    parser.add_argument("--epochs", type=int, metavar="N", help="instead of the chosen numbers of epochs")
    parser.add_argument("--plot", default="digits.png", metavar="FILE", help="learning curves, default digits.png")
    parser.add_argument("--choose", action="store_true", help="choose the settings anew, on the training set")
    options = parser.parse_args()
    if options.choose:
        choose(options.epochs)
    else:
        compare(options.seeds, options.epochs, options.plot)


if __name__ == "__main__":
    main()
