"""What tests/test_mpi.py runs on several ranks: `mpiexec -n 2 python tests/mpi_cases.py FOLDER CASE ARGUMENT ...`.

Each rank writes what its case returns into FOLDER/RANK.json.
"""

import hashlib
import json
import os
import signal
import sys
import threading
import warnings

import numpy as np
from mpi4py import MPI

import cydrop as cd
from cydrop._run.core import core_of
from cydrop.distributed import DataParallel

WORLD = MPI.COMM_WORLD
RANK, SIZE = WORLD.Get_rank(), WORLD.Get_size()
LAYERS = [cd.Dense(50), cd.ReLU(), cd.Dropout(0.3), cd.Dense(2)]


def rows(n=603, columns=20):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, columns), dtype=np.float32)
    return X, (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)


def digest(net):
    """Of all that training changes, and of the history but for the time."""
    found = hashlib.sha256()
    for name, tensor in core_of(net).model.tensors().items():
        found.update(name.encode() + tensor.tobytes())
    engine = core_of(net).model.engine
    found.update(repr((engine.draws, engine.updates)).encode())
    found.update(repr({name: values for name, values in net.history.metrics.items() if name != "seconds"}).encode())
    return found.hexdigest()


def trained(
    layers=LAYERS, loss="cross_entropy", optimizer="adam", parallel=None, n_threads=1, X=None, y=None, **options
):
    some, labels = rows()
    net = cd.Network(layers, loss=loss, optimizer=optimizer, seed=3, n_threads=n_threads)
    arguments = {"epochs": 3, "batch_size": 100, "verbose": 0, **options}
    X, y = some if X is None else X, labels if y is None else y
    net.fit(X, y, parallel=parallel or DataParallel(WORLD), **arguments)
    return net


def networks():
    """Arguments of `trained`, by what they try."""
    X, _ = rows()
    D = cd.Dense
    rng = np.random.default_rng(1)
    weights = rng.random(len(X)).astype(np.float32)
    coded = np.concatenate([X, rng.integers(0, (5, 4), (len(X), 2))], axis=1).astype(np.float32)
    two = np.stack([X[:, 0] * 2, X[:, 1] - X[:, 2]], axis=1)
    clipped = cd.SGD(0.05, momentum=0.9, nesterov=True, clip_norm=0.5)
    cosine, growing = cd.Adam(cd.schedules.Cosine(0.01, 0.0001)), cd.schedules.Linear(0.1, 0.5)
    return {
        "dropout": {"validation_split": 0.2},
        "large": {"layers": [D(300), cd.ReLU(), cd.Dropout(0.5), D(100), cd.Dropout(0.2), D(2)], "epochs": 2},
        "norm": {"layers": [D(64), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.2), D(2)], "clean_metrics": True},
        "clipped": {"layers": [D(200), cd.ReLU(), D(2)], "optimizer": clipped},
        "max_norm": {"layers": [D(50, max_norm=0.5), cd.ReLU(), cd.Dropout(0.5), D(2)], "optimizer": cd.SGD(0.1)},
        "decay": {"optimizer": cd.AdamW(0.01, weight_decay=0.1), "sample_weight": weights},
        "schedule": {"layers": [cd.Dropout(growing), D(30), cd.ReLU(), D(2)], "optimizer": cosine},
        "factors": {"layers": [D(40, learning_rate_factor=0.5, decay_factor={"bias": 0.0}), cd.Tanh(), D(2)]},
        "regression": {"layers": [D(40), cd.GELU(), D(2)], "loss": "mse", "y": two, "optimizer": "rmsprop"},
        "binary": {"layers": [D(40), cd.SELU(), cd.AlphaDropout(0.1), D(2)], "loss": "binary_cross_entropy",
                   "y": (two > 0).astype(np.float32), "optimizer": "adagrad"},
        "connect": {"layers": [D(40, drop_connect=0.3), cd.ReLU(), D(2)]},
        "shared": {"layers": [D(40), cd.ReLU(), cd.Dropout(0.4, shared="batch"), D(2)]},
        "masks": {"layers": [D(40), cd.ReLU(), cd.Masksembles(3), D(30), cd.BatchNorm(), cd.Masksembles(3), D(2)]},
        "noise": {"layers": [cd.GaussianNoise(0.1), D(40), cd.LayerNorm(), cd.SiLU(), cd.GaussianDropout(0.2), D(2)]},
        "learned": {"layers": [cd.Dropout("learn"), D(30), cd.ReLU(), cd.Dropout("learn"), D(2)], "optimizer": clipped},
        "residual": {"layers": [D(30), cd.Residual([D(30), cd.ReLU(), cd.Dropout(0.2)], drop_path=0.2), D(2)]},
        "numbers": {"layers": [cd.NumericEmbedding(columns=20), cd.Scale(), D(30), cd.Parametric("mish"), D(2)]},
        "codes": {"layers": [cd.Embedding([5, 4], 3), D(30), cd.Mish(), D(2)], "X": coded},
        "r_drop": {"loss": cd.losses.CrossEntropy(r_drop=1.0), "layers": [D(30), cd.ReLU(), cd.Dropout(0.3), D(2)]},
        "few": {"batch_size": 5, "epochs": 1, "drop_last": True},
        "in_order": {"shuffle": False, "batch_size": 1000},
    }  # fmt: skip


