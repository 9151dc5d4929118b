"""Writes networks as an earlier cydrop saved and pickled them, with what they went on to do.

    python tests/golden/make_earlier_networks.py FOLDER

Run once, with cydrop at commit abb31bd; tests/test_earlier_versions.py goes on from these files and compares bits.
"""

import pickle
import sys
from pathlib import Path

import numpy as np

import cydrop as cd

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
TARGETS = np.stack([X[:, 0] - X[:, 1], X[:, 2] * X[:, 3]], axis=1)


def networks():
    yield (
        "dropouts", LABELS,
        cd.Network(
            [
                cd.Dropout(0.1), cd.Dense(9, weight_init="he_normal", bias_init="zeros"), cd.ReLU(),
                cd.Dropout(cd.schedules.Linear(0.5, 0.1), shared="batch"),
                cd.Dense(8, activation="softplus", max_norm=2.0),
                cd.Dropout(0.3, mode="vanilla", seed=3), cd.Dense(3),
            ],
            loss=cd.losses.CrossEntropy(label_smoothing=0.1, r_drop=0.5),
            optimizer=cd.AdamW(cd.schedules.Cosine(0.01), clip_norm=1.0), seed=1,
        ),
    )  # fmt: skip
    yield (
        "noises", TARGETS,
        cd.Network(
            [
                cd.GaussianNoise(0.1), cd.Dense(9, drop_connect=0.2), cd.BatchNorm(), cd.SELU(), cd.AlphaDropout(0.2),
                cd.Dense(8, activation=cd.ELU(0.7)), cd.LayerNorm(), cd.GaussianDropout(0.3), cd.Dense(2, bias=False),
            ],
            loss=cd.losses.Huber(0.5), optimizer=cd.SGD(0.02, momentum=0.9, nesterov=True, weight_decay=1e-3), seed=2,
        ),
    )  # fmt: skip
    for name in ("RMSprop", "Adagrad", "Adam"):
        hidden = [cd.Dense(9), cd.LeakyReLU(0.2), cd.Dropout(0.5), cd.Dense(7, activation="gelu"), cd.Tanh()]
        layers = [*hidden, cd.Dense(4)]
        yield name.lower(), TARGETS, cd.Network(layers, loss="gaussian_nll", optimizer=getattr(cd, name)(), seed=4)


def went_on(net, y):
    """What the network does next, array by array."""
    samples = net.predict_mc(X, 5, seed=7, return_samples=True).samples
    found = {"predicted": net.predict(X), "samples": samples}
    net.fit(X, y, epochs=2, batch_size=16, verbose=0)
    masks = np.concatenate([mask.ravel() for mask in net.masks()])
    return found | {"masks": masks, "trained": net.predict(X), "loss": np.array(net.history.metrics["loss"])}


if __name__ == "__main__":
    folder, expected = Path(sys.argv[1]), {}
    for name, y, net in networks():
        net.fit(X, y, epochs=2, batch_size=16, verbose=0)
        net.save(folder / f"earlier_{name}.safetensors")
        (folder / f"earlier_{name}.pkl").write_bytes(pickle.dumps(net, protocol=4))
        expected |= {f"{name}.{key}": value for key, value in went_on(net, y).items()}
    layers = [layer for _, _, net in networks() for layer in net.layers]
    others = [cd.schedules.Step(0.5), cd.callbacks.EarlyStopping(), net.history, cd.losses.MSE()]
    (folder / "earlier_parts.pkl").write_bytes(pickle.dumps([layers, others], protocol=4))
    np.savez_compressed(folder / "earlier_networks.npz", **expected)
