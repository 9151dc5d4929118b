"""Batches in shards: against the plain network, and one order of additions whoever computes which shards."""

import hashlib
import itertools
import sys

import numpy as np
import pytest
from digests import fused
from oracle import assert_same_training
from plain_network import tree
from test_every_layer import EVERY
from test_same_bits import run

import cydrop as cd
from cydrop._core.engine import Workspace
from cydrop._core.optimizers import slices_of, spans_of
from cydrop._run.core import core_of
from cydrop.distributed import DataParallel

FEATURES, SPAN = 40, 8192


def data(rng, rows, units=5):
    X = rng.standard_normal((rows, FEATURES)).astype(np.float32)
    X[:, -2:] = rng.integers(0, 9, (rows, 2))  # codes, where a layer wants some
    return X, rng.integers(0, units, rows)


# Against the plain network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [2, 8])
@pytest.mark.parametrize("layer", [layer for layer in EVERY if not isinstance(layer, cd.Members)], ids=repr)
def test_every_layer_trains_in_shards_as_in_the_plain_network(rng, layer, shards):
    X, y = data(rng, 37)
    X[:, -2:] = rng.integers(0, 2, (37, 2))
    layers = [cd.Dense(7, activation="tanh"), layer, cd.Dense(5)]
    if isinstance(layer, cd.Embedding):
        layers = layers[1:]
    assert_same_training(cd.Network(layers, optimizer=cd.SGD(0.05), seed=1), X, y, shards=shards, steps=3)


STACKS = {
    "plain": [cd.Dense(70, activation="relu"), cd.Dropout(0.3), cd.Dense(33, activation="gelu"), cd.Dense(5)],
    "wide": [cd.Dropout(0.2), cd.Dense(300, activation="relu"), cd.Dropout(0.5), cd.Dense(70), cd.Tanh(), cd.Dense(5)],
    "left out": [
        cd.Dense(300, activation="relu"), cd.Dropout(0.4, shared="batch"), cd.Dense(200, max_norm=0.8),
        cd.ReLU(), cd.Dropout(0.5, shared="batch"), cd.Dense(5),
    ],
    "drop-connect": [cd.Dense(300, activation="relu", drop_connect=0.3), cd.Dense(60, drop_connect=0.5), cd.Dense(5)],
    "norms": [
        cd.Dense(70), cd.BatchNorm(), cd.ReLU(), cd.Dense(200), cd.LayerNorm(), cd.Parametric("mish"), cd.Scale(),
        cd.GaussianNoise(0.1), cd.AlphaDropout(0.1), cd.BatchNorm(momentum=0.3), cd.Dense(5),
    ],
    "blocks": [
        cd.Dense(70), cd.Residual([cd.BatchNorm(), cd.Dense(70), cd.ReLU(), cd.Dropout(0.2)], drop_path=0.3),
        cd.GaussianDropout(0.2), cd.Dense(5),
    ],
    "numbers": [
        cd.NumericEmbedding("pbld", columns=20), cd.Embedding([9, 12], 3),
        cd.Dense(256, activation="selu", learning_rate_factor=0.5), cd.Dense(5, learning_rate_factor={"bias": 0.1}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("rows", [1, 5, 8, 12, 61, 200])
@pytest.mark.parametrize("stack", STACKS)
def test_batches_of_any_size_train_in_shards_as_in_the_plain_network(rng, stack, rows):
    X, y = data(rng, rows)
    net = cd.Network(STACKS[stack], optimizer=cd.SGD(0.02, momentum=0.5), seed=4)
    if rows < 16 and stack in ("norms", "blocks"):
        with pytest.raises(ValueError, match=f"{rows} rows in 8 shards, which count as batches: BatchNorm needs"):
            net.fit(X, y, batch_size=rows, parallel=DataParallel())
        return
    assert_same_training(net, X, y, shards=8, steps=2, rtol=5e-5)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("stack", ["plain", "wide"])
def test_optimizers_train_in_shards_as_in_the_plain_network(rng, stack, clip_norm):
    X, y = data(rng, 61)
    for optimizer in (
        cd.SGD(0.1, weight_decay=0.1, clip_norm=clip_norm),
        cd.AdamW(1e-2, epsilon=1e-2, clip_norm=clip_norm),
    ):
        net = cd.Network(STACKS[stack], optimizer=optimizer, seed=4)
        assert_same_training(net, X, y, shards=4, rtol=2e-4)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "gaussian_nll"])
def test_losses_train_in_shards_as_in_the_plain_network(rng, loss, weighted):
    X, y = data(rng, 45)
    if loss == "binary_cross_entropy":
        y = rng.integers(0, 2, (45, 4))
    elif loss != "cross_entropy":
        y = rng.standard_normal((45, 2 if loss == "gaussian_nll" else 4))
    layers = [cd.Dense(30, activation="tanh"), cd.Dropout(0.3), cd.Dense(5 if loss == "cross_entropy" else 4)]
    net = cd.Network(layers, loss=loss, optimizer=cd.SGD(0.02), seed=2)
    weight = rng.random(45) if loss == "cross_entropy" else rng.random(y.shape)
    assert_same_training(net, X, y, shards=8, sample_weight=weight if weighted else None)


@pytest.mark.parametrize("rows", [5, 45])
@pytest.mark.parametrize("soft", [False, True])
def test_r_drop_trains_in_shards_as_in_the_plain_network(rng, soft, rows):
    X, y = data(rng, rows)
    loss = cd.losses.CrossEntropy(label_smoothing=0.1, r_drop=0.7)
    norm = cd.BatchNorm() if rows > 16 else cd.LayerNorm()
    layers = [
        cd.Dropout(0.2),
        cd.Dense(24),
        norm,
        cd.Tanh(),
        cd.GaussianNoise(0.1),
        cd.Dropout(0.4),
        cd.Dense(5),
    ]
    net = cd.Network(layers, loss=loss, optimizer=cd.SGD(0.05), seed=1)
    target = np.eye(5)[y] * 0.8 + 0.04 if soft else y
    assert_same_training(net, X, target, shards=8, sample_weight=rng.random(rows), rtol=2e-4, steps=3)


def test_embedded_categories_of_an_ordinary_table_train_in_shards(rng):
    X, y = data(rng, 300)
    for kind in ("pbld", "plr", "piecewise_linear"):
        layers = [cd.NumericEmbedding(kind, columns=20), cd.Embedding([9, 12], 3), cd.Dense(30), cd.SELU(), cd.Dense(5)]
        net = cd.Network(layers, optimizer=cd.SGD(0.05), seed=1).initialize(X)
        assert_same_training(net, X, y, shards=8, steps=3, rtol=1e-4)


# One order of additions -------------------------------------------------------------------------------------


def network(stack, n_threads=1, **options):
    """Of one of the stacks, ready to train."""
    options = {"optimizer": cd.Adam(1e-2), **options}
    return cd.Network(STACKS[stack], seed=3, n_threads=n_threads, **options).build(FEATURES)


def digest(net):
    """Of parameters, moments and running statistics."""
    tensors = core_of(net).model.tensors()
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in tensors.values())).hexdigest()