# Cases ------------------------------------------------------------------------------------------------------


def nothing():
    """To see how long a start takes."""


def hashes(n_threads="1", parallel=None):
    usual = {"parallel": parallel, "n_threads": int(n_threads)}
    return {name: digest(trained(**usual | options)) for name, options in networks().items()}


def without():
    """The same without MPI, on one and on two threads."""
    return [hashes(n_threads, DataParallel()) for n_threads in (1, 2)]


def mapped(folder):
    """Rows in a file, all right and with a NaN; and how many of its rows this rank has checked."""
    from cydrop._base import checks

    path, bad = (os.path.join(folder, name) for name in ("X.npy", "bad.npy"))
    if RANK == 0:
        X, y = rows(20_000, 300)
        np.save(path, X)
        X[15_000, 17] = np.nan
        np.save(bad, X)
    WORLD.Barrier()
    _, y = rows(20_000, 300)
    parallel, checked, real = DataParallel(WORLD), [], checks.matrix

    def matrix(name, value, columns=None, n_threads=1, part=None):
        checked.append(len(value) if part is None else part.stop - part.start)
        return real(name, value, columns, n_threads, part)

    checks.matrix = matrix
    net = cd.Network(LAYERS, seed=0, n_threads=1)
    options = {"epochs": 2, "batch_size": 500, "verbose": 0, "parallel": parallel}
    net.fit(np.load(path, mmap_mode="r"), y, validation_split=0.1, **options)
    try:
        net.fit(np.load(bad, mmap_mode="r"), y, **options)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    return digest(net), net.evaluate(np.load(path, mmap_mode="r"), y, parallel=parallel)["loss"], checked, text


