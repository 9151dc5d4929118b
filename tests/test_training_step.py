"""Whole training steps against the plain network: the same masks, every optimizer, loss and activation."""

import time

import numpy as np
import pytest
from oracle import assert_same_training
from plain_network import PlainNetwork

import cydrop as cd
from cydrop._run.core import core_of


def data(rng, rows, features, units, loss):
    X = rng.standard_normal((rows, features))
    if loss == "cross_entropy":
        return X, rng.integers(0, units, rows)
    if loss == "binary_cross_entropy":
        return X, rng.integers(0, 2, (rows, units))
    return X, rng.standard_normal((rows, units // 2 if loss == "gaussian_nll" else units))


OPTIMIZERS = [
    cd.SGD(0.1),
    cd.SGD(0.1, momentum=0.9),
    cd.SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
    cd.RMSprop(1e-2),
    cd.RMSprop(1e-2, rho=0.8, epsilon=1e-3, weight_decay=0.01),
    cd.Adagrad(0.05),
    cd.Adagrad(0.05, epsilon=1e-3, weight_decay=0.1),
    cd.Adam(1e-2),
    cd.Adam(1e-2, beta1=0.5, beta2=0.9, epsilon=1e-2, weight_decay=0.1),
    cd.AdamW(1e-2, weight_decay=0.2),
]


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_every_optimizer_moves_the_weights_as_the_plain_network_does(rng, optimizer, clip_norm):
    # RMSprop, Adagrad and Adam divide a gradient by its own size: where it is nearly 0, rounding decides its
    # sign, so that only a looser agreement can hold
    optimizer = type(optimizer)(**(optimizer.options() | {"clip_norm": clip_norm}))
    net = cd.Network(
        [cd.Dropout(0.2), cd.Dense(24), cd.Tanh(), cd.Dropout(0.4), cd.Dense(3)], optimizer=optimizer, seed=1
    )
    X, y = data(rng, 19, 11, 3, "cross_entropy")
    assert_same_training(net, X, y, rtol=2e-5 if isinstance(optimizer, cd.SGD) else 2e-3)


@pytest.mark.parametrize(
    "loss",
    [
        "cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "gaussian_nll",
        cd.losses.CrossEntropy(label_smoothing=0.2), cd.losses.Huber(delta=0.3),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True])
def test_every_loss_trains_as_in_the_plain_network(rng, loss, weighted):
    # a predicted log-variance of random targets runs away at larger steps
    optimizer = cd.SGD(0.01 if loss == "gaussian_nll" else 0.1)
    net = cd.Network([cd.Dense(20), cd.ReLU(), cd.Dropout(0.3), cd.Dense(4)], loss=loss, optimizer=optimizer, seed=2)
    X, y = data(rng, 33, 7, 4, net.loss.name)
    assert_same_training(net, X, y, sample_weight=rng.random(33) * 2 if weighted else None)


@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
@pytest.mark.parametrize(
    "activation",
    [
        None, cd.ReLU(), cd.LeakyReLU(0.1), cd.ELU(0.7), cd.SELU(), cd.GELU(), cd.SiLU(), cd.Tanh(), cd.Sigmoid(),
        cd.Softplus(), cd.Mish(),
    ],
    ids=repr,
)  # fmt: skip
def test_every_activation_with_dropout_trains_as_in_the_plain_network(rng, activation, mode):
    net = cd.Network(
        [cd.Dense(37, activation=activation), cd.Dropout(0.3, mode=mode), cd.Dense(2)],
        loss="mse", optimizer=cd.SGD(0.05), seed=3,
    )  # fmt: skip
    X, y = data(rng, 21, 5, 2, "mse")
    assert_same_training(net, X, y)


@pytest.mark.parametrize(
    "layers",
    [
        [cd.Dense(3)],
        [cd.Dropout(0.5), cd.Dense(3)],
        [cd.ReLU(), cd.Dropout(0.1), cd.Dense(3)],
        [cd.Dense(9), cd.Dropout(0.3), cd.ReLU(), cd.Dense(3)],
        [cd.Dense(9), cd.Tanh(), cd.ReLU(), cd.Dropout(0.3), cd.Dropout(0.2), cd.Dense(3)],
        [cd.Dense(9), cd.GELU(), cd.Dropout(0.4, shared="batch"), cd.Dense(3)],
        [cd.Dense(9, bias=False), cd.ReLU(), cd.Dense(3, bias=False)],
        [cd.Dense(9, max_norm=0.8), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3, max_norm=0.5)],
        [cd.Dense(9), cd.ReLU(), cd.Dense(3), cd.Sigmoid(), cd.Dropout(0.2)],
        [cd.Dense(300), cd.ReLU(), cd.Dropout(0.5), cd.Dense(290), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3)],
        [cd.Dense(9), cd.ReLU(), cd.Dropout(0.0), cd.Dense(3)],
        [cd.Dense(9), cd.ReLU(), cd.Dropout(1.0), cd.Dense(3)],
        [cd.Dense(9), cd.Tanh(), cd.Dropout(1.0, mode="vanilla"), cd.Dense(3)],
    ],
    ids=str,
)
def test_layers_in_any_order_train_as_in_the_plain_network(rng, layers):
    net = cd.Network(layers, optimizer=cd.SGD(0.1, momentum=0.5), seed=4)
    X, y = data(rng, 40, 13, 3, "cross_entropy")
    assert_same_training(net, X, y)


