"""Regression with a predicted variance: an ensemble and Monte Carlo dropout on two tables, next to published figures.

    python bench/densities.py FOLDER [SET ...] [--seeds N] [--members N] [--validation]

FOLDER has airfoil.csv.gz and bike.csv.gz (UCI Machine Learning Repository: Airfoil Self-Noise, and Bike Sharing's
hour.csv without date, index and the two parts of the target), whose last column is the target. For each of five seeds
scikit-learn's train_test_split keeps 20 % of the rows for the test; X and y are standardised by the others. Figures are
in units of the standardised target: RMSE, NLL (the mean negative log density of y), seconds of training and of
prediction, on the threads of this machine.

    one network     the first of them, dropout off: a normal distribution
    its samples     the same, Monte Carlo dropout: a mixture of 100
    ensemble        all ten, dropout off: a mixture of ten
    all samples     both: a mixture of 1,000

The networks have two outputs and the loss "gaussian_nll". With "folds" each leaves out one of ten folds of the training
rows, whose loss chooses its epoch; without, all train on all rows for all epochs. What SETTINGS holds was chosen by a
fifth of the training rows, with the other four fifths to train on; the test rows had no part in it.

The published figures are those of sklearn-contrib-bde 1.0 (ten networks of four layers of 16 units, then MCMC; ten
cores), its deep ensemble of ten, TabPFN v2 and CatBoost, on the same kind of splits.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from table_data import Table, read_table

import cydrop as cd

Array = NDArray[Any]

PUBLISHED = {  # RMSE, NLL, seconds
    "airfoil": {
        "bde": (0.1215, -0.913, "240"),
        "its ensemble": (0.365, 0.176, "19"),
        "TabPFN v2": (0.136, -0.934, "0.3 + 9"),
        "CatBoost": (0.239, 0.148, "0.8"),
    },
    "bike": {
        "bde": (0.2261, -0.7315, "2,553"),
        "its ensemble": (0.288, -0.455, "39"),
        "TabPFN v2": (0.210, -0.686, "1.4 + 1,245"),
        "CatBoost": (0.265, -0.374, "2.5"),
    },
}
SETTINGS: dict[str, dict[str, Any]] = {
    "airfoil": {
        "hidden": 4,
        "units": 128,
        "rate": 0.05,
        "learning_rate": 2e-3,
        "decay": 0.05,
        "epochs": 400,
        "batch_size": 32,
        "folds": False,
    },
    "bike": {
        "hidden": 3,
        "units": 128,
        "rate": 0.05,
        "learning_rate": 3e-3,
        "decay": 0.05,
        "epochs": 40,
        "batch_size": 128,
        "folds": True,
    },
}


def network(X: Array, seed: int, settings: dict[str, Any]) -> cd.Network:
    """Numbers in bins, then hidden layers with dropout."""
    block = [cd.Dense(settings["units"]), cd.Mish(), cd.Dropout(settings["rate"])]
    layers = [cd.NumericEmbedding("piecewise_linear"), *block * settings["hidden"], cd.Dense(2)]
    rate = cd.schedules.Cosine(settings["learning_rate"])
    optimizer = cd.AdamW(rate, weight_decay=settings["decay"])
    return cd.Network(layers, loss="gaussian_nll", optimizer=optimizer, seed=seed).initialize(X)


def standardised(X: Array, y: Array, train: Array) -> tuple[Array, Array]:
    scale = X[train].std(axis=0)
    rows = (X - X[train].mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    return rows.astype(np.float32), (y - y[train].mean()) / y[train].std()


def judged(mixture: cd.Ensemble, X: Array, y: Array, rate: float | None) -> tuple[float, float, float]:
    """RMSE, NLL and seconds; a rate of 0 is dropout off."""
    start = time.perf_counter()
    with warnings.catch_warnings():  # one network without dropout has no spread but that which it predicts
        warnings.filterwarnings("ignore", "nothing is drawn")
        found = mixture.evaluate_mc(X, y, 100, seed=0, rate=rate)
    return found["rmse"], -found["log_likelihood"], time.perf_counter() - start


def run(table: Table, seed: int, members: int, validation: bool = False) -> dict[str, tuple[float, ...]]:
    """RMSE, NLL, seconds of training and of prediction of each method."""
    settings = SETTINGS[table.name]
    X, y = numbers(table), table.target.astype(np.float64)
    train, test = train_test_split(np.arange(len(y)), test_size=0.2, random_state=seed)
    if validation:
        train, test = train_test_split(train, test_size=0.2, random_state=seed)
    X, y = standardised(X, y, train)
    start = time.perf_counter()
    ensemble = cd.Ensemble([network(X[train], 1000 * seed + number, settings) for number in range(members)])
    ensemble.fit(
        X[train], y[train], folds=members if settings["folds"] else None, seed=seed, epochs=settings["epochs"],
        batch_size=settings["batch_size"], verbose=0,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    one = cd.Ensemble(ensemble.networks[:1])
    found = {}
    for name, mixture, rate, share in (
        ("one network", one, 0.0, members),
        ("its samples", one, None, members),
        ("ensemble", ensemble, 0.0, 1),
        ("all samples", ensemble, None, 1),
    ):
        rmse, nll, predicting = judged(mixture, X[test], y[test], rate)
        found[name] = rmse, nll, seconds / share, predicting
    return found


def numbers(table: Table) -> Array:
    """The columns as numbers; of a category its code, in the order of its names."""
    columns = [column.cat.codes if column.dtype == "category" else column for _, column in table.frame.items()]
    return np.column_stack([column.to_numpy(dtype=np.float64) for column in columns])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETTINGS), metavar="SET", help=" ".join(SETTINGS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--validation", action="store_true", help="a fifth of the training rows instead of the test")
    arguments = parser.parse_args()
    for name in arguments.sets:
        print(f"{name}, mean of {arguments.seeds} seeds, {cd.show_config()['n_threads']} threads")
        print(f"{'':<14}{'RMSE':>8}{'NLL':>9}   seconds (training + prediction)")
        table = read_table(arguments.folder / f"{name}.csv.gz")
        runs = []
        for seed in range(arguments.seeds):
            runs.append(run(table, seed, arguments.members, arguments.validation))
            rmse, nll, *_ = runs[-1]["ensemble"]
            print(f"  seed {seed}: ensemble {rmse:.4f} {nll:.4f}", flush=True)
        for method in runs[0]:
            figures = np.array([one[method] for one in runs])
            rmse, nll, training, predicting = figures.mean(axis=0)
            error = figures[:, 1].std(ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else np.nan
            print(f"{method:<14}{rmse:>8.4f}{nll:>9.4f} ± {error:.3f}   {training:.1f} + {predicting:.1f}", flush=True)
        for method, (rmse, nll, seconds) in PUBLISHED[name].items():
            print(f"{method:<14}{rmse:>8.4f}{nll:>9.4f}   {seconds} (published)")


if __name__ == "__main__":
    main()
