"""Draws the plots of docs/dropout.md: real training runs, a few minutes in all.

    pip install "cydrop[plot]"
    python docs/dropout_plots.py [FOLDER]

Writes dropout_overfitting.png, dropout_schedules.png and dropout_uncertainty.png into FOLDER (default: docs).
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import cydrop as cd

SEEDS = 5


HE = {"weight_init": "he_normal", "bias_init": "zeros"}  # what the pictures were drawn with


def digits(rows=600):
    """Few training digits, which a network can learn by heart, and the test digits."""
    X, y, X_test, y_test = cd.datasets.load_optdigits()
    chosen = np.random.default_rng(0).permutation(len(X))[:rows]
    return X[chosen], y[chosen], X_test, y_test


def network(rate, seed, rate_in=0.0):
    return cd.Network(
        [cd.Dropout(rate_in), cd.Dense(256, **HE), cd.ReLU(), cd.Dropout(rate),
         cd.Dense(256, **HE), cd.ReLU(), cd.Dropout(rate), cd.Dense(10, **HE)],
        optimizer=cd.Adam(1e-3), seed=seed,
    )  # fmt: skip


def mean_histories(rate, epochs, rate_in=0.0):
    """The metrics of SEEDS training runs, each of shape (seeds, epochs)."""
    X, y, X_test, y_test = digits()
    histories = [
        network(rate, seed, rate_in)
        .fit(X, y, epochs=epochs, batch_size=64, validation_data=(X_test, y_test), clean_metrics=True, verbose=0)
        .metrics
        for seed in range(SEEDS)
    ]
    return {name: np.array([history[name] for history in histories]) for name in histories[0]}


def overfitting(folder):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for ax, rate, title in ((axes[0], 0.0, "without dropout"), (axes[1], 0.5, "dropout .2 of the input, .5 hidden")):
        metrics = mean_histories(rate, 200, rate_in=0.2 if rate else 0.0)
        ax.plot(metrics["loss"].mean(axis=0), color="tab:gray", lw=1, label="training, as trained")
        ax.plot(metrics["clean_loss"].mean(axis=0), color="tab:blue", label="training, dropout off")
        ax.plot(metrics["val_loss"].mean(axis=0), color="tab:red", label="test")
        error = 100 * (1 - metrics["val_accuracy"][:, -1])
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("epoch")
        ax.set_yscale("log")
        print(f"{title}: test error {error.mean():.2f} ± {error.std(ddof=1) / SEEDS**0.5:.2f} %, "
              f"test loss {metrics['val_loss'][:, -1].mean():.3f}")  # fmt: skip
    axes[0].set_ylabel("cross-entropy, nats")
    axes[0].legend(fontsize=8)
    save(figure, folder / "dropout_overfitting.png")


def schedules(folder):
    step = cd.schedules.Step
    kinds = {
        "none": 0.0,
        "constant .5": 0.5,
        "early: .5, then 0": step(0.5, 0.0),
        "late: 0, then .5": step(0.0, 0.5),
        "flat, then cosine to 0": cd.schedules.FlatCos(0.5),
        "curriculum to .5": cd.schedules.Curriculum(0.5),
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    progress = np.linspace(0, 1, 200, endpoint=False)
    for name, rate in kinds.items():
        metrics = mean_histories(rate, 60)
        error = 100 * (1 - metrics["val_accuracy"])
        left.plot(60 * progress, [rate(p) if callable(rate) else rate for p in progress], label=name)
        right.plot(error.mean(axis=0), label=name)
        print(f"{name:<24} test error {error[:, -1].mean():.2f} ± {error[:, -1].std(ddof=1) / SEEDS**0.5:.2f} %")
    left.set(xlabel="epoch", ylabel="rate in force")
    right.set(xlabel="epoch", ylabel="test error, %", ylim=(4.5, 8))
    right.legend(fontsize=8)
    save(figure, folder / "dropout_schedules.png")


def uncertainty(folder):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-2, -0.5, 120), rng.uniform(0.5, 1.5, 80)])
    y = np.sin(3 * x) + 0.1 * rng.standard_normal(len(x))
    layers = []
    for _ in range(3):
        layers += [cd.Dense(256, **HE), cd.ReLU(), cd.Dropout(0.1)]
    net = cd.Network([*layers, cd.Dense(1, **HE)], loss="mse", optimizer=cd.Adam(1e-3), seed=0)
    net.fit(x[:, None], y, epochs=600, batch_size=64, verbose=0)
    grid = np.linspace(-4, 4, 400)
    mc = net.predict_mc(grid[:, None], 1000, seed=0, quantiles=[0.05, 0.95])
    figure, ax = plt.subplots(figsize=(9, 3.4))
    ax.fill_between(grid, mc.quantiles[0, :, 0], mc.quantiles[1, :, 0], alpha=0.3, label="5 % to 95 % of 1,000 samples")
    ax.plot(grid, mc.mean[:, 0], label="Monte Carlo mean")
    ax.plot(x, y, ".", color="black", ms=3, label="data")
    ax.set(xlabel="x", ylabel="y", ylim=(-4, 3))
    ax.legend(fontsize=8, loc="upper left")
    inside = mc.std[(np.abs(grid - 1) < 0.4) | (np.abs(grid + 1.25) < 0.6), 0].mean()
    gap = mc.std[np.abs(grid) < 0.3, 0].mean()
    left, right = mc.std[[0, -1], 0]
    print(f"standard deviation: {inside:.2f} among the data, {gap:.2f} in the gap, {left:.2f} at -4, {right:.2f} at 4")
    save(figure, folder / "dropout_uncertainty.png")


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    folder = parser.parse_args().folder
    overfitting(folder)
    schedules(folder)
    uncertainty(folder)


if __name__ == "__main__":
    main()