@pytest.mark.parametrize("rows", [1, 2, 11, 12, 13, 129])
@pytest.mark.parametrize("width", [1, 15, 31, 33, 64, 130])
def test_batches_and_widths_of_any_size_train_as_in_the_plain_network(rng, rows, width):
    net = cd.Network(
        [cd.Dense(width), cd.ReLU(), cd.Dropout(0.3), cd.Dense(width), cd.SiLU(), cd.Dense(2)],
        optimizer=cd.SGD(0.1), seed=5,
    )  # fmt: skip
    X, y = data(rng, rows, 17, 2, "cross_entropy")
    assert_same_training(net, X, y, steps=3)


@pytest.mark.parametrize("clip_norm", [None, 0.3])
def test_a_loop_by_hand_gives_the_same_bits_as_train_on_batch(rng, clip_norm):
    def make():
        layers = [cd.Dropout(0.2), cd.Dense(40), cd.GELU(), cd.Dropout(0.5), cd.Dense(33), cd.ReLU(), cd.Dropout(0.5),
                  cd.Dense(4)]  # fmt: skip
        return cd.Network(layers, optimizer=cd.Adam(1e-2, clip_norm=clip_norm, weight_decay=0.1), seed=6)

    fitted, by_hand = make(), make()
    X, y = data(rng, 50, 10, 4, "cross_entropy")
    for _ in range(5):
        fitted.train_on_batch(X, y)
        z = by_hand.forward(X, training=True)
        _, grad = cd.functional.cross_entropy(z, y, return_grad=True)
        by_hand.backward(grad)
        by_hand.step()
    for name, array in fitted.parameters().items():
        np.testing.assert_array_equal(array, by_hand.parameters()[name])


# Rows and widths around the tiles (12 or 6 rows, 32 or 16 columns), the strips of eight panels, the blocks of depth
# (256), the rows of a strip whose panels would not fit (2,100), and products that are shared among threads.
WIDE = [(7, 61, (700,)), (25, 33, (257, 255)), (128, 300, (90, 130)), (300, 40, (601, 299)), (2100, 17, (1100, 40))]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("rows", "features", "widths"), WIDE)
@pytest.mark.parametrize(
    "optimizer",
    [cd.Adam(1e-2), cd.AdamW(1e-2), cd.SGD(0.1), cd.SGD(0.1, momentum=0.9, nesterov=True), cd.RMSprop(1e-3),
     cd.Adagrad(1e-2, weight_decay=0.1)], ids=repr,
)  # fmt: skip
def test_the_optimizer_inside_the_product_gives_the_same_bits_as_after_it(
    rng, optimizer, rows, features, widths, n_threads
):
    """A large network's gradients go to the optimizer tile by tile; a loop by hand writes them first."""

    def make():
        layers = [layer for width in widths for layer in (cd.Dense(width), cd.ReLU(), cd.Dropout(0.4))]
        return cd.Network([*layers, cd.Dense(9)], optimizer=optimizer, seed=6, n_threads=n_threads).build(features)

    fused, by_hand = make(), make()
    assert sum(array.size for array in fused.parameters().values()) > 32768
    X, y = data(rng, rows, features, 9, "cross_entropy")
    for _ in range(2):
        fused.train_on_batch(X, y)
        z = by_hand.forward(X, training=True)
        by_hand.backward(cd.functional.cross_entropy(z, y, return_grad=True)[1])
        by_hand.step()
    for name, array in fused.parameters().items():
        np.testing.assert_array_equal(array, by_hand.parameters()[name])
    assert not any(array.any() for array in fused.gradients().values())  # never written


