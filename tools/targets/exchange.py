"""exchange.py write|read FOLDER: networks of one machine on another, which may keep its bytes in the other order.

`write` trains networks and writes them as safetensors and pickles, with what they predict; `read`, elsewhere, compares,
writes them again and goes on training. Fails if anything is different.
"""

import pickle
import sys
from pathlib import Path

import numpy as np

import cydrop as cd

what, folder = sys.argv[1], Path(sys.argv[2])
rng = np.random.default_rng(5)
X, y = (rng.integers(-8, 9, (96, 7)) / 4).astype(np.float32), rng.integers(0, 3, 96)
fused = cd.show_config()["fused_multiply_add"]

DENSE = [cd.Dropout(0.2), cd.Dense(20), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.5), cd.Dense(12, drop_connect=0.2)]
NETWORKS = {
    "dense": [*DENSE, cd.Tanh(), cd.Dense(3)],
    "embedding": [cd.NumericEmbedding("pbld"), cd.Dense(20), cd.Parametric("mish"), cd.Dense(3)],
    "residual": [cd.Dense(8), cd.Residual([cd.Dense(9), cd.LayerNorm(), cd.ReLU(), cd.Dense(8)]), cd.Dense(3)],
}


def train(net, epochs):
    net.fit(X, y, epochs=epochs, batch_size=32, verbose=0)
    return net


def same(one, other):
    """Whether arrays of two machines are equal: in every bit if both have the fused multiply-add, or both have not."""
    return all(
        np.array_equal(one[name], other[name])
        if other["fused"] == fused
        else np.allclose(one[name], other[name], atol=1e-4)
        for name in one
    )


def contents(net):
    return net.parameters() | {"prediction": net.predict(X), "samples": net.predict_mc(X, 5, seed=1).mean}


for name, layers in NETWORKS.items():
    file, pickled = folder / f"{name}.safetensors", folder / f"{name}.pickle"
    if what == "write":
        net = train(cd.Network(layers, optimizer=cd.Adam(1e-2), seed=3, n_threads=1), 3)
        net.save(file)
        pickled.write_bytes(pickle.dumps(net))
        np.savez(folder / f"{name}.npz", fused=fused, **contents(net))
        np.savez(folder / f"{name}.later.npz", fused=fused, **contents(train(net, 2)))
    else:
        now, later = np.load(folder / f"{name}.npz"), np.load(folder / f"{name}.later.npz")
        for net in (cd.load(file), pickle.loads(pickled.read_bytes())):
            assert all(np.array_equal(array, now[key]) for key, array in net.parameters().items()), name
            assert same(contents(net), now), name
            again = folder / "again.safetensors"
            net.save(again)
            assert again.read_bytes() == file.read_bytes(), name
            assert same(contents(train(net, 2)), later), name
        print(name, "is the same")