def checked(net, X, y, batch_size, weight):
    data = core_of(net).rows(X, y, weight, batch_size)
    order = np.random.default_rng(1).permutation(len(X)).astype(np.int64)
    return (data.X, data.labels, data.targets, data.weights, order), -(-len(X) // batch_size)


def train_whole(net, X, y, batch_size, shards=8, weight=None):
    """An epoch as `engine.train` does it: the digest, and the loss of each batch."""
    model = core_of(net).model
    engine, rates = model.ready(), core_of(net).rates([0.0])
    rows, batches = checked(net, X, y, batch_size, weight)
    workspace = model.borrow(batch_size, training=True, shards=shards)
    losses = []
    for batch in range(batches):
        after, loss, _, diverged = engine.train(workspace, *rows, batch_size, batch, *rates, 0.0, shards)
        assert (after, diverged) == (batch + 1, False)
        losses.append(loss)
    return digest(net), losses


def train_parts(net, X, y, batch_size, parts, shards=8, weight=None):
    """The same by `parts` processes, played one after another."""
    model = core_of(net).model
    engine, rates = model.ready(), core_of(net).rates([0.0])
    rows, batches = checked(net, X, y, batch_size, weight)
    own = shards // parts
    workspace = model.borrow(batch_size, training=True, shards=own)
    statistics = np.empty((parts, len(model.buffers)), dtype=np.float32)
    gradients = np.empty((parts, len(model.parameters)), dtype=np.float32)
    squares = np.zeros(spans_of(len(model.parameters)) if net.optimizer.clip_norm is not None else 0)
    losses = []
    for batch in range(batches):
        draws, updates, sums = engine.draws, engine.updates, []
        for part in range(parts):
            engine.draws = draws
            loss, _, finite = engine.part_of_batch(
                workspace, *rows, batch_size, batch, rates.drawing, shards, part * own, own, statistics[part]
            )
            assert finite
            sums.append(loss)
            gradients[part] = model.gradients
        losses.append(tree(sums))
        slices = list(itertools.pairwise(slices_of(len(model.parameters), parts)))
        for start, stop in slices:
            spans = squares[start // SPAN : start // SPAN + spans_of(stop - start)]
            engine.add_parts(gradients[:, start:stop].copy(), start, spans)
        for start, stop in slices:
            engine.updates = updates
            engine.update_part(start, stop, rates.learning[0], rates.decay[0], squares)
        engine.end_batch(statistics.copy(), min(batch_size, len(X) - batch * batch_size), shards)
    return digest(net), losses


CASES = {
    **{stack: (stack, {}) for stack in STACKS},
    "clipping": ("wide", {"optimizer": cd.AdamW(1e-2, weight_decay=0.1, clip_norm=0.05)}),
    "clipping with factors": ("numbers", {"optimizer": cd.Adam(1e-2, clip_norm=0.05)}),
    "momentum": ("wide", {"optimizer": cd.SGD(0.1, momentum=0.9, weight_decay=0.01)}),
    "r-drop": ("norms", {"loss": cd.losses.CrossEntropy(r_drop=0.5)}),
    "r-drop in blocks": ("blocks", {"loss": cd.losses.CrossEntropy(r_drop=0.5)}),
}


@pytest.mark.parametrize("batch_size", [5, 50])  # of 130 rows; some shards are empty
@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_batch_give_the_bits_of_the_whole_on_any_number_of_threads(rng, case, batch_size):
    stack, options = CASES[case]
    X, y = data(rng, 130)
    weight = rng.random(130) if case != "plain" else None
    expected = train_whole(network(stack, **options), X, y, batch_size, weight=weight)
    for n_threads in (2, 3):
        assert train_whole(network(stack, n_threads, **options), X, y, batch_size, weight=weight) == expected
    for parts in (1, 2, 4, 8):
        found = train_parts(network(stack, 1 + (parts == 2), **options), X, y, batch_size, parts, weight=weight)
        assert found == expected, f"{parts} parts"


@pytest.mark.parametrize("shards", [1, 2, 16, 64])
def test_other_numbers_of_shards_have_parts_too(rng, shards):
    X, y = data(rng, 130)
    expected = train_whole(network("wide"), X, y, 50, shards)
    for parts in (1, shards):
        assert train_parts(network("wide"), X, y, 50, parts, shards) == expected


def test_the_gradient_of_a_part_is_the_tree_of_its_shards(rng):
    X, y = data(rng, 50)
    net = network("norms")
    model = core_of(net).model
    rows, _ = checked(net, X, y, 50, None)
    workspace = model.borrow(50, training=True, shards=8)
    engine, rates = model.ready(), core_of(net).rates([0.0]).drawing

    def part(first, count):
        engine.draws = 5
        statistics = np.empty(len(model.buffers), dtype=np.float32)
        engine.part_of_batch(workspace, *rows, 50, 0, rates, 8, first, count, statistics)
        return model.gradients.copy(), statistics

    single = [part(shard, 1) for shard in range(8)]
    for count in (2, 4, 8):
        for first in range(0, 8, count):
            found = part(first, count)
            for mine, theirs in zip(found, zip(*single[first : first + count], strict=True), strict=True):
                assert mine.tobytes() == tree(list(theirs)).tobytes()


def test_a_part_reads_its_own_rows_alone(rng):
    X, y = data(rng, 48)
    net = network("norms")
    model = core_of(net).model
    rows, _ = checked(net, X, y, 48, None)
    rows[0][rows[-1][:36]] = np.nan
    workspace = model.borrow(12, training=True, shards=2)
    statistics = np.empty(len(model.buffers), dtype=np.float32)
    rates = core_of(net).rates([0.0]).drawing
    _, _, finite = model.ready().part_of_batch(workspace, *rows, 48, 0, rates, 8, 6, 2, statistics)
    assert finite
    assert np.isfinite(model.gradients).all()
    assert np.isfinite(statistics).all()


def test_one_shard_trains_the_bits_of_none(rng):
    X, y = data(rng, 130)
    for stack in ("plain", "wide", "left out", "drop-connect", "numbers"):
        nets = [network(stack), network(stack)]
        nets[0].fit(X, y, epochs=2, batch_size=50, verbose=0)
        nets[1].fit(X, y, epochs=2, batch_size=50, verbose=0, parallel=DataParallel(shards=1))
        assert digest(nets[0]) == digest(nets[1]), stack


def test_steps_without_shards_are_what_they_were_after_steps_with_them(rng):
    X, y = data(rng, 130)
    first, second = network("norms"), network("norms")
    for net in (first, second):
        net.fit(X, y, epochs=1, batch_size=50, verbose=0)
        net.fit(X, y, epochs=1, batch_size=50, verbose=0, parallel=DataParallel())
    train_parts(second, X, y, 50, 4)
    train_whole(first, X, y, 50)
    for net in (first, second):
        net.fit(X, y, epochs=1, batch_size=50, verbose=0)
    assert digest(first) == digest(second)


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import cydrop as cd, numpy as np
from digests import HE, digest
rng = np.random.default_rng(0)
X, y = rng.standard_normal((700, 90)).astype("f"), rng.integers(0, 10, 700)
X[:, -2:] = rng.integers(0, 40, (700, 2))
whole = [cd.Dense(300, activation="relu", **HE), cd.Dropout(0.5), cd.Dense(200, max_norm=0.8, **HE), cd.ReLU()]
mixed = [
    cd.NumericEmbedding("pbld", columns=20), cd.Embedding([40, 50], 7), cd.Dense(150, **HE), cd.BatchNorm(), cd.ReLU(),
    cd.Dropout(0.5, shared="batch"), cd.Dense(130, activation="selu", **HE), cd.LayerNorm(), cd.Parametric("mish"),
    cd.Dense(120, drop_connect=0.3, **HE), cd.GaussianDropout(0.2), cd.Residual([cd.Dense(120), cd.Dropout(0.2)], 0.2),
]
loss = cd.losses.CrossEntropy(label_smoothing=0.05, r_drop=0.5)
for n_threads in (1, 2, 3):
    parallel = cd.distributed.DataParallel(shards=8)
    for layers, options in ((whole, {{}}), (mixed, {{"loss": loss, "optimizer": cd.AdamW(1e-3, clip_norm=0.5)}})):
        net = cd.Network([*layers, cd.Dense(10, **HE)], seed=11, n_threads=n_threads, **options)
        net.fit(X, y, epochs=3, batch_size=128, verbose=0, parallel=parallel)
        print(digest(net))
"""

# A change here is a change of the results of everybody who trains in shards: see GOLDEN in test_same_bits.py.
GOLDEN = {
    True: [
        "43e4fd6359102564edda7fcfb0a6f4968e63c8d59394790147318defacf91f5e",
        "d981870f5e4ecd003353517311d1bdf5b923dc4a934ad1940cf992d978c81b62",
    ],
    False: [
        "1a5a6a7411352be7e79d117d20ed852aa678e5771595cf2700519d4810b33e74",
        "d2a77d800b0b52791acbba87eb5f47f42b84718123467ac9498eaf6231787a7a",
    ],
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_training_in_shards_has_its_golden_bits_on_1_2_and_3_threads(simd):
    assert run(simd, SCRIPT).stdout.split() == 3 * GOLDEN[fused(simd)]


# The argument -----------------------------------------------------------------------------------------------


def test_metrics_and_history_are_those_of_all_rows(rng):
    X, y = data(rng, 130)
    nets = [network("plain"), network("plain")]
    for net, parallel in zip(nets, (None, DataParallel()), strict=True):
        net.fit(X, y, epochs=3, batch_size=50, verbose=0, validation_split=0.2, clean_metrics=True, parallel=parallel)
    ours, theirs = (net.history.metrics for net in nets)
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"seconds"}:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, err_msg=name)


def test_a_divergence_puts_everything_back(rng):
    X, y = data(rng, 130)
    net = network("norms", optimizer=cd.SGD(0.05, momentum=0.9))
    net.fit(X, y, epochs=1, batch_size=50, verbose=0, parallel=DataParallel())
    weights = core_of(net).model.weights.copy()
    net.optimizer = net.optimizer.with_learning_rate(1e30)
    with pytest.raises(cd.DivergedError):
        net.fit(X, y, epochs=3, batch_size=50, verbose=0, parallel=DataParallel())
    for now, then in zip(core_of(net).model.weights, weights, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: DataParallel(shards=6), ValueError, "shards must be a power of two, got 6"),
        (lambda: DataParallel(shards=0), ValueError, "shards must be at least 1, got 0"),
        (lambda: DataParallel(shards=512), ValueError, "shards must be at most 256, got 512"),
        (lambda: DataParallel(shards=2.0), TypeError, "shards must be an integer, got 2.0"),
        (lambda: DataParallel(data="mine"), ValueError, "data='mine' is not known"),
    ],
)
def test_what_data_parallel_does_not_take(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_it_is_shown_and_compared_by_its_options():
    assert repr(DataParallel()) == "DataParallel(comm=None, shards=8, data='replicated')"
    assert DataParallel(shards=4) == DataParallel(shards=4) != DataParallel()
    with pytest.raises(AttributeError, match="cannot be changed"):
        DataParallel().shards = 4


def test_fit_refuses_anything_else_as_parallel_and_changes_nothing(rng):
    X, y = data(rng, 50)
    net = network("plain")
    before = digest(net)
    with pytest.raises(TypeError, match=r"parallel must be a cydrop\.distributed\.DataParallel or None, got 8"):
        net.fit(X, y, parallel=8)
    assert digest(net) == before
    assert len(net.history) == 0


def test_the_engine_refuses_parts_that_are_none(rng):
    X, y = data(rng, 50)
    net = network("norms")
    model = core_of(net).model
    engine, rows = model.ready(), checked(net, X, y, 20, None)[0]
    statistics, rates = np.empty(len(model.buffers), dtype=np.float32), core_of(net).rates([0.0]).drawing

    def part(first, count, shards=8, batch=0, own=8, capacity=20, statistics=statistics):
        workspace = Workspace(engine, capacity, True, False, own)
        engine.part_of_batch(workspace, *rows, 20, batch, rates, shards, first, count, statistics)

    for first, count, shards in [
        (0, 3, 8),
        (2, 4, 8),
        (8, 1, 8),
        (-1, 1, 8),
        (0, 8, 4),
        (0, 2, 6),
        (0, 0, 8),
        (0, -2, 8),
    ]:
        with pytest.raises(ValueError, match="are no subtree of"):
            part(first, count, shards)
    with pytest.raises(ValueError, match="room for 2 shards and 20 rows, got 4"):
        part(0, 4, own=2)
    with pytest.raises(ValueError, match="room for 8 shards and 7 rows, got 8 and 20"):
        part(0, 8, capacity=7)
    for batch in (-1, 3, sys.maxsize):
        with pytest.raises(ValueError, match="no such batch"):
            part(0, 8, batch=batch)
    with pytest.raises(ValueError, match="statistics must have"):
        part(0, 8, statistics=statistics[1:])
    size, none = len(model.parameters), np.empty(0)
    for start, n, squares in [(1, 5, none), (-SPAN, 5, none), (0, size + 1, none), (0, 5, np.empty(2))]:
        with pytest.raises(ValueError, match="no slice of"):
            engine.add_parts(np.zeros((2, n), dtype=np.float32), start, squares)
    for start, stop, squares in [(-1, 5, none), (6, 5, none), (0, size + 1, none), (0, 5, np.empty(1))]:
        with pytest.raises(ValueError, match="no slice of"):
            engine.update_part(start, stop, 0.1, 0.0, squares)
    with pytest.raises(ValueError, match="statistics must have"):
        engine.end_batch(np.zeros((2, 1), dtype=np.float32), 20, 8)


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore:max_iter=3 epochs ended")
def test_estimators_take_it_too(rng):
    from cydrop.sklearn import MLPClassifier
    from cydrop.tabular import RealMLPRegressor

    X, y = data(rng, 300)
    found = [
        MLPClassifier((30,), max_iter=3, batch_size=32, dropout=0.2, random_state=0).fit(X, y, parallel=parallel)
        for parallel in (None, DataParallel(), DataParallel())
    ]
    ordinary, *sharded = (model.coefs_[0].tobytes() for model in found)
    assert sharded[0] == sharded[1] != ordinary
    with pytest.raises(TypeError, match="parallel must be"):
        found[0].fit(X, y, parallel=True)
    with pytest.raises(ValueError, match="has no epochs"):
        MLPClassifier(solver="lbfgs").fit(X, y, parallel=DataParallel())
    found = [
        RealMLPRegressor(max_iter=2, n_ensemble=1, random_state=0).fit(X, X[:, 0], parallel=parallel).predict(X)
        for parallel in (None, DataParallel(), DataParallel())
    ]
    assert found[1].tobytes() == found[2].tobytes() != found[0].tobytes()
    with pytest.raises(TypeError, match="parallel must be"):
        RealMLPRegressor().fit(X, y, parallel=True)