@pytest.mark.parametrize(("rows", "features", "widths"), WIDE[:4])
def test_wide_networks_train_as_in_the_plain_network(rng, rows, features, widths):
    layers = [layer for width in widths for layer in (cd.Dense(width), cd.ReLU(), cd.Dropout(0.4))]
    net = cd.Network([*layers, cd.Dense(9)], optimizer=cd.SGD(0.1), seed=6)
    X, y = data(rng, rows, features, 9, "cross_entropy")
    assert_same_training(net, X, y, steps=3)


def test_the_clock_of_a_workspace_tells_where_the_time_of_training_went(rng):
    X, y = data(rng, 64, 20, 3, "cross_entropy")
    net = cd.Network([cd.Dense(300), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3)], seed=1).build(20)
    workspace = core_of(net).model.borrow(32, training=True)
    with pytest.raises(RuntimeError, match="not started"):
        workspace.seconds()
    workspace.start_clock()
    core_of(net).model.give_back(workspace)
    start = time.perf_counter()
    net.fit(X, y, epochs=3, batch_size=32, verbose=0)
    passed = time.perf_counter() - start
    common, operations = workspace.seconds()
    assert set(common) == {"load", "masks", "loss", "update"}
    assert all(seconds > 0 for seconds in common.values())
    (forward, to_input, to_weights), *_, last = operations
    assert forward > 0
    assert to_input == 0  # nobody asks for the gradient of the data
    assert to_weights > 0
    assert all(seconds > 0 for seconds in last)
    assert sum(common.values()) + sum(map(sum, operations)) < passed


def test_fit_gives_the_same_bits_as_its_batches_one_by_one(rng):
    X, y = data(rng, 50, 10, 3, "cross_entropy")
    nets = [cd.Network([cd.Dense(20), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3)], seed=7) for _ in range(3)]
    nets[0].fit(X, y, epochs=2, batch_size=16, shuffle=False)
    for _ in range(2):
        nets[1].partial_fit(X, y, batch_size=16)
        for start in range(0, 50, 16):
            nets[2].train_on_batch(X[start : start + 16], y[start : start + 16])
    for name, array in nets[0].parameters().items():
        np.testing.assert_array_equal(array, nets[1].parameters()[name])
        np.testing.assert_array_equal(array, nets[2].parameters()[name])


def test_backward_returns_the_gradient_of_the_loss_with_respect_to_the_input_and_the_weights(rng):
    """Central differences through cydrop itself, with the masks held."""
    net = cd.Network([cd.Dense(12), cd.Tanh(), cd.Dropout(0.4), cd.Dense(3)], seed=8)
    X, y = data(rng, 9, 6, 3, "cross_entropy")
    X = X.astype(np.float32)
    z = net.forward(X, training=True)
    masks = net.masks()
    _, grad = cd.functional.cross_entropy(z, y, return_grad=True)
    dx = net.backward(grad)
    gradients = {name: array.copy() for name, array in net.gradients().items()}
    plain = PlainNetwork(net)

    def loss():
        return plain.loss_of(plain.forward(X64, masks), y)[0]

    X64, h = X.astype(np.float64), 1e-6
    for array, gradient in [(X64, dx), *((plain.parameters[name], gradients[name]) for name in gradients)]:
        for place in [(0,) * array.ndim, tuple(n - 1 for n in array.shape), tuple(n // 2 for n in array.shape)]:
            value = array[place]
            array[place] = value + h
            above = loss()
            array[place] = value - h
            below = loss()
            array[place] = value
            assert gradient[place] == pytest.approx((above - below) / (2 * h), rel=1e-3, abs=1e-6)