def estimators():
    """Estimators on all ranks; and one that is given other rows on one rank."""
    from cydrop.sklearn import MLPClassifier
    from cydrop.tabular import RealMLPRegressor

    X, y = rows(300)
    parallel = DataParallel(WORLD)
    classifier = MLPClassifier((20,), dropout=0.2, max_iter=5, random_state=0, early_stopping=True, n_threads=1)
    regressor = RealMLPRegressor(hidden_layer_sizes=(16,), max_iter=3, n_ensemble=2, random_state=0, n_threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = digest(classifier.fit(X, y, parallel=parallel).network_)
        regressor.fit(X[:, :3], X[:, 3], parallel=parallel)
    second = hashlib.sha256(regressor.predict(X[:, :3]).tobytes()).hexdigest()
    refused = []
    for estimator in (classifier, regressor):
        try:
            estimator.fit(X[: 300 - RANK], y, parallel=parallel)
        except Exception as error:
            refused.append(f"{type(error).__name__}: {error}")
    return first, second, refused


def estimators_apart():
    """What estimators say that are not the same on all ranks, or are given what is not."""
    from cydrop.sklearn import MLPClassifier
    from cydrop.tabular import RealMLPClassifier, RealMLPRegressor

    X, y = rows(120)
    parallel = DataParallel(WORLD)
    small = {"hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}
    names = np.array(["a", "b", "c"])
    cases = {
        "members": lambda: RealMLPClassifier(**small, n_ensemble=1 + RANK).fit(X, y, parallel=parallel),
        "held out": lambda: RealMLPClassifier(**small).fit(
            X, y, X_val=X[:20], y_val=np.roll(y[:20], RANK), parallel=parallel
        ),
        "classes": lambda: MLPClassifier((8,), max_iter=2, random_state=0).fit(X, names[y + RANK], parallel=parallel),
        "classes of tables": lambda: RealMLPClassifier(**small).fit(X, names[y + RANK], parallel=parallel),
        "scaled": lambda: RealMLPRegressor(**small).fit(X, X[:, 0] * (1 + RANK), parallel=parallel),
        "rows": lambda: RealMLPRegressor(**small).fit(X[: 120 - RANK], X[: 120 - RANK, 0], parallel=parallel),
        "batch": lambda: trained(parallel=DataParallel(WORLD, data="partitioned"), batch_size=1),
    }
    found = {}
    for name, call in cases.items():
        try:
            call()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def faults():
    """What all ranks raise when the third of them is at fault; and whether they can go on."""
    found = {}
    X, y = rows()
    usual = {"X": X, "y": y, "epochs": 2, "batch_size": 100, "verbose": 0, "parallel": DataParallel(WORLD)}
    for name, options in at_fault(RANK == 2).items():
        of_network = {"seed": 0, "layers": LAYERS, "optimizer": "adam"}
        net = cd.Network(**{key: options.pop(key, own) for key, own in of_network.items()}, n_threads=1)
        try:
            net.fit(**usual | options)
            what = "nothing"
        except (Exception, KeyboardInterrupt) as error:
            what = f"{type(error).__name__}: {error}"
        found[name] = what, len(net.history), digest(trained(epochs=1))
    return found


def at_fault(me):
    """Arguments of Network and fit, which are others on one rank."""
    X, y = rows()
    lacking, changed = X.copy(), X.copy()
    lacking[5, 7], changed[77, 3] = np.nan, 0.5
    other = [cd.Dense(50), cd.ReLU(), cd.Dropout(0.4), cd.Dense(2)]

    def fails(*_):
        if me:
            raise OSError("no space left")

    def of_me(change):
        return cd.callbacks.LambdaCallback(lambda net, epoch, metrics: change(net) if me else None)

    functions = cd.callbacks.LambdaCallback
    return {
        "nan": {"X": lacking if me else X},
        "type": {"epochs": "x" if me else 2},
        "columns": {"X": X[:, :10] if me else X},
        "rows": {"X": X[:500] if me else X, "y": y[:500] if me else y},
        "numbers": {"X": changed if me else X},
        "order": {"X": X[::-1] if me else X},
        "labels": {"y": 1 - y if me else y},
        "seed": {"seed": 1 if me else 0},
        "layers": {"layers": other if me else LAYERS},
        "optimizer": {"optimizer": "sgd" if me else "adam"},
        "batch_size": {"batch_size": 50 if me else 100},
        "shards": {"parallel": DataParallel(WORLD, shards=16 if me else 8)},
        "weights": {"sample_weight": np.ones(len(X)) if me else None},
        "validation": {"validation_data": (X, y) if me else None},
        "begin": {"callbacks": [functions(on_train_begin=fails)]},
        "epoch": {"callbacks": [functions(on_epoch_end=fails)]},
        "end": {"callbacks": [functions(on_train_end=fails)]},
        "both": {"callbacks": [functions(on_epoch_end=fails, on_train_end=fails)]},
        "learning_rate": {"callbacks": [of_me(lambda net: setattr(net, "optimizer", cd.Adam(0.1)))]},
        "parameters": {"callbacks": [of_me(lambda net: net.parameters()["0.weight"].__setitem__(0, 0))]},
        "stop": {"callbacks": [of_me(lambda net: setattr(net, "stop_training", True))]},
        "diverged": {"optimizer": cd.SGD(1e30)},
        "interrupt": {"callbacks": [functions(on_train_begin=lambda *_: signalled(signal.SIGINT) if me else None)],
                      "epochs": 100_000},
    }  # fmt: skip


def signalled(number, seconds=0.3):
    """Sends this process a signal a little later."""
    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()


def apart():
    """Ranks that make different calls, and arguments that no rank can use."""
    X, y = rows()
    net, parallel, found = trained(epochs=1), DataParallel(WORLD), []
    for call in (
        lambda: net.predict(X, parallel=parallel) if RANK else net.evaluate(X, y, parallel=parallel),
        lambda: net.fit(X, y, verbose=0, parallel=parallel) if RANK else net.predict(X, parallel=parallel),
        lambda: net.predict_mc(X, 10 + RANK, parallel=parallel),
        lambda: DataParallel(WORLD, shards=1),
        lambda: DataParallel("here"),
        lambda: net.predict(X, parallel=WORLD),
    ):
        try:
            call()
            found.append("nothing")
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    net.fit(X, y, epochs=1, verbose=0, parallel=parallel)
    return found, digest(net)


def step_fails():
    """A step that fails on one rank, in its own part of it; then a further call."""
    net = cd.Network(LAYERS, seed=0, n_threads=1)
    core = core_of(net)
    remember, calls = core.passes.remember, []

    def fails(*arguments):
        calls.append(1)
        if len(calls) == 10 and RANK == 1:
            raise MemoryError("no room")
        remember(*arguments)

    core.passes.remember = fails
    X, y = rows()
    try:
        net.fit(X, y, batch_size=100, verbose=0, parallel=DataParallel(WORLD))
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
    net.fit(X, y, batch_size=100, epochs=1, verbose=0, parallel=DataParallel(WORLD))
    return what, digest(net)


def breaks():
    """An error where nothing can be told: in the middle of an exchange."""
    from cydrop.distributed import _exchange

    def fails(*_):
        raise MemoryError("no room")

    if RANK == 1:
        _exchange.Exchange.gather = fails
    trained()


def leaves():
    """An error of the program on one rank, outside of cydrop."""
    parallel = DataParallel(WORLD)
    if RANK == 1:
        raise KeyError("only here")
    trained(parallel=parallel)


def killed():
    """SIGKILL of one rank."""
    if RANK == 1:
        signalled(signal.SIGKILL, 1.0)
    trained(epochs=1_000_000)


def judged():
    """Predictions of all ranks together, against those of each alone."""
    X, y = rows(1003)
    net = trained([cd.Dense(50), cd.ReLU(), cd.Dropout(0.3), cd.Dense(2)])
    one, parallel = {}, DataParallel(WORLD)
    for n in (1, 3, 250, 1003):
        some = X[:n], y[:n]
        one[f"predict {n}"] = bool((net.predict(some[0]) == net.predict(some[0], parallel=parallel)).all())
        one[f"evaluate {n}"] = net.evaluate(*some) == net.evaluate(*some, parallel=parallel)
        options = {"seed": 5, "return_samples": True, "quantiles": [0.1, 0.5]}
        alone, together = (net.predict_mc(some[0], 20, parallel=p, **options) for p in (None, parallel))
        for name in ("mean", "std", "entropy", "mutual_information", "quantiles", "samples"):
            one[f"{name} {n}"] = bool((getattr(alone, name) == getattr(together, name)).all())
        alone, together = (net.evaluate_mc(*some, 20, seed=5, parallel=p) for p in (None, parallel))
        one[f"evaluate_mc {n}"] = alone == together
    unseeded = net.predict_mc(X, 5, parallel=parallel).mean
    one["unseeded"] = len({part.tobytes() for part in WORLD.allgather(unseeded)}) == 1
    mine = slice(RANK * 100, RANK * 100 + 40 + RANK)
    everywhere = np.concatenate([np.arange(rank * 100, rank * 100 + 40 + rank) for rank in range(SIZE)])
    parts = DataParallel(WORLD, data="partitioned")
    found, wanted = net.evaluate(X[mine], y[mine], parallel=parts), net.evaluate(X[everywhere], y[everywhere])
    one["parts"] = all(abs(found[name] - wanted[name]) < 1e-12 for name in wanted)
    one["part"] = bool((net.predict(X[mine], parallel=parts) == net.predict(X[mine])).all())
    one["mc parts"] = net.predict_mc(X[mine], 5, seed=1, parallel=parts).mean.shape == (40 + RANK, 2)
    everybody = WORLD.allgather(net.evaluate_mc(X[mine], y[mine], 5, seed=1, parallel=parts))
    one["evaluate_mc parts"] = all(values == everybody[0] for values in everybody)
    return one


def partitioned():
    """Parts that hold what each rank would read of replicated rows; and parts of different sizes."""
    X, y = rows(640)
    own = np.concatenate([
        np.arange(begin + RANK * 128 // SIZE, begin + (RANK + 1) * 128 // SIZE) for begin in range(0, 640, 128)
    ])  # fmt: skip
    networks = []
    options = {"epochs": 2, "batch_size": 128, "shuffle": False, "verbose": 0}
    for parallel, part in ((DataParallel(WORLD), slice(None)), (DataParallel(WORLD, data="partitioned"), own)):
        net = cd.Network(LAYERS, seed=0, n_threads=1)
        net.fit(X[part], y[part], parallel=parallel, **options)
        networks.append(digest(net))
    uneven = []
    for _ in range(2):
        net = cd.Network(LAYERS, seed=0, n_threads=1)
        part = slice(RANK * 50, RANK * 50 + 20 + 7 * RANK)
        net.fit(X[part], y[part], epochs=3, batch_size=50, verbose=0, validation_split=0.2,
                parallel=DataParallel(WORLD, data="partitioned"))  # fmt: skip
        uneven.append((digest(net), net.history.metrics["loss"][-1], net.history.metrics["val_loss"][-1]))
    return networks, uneven


def files(folder):
    """Callbacks that write, and what all ranks decide."""
    log, saved = os.path.join(folder, "log.csv"), os.path.join(folder, "net.safetensors")
    stop = cd.callbacks.EarlyStopping("val_loss", patience=2)
    reduce = cd.callbacks.ReduceLROnPlateau("val_loss", patience=1)
    mine = []
    callbacks = [
        cd.callbacks.CSVLogger(log), cd.callbacks.Checkpoint(saved), stop, reduce,
        cd.callbacks.LambdaCallback(lambda net, epoch, metrics: mine.append(metrics["seconds"])),
        cd.callbacks.LambdaCallback(lambda net, epoch, metrics: metrics.update(of=float(RANK))),
    ]  # fmt: skip
    net = trained(epochs=40, validation_split=0.3, callbacks=callbacks, optimizer=cd.Adam(0.05), verbose=1)
    return digest(net), net.history.metrics["seconds"] == mine, stop.best_epoch, net.history.metrics["of"][-1]


def resumed(path, epochs):
    """Trains so many epochs in all, from a checkpoint if there is one."""
    X, y = rows()
    if os.path.exists(path):
        net = cd.load(path)
        net.n_threads = 1
    else:
        net = cd.Network([cd.Dense(200), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.3), cd.Dense(2)], seed=1, n_threads=1)
    left = int(epochs) - len(net.history)
    if left > 0:
        net.fit(X, y, epochs=left, batch_size=50, verbose=0, callbacks=[cd.callbacks.Checkpoint(path)],
                parallel=DataParallel(WORLD))  # fmt: skip
    return len(net.history), digest(net)


def threads():
    """How many threads a rank gets, and the warning where they are too many."""
    own = len(os.sched_getaffinity(0))
    found = []
    for n_threads in (None, 2 * own):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            net = trained(n_threads=n_threads, epochs=1)
        found.append((net.n_threads, [str(one.message) for one in caught]))
    return own, found


if __name__ == "__main__":
    if sys.argv[2] != "threads":
        warnings.filterwarnings("ignore", "[0-9]+ ranks of this machine")
    result = globals()[sys.argv[2]](*sys.argv[3:])
    with open(os.path.join(sys.argv[1], f"{RANK}.json"), "w", encoding="utf-8") as file:
        json.dump(result, file)
