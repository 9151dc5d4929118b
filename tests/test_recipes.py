"""The recipes that people come from: what the usual teaching implementations of dropout compute.

They are written down here in plain NumPy, in float64. Most of them speak of the probability to KEEP a unit,
cydrop always of the rate, the probability to DROP it: rate = 1 - keep. Given the same mask, cydrop computes
the same numbers.
"""

import itertools

import numpy as np
import pytest

import cydrop as cd
from cydrop import functional

KEEPS = [0.5, 0.8, 0.3, 1.0]
ROUNDING = {"rtol": 4e-7, "atol": 1e-7}  # of float32


@pytest.fixture
def batch(rng):
    """Activations and the gradient that comes back to them."""
    return rng.normal(size=(6, 9)), rng.normal(size=(6, 9))


def network_of_one(keep, mode="inverted"):
    """A dropout layer as a network, which takes the mask from outside."""
    return cd.Network([cd.Dropout(1 - keep, mode=mode)], loss="mse", seed=0)


# (a) A layer class that scales while it trains -----------------------------------------------------------


class ScalingLayer:
    """Keeps with probability p and divides by p at once, so that prediction needs no dropout at all."""

    def __init__(self, p, seed):
        self.p = p
        self.rng = np.random.default_rng(seed)

    def forward(self, x):
        self.mask = self.rng.random(x.shape) < self.p
        return x * self.mask / self.p

    def backward(self, grad):
        return grad * self.mask / self.p


@pytest.mark.parametrize("keep", KEEPS)
def test_a_layer_that_divides_by_keep_is_inverted_dropout_as_a_function(batch, keep):
    x, grad = batch
    layer = ScalingLayer(keep, seed=1)
    y, dx = layer.forward(x), layer.backward(grad)
    np.testing.assert_allclose(functional.dropout(x, 1 - keep, mask=layer.mask), y, **ROUNDING)
    np.testing.assert_allclose(functional.dropout_backward(grad, layer.mask, 1 - keep), dx, **ROUNDING)


@pytest.mark.parametrize("keep", KEEPS)
def test_a_layer_that_divides_by_keep_is_a_dropout_layer_given_its_mask(batch, keep):
    x, grad = batch
    layer = ScalingLayer(keep, seed=1)
    y, dx = layer.forward(x), layer.backward(grad)
    net = network_of_one(keep)
    np.testing.assert_allclose(net.forward(x, training=True, masks=[layer.mask]), y, **ROUNDING)
    np.testing.assert_allclose(net.backward(grad), dx, **ROUNDING)
    np.testing.assert_array_equal(net.masks()[0], layer.mask)


@pytest.mark.parametrize("keep", KEEPS)
def test_a_dropout_layer_alone_computes_the_same_with_the_mask_that_it_drew(batch, keep):
    x, grad = batch
    layer = cd.Dropout(1 - keep, seed=3)
    y, dx = layer.forward(x), layer.backward(grad)
    np.testing.assert_allclose(y, x * layer.mask / keep, **ROUNDING)
    np.testing.assert_allclose(dx, grad * layer.mask / keep, **ROUNDING)


def test_at_one_half_the_numbers_are_equal_to_the_last_bit(batch):
    """Division by 0.5 is exact, so float32 in gives exactly twice the kept values."""
    x, grad = (array.astype(np.float32) for array in batch)
    layer = ScalingLayer(0.5, seed=1)
    y, dx = layer.forward(x), layer.backward(grad)
    np.testing.assert_array_equal(functional.dropout(x, 0.5, mask=layer.mask), y)
    np.testing.assert_array_equal(functional.dropout_backward(grad, layer.mask, 0.5), dx)
    net = network_of_one(0.5)
    np.testing.assert_array_equal(net.forward(x, training=True, masks=[layer.mask]), y)
    np.testing.assert_array_equal(net.backward(grad), dx)


# (b) A pair of functions with a train and a test mode ----------------------------------------------------


def course_dropout_forward(x, options):
    """The exercise of a course: options holds p (keep), the mode and perhaps a seed; the mask is a float
    array that contains the scale already."""
    mask = None
    if options["mode"] == "train":
        rng = np.random.default_rng(options.get("seed"))
        mask = (rng.random(x.shape) < options["p"]) / options["p"]
        out = x * mask
    elif options["mode"] == "test":
        out = x
    return out, (options, mask)


def course_dropout_backward(dout, cache):
    options, mask = cache
    return dout * mask if options["mode"] == "train" else dout


@pytest.mark.parametrize("keep", KEEPS)
def test_the_train_mode_of_the_course_is_training_with_its_mask(batch, keep):
    x, grad = batch
    out, cache = course_dropout_forward(x, {"p": keep, "mode": "train", "seed": 123})
    dx = course_dropout_backward(grad, cache)
    mask = cache[1] > 0  # without the scale
    np.testing.assert_allclose(functional.dropout(x, 1 - keep, mask=mask), out, **ROUNDING)
    np.testing.assert_allclose(functional.dropout_backward(grad, mask, 1 - keep), dx, **ROUNDING)
    net = network_of_one(keep)
    np.testing.assert_allclose(net.forward(x, training=True, masks=[mask]), out, **ROUNDING)
    np.testing.assert_allclose(net.backward(grad), dx, **ROUNDING)


@pytest.mark.parametrize("keep", KEEPS)
def test_the_test_mode_of_the_course_is_prediction_and_changes_nothing(batch, keep):
    x, grad = batch
    out, cache = course_dropout_forward(x, {"p": keep, "mode": "test"})
    dx = course_dropout_backward(grad, cache)
    y, mask = functional.dropout(x, 1 - keep, training=False, return_mask=True)
    np.testing.assert_array_equal(y, np.float32(out))
    np.testing.assert_array_equal(network_of_one(keep).forward(x), np.float32(out))
    assert mask.all()
    np.testing.assert_array_equal(functional.dropout_backward(grad, mask, 0.0), np.float32(dx))


def test_the_experiment_of_the_course_has_the_same_answers():
    """Its check: an input around 10 keeps its mean whatever p is, and a share of 1 - p becomes zero in
    training, none in the test."""
    x = np.random.default_rng(231).normal(10.0, 1.0, size=(500, 500))
    for keep in (0.25, 0.4, 0.7):
        y = functional.dropout(x, 1 - keep, seed=231)
        assert y.mean() == pytest.approx(10.0, abs=0.1)
        assert (y == 0).mean() == pytest.approx(1 - keep, abs=0.005)
        assert (functional.dropout(x, 1 - keep, training=False) == 0).mean() == 0


def test_the_same_seed_gives_the_same_mask_as_in_the_course(batch):
    """The exercise seeds so that a numerical gradient can be compared. That works here too."""
    x, grad = np.float32(batch[0]), batch[1]
    y, mask = functional.dropout(x, 0.2, seed=123, return_mask=True)
    dx = functional.dropout_backward(grad, mask, 0.2)
    step = np.float32(0.25)  # dropout is linear: the step may be large
    for place in np.ndindex(x.shape):
        moved = x.copy()
        moved[place] += step
        change = functional.dropout(moved, 0.2, seed=123).astype(float) - y
        assert (change * grad).sum() / step == pytest.approx(dx[place], abs=1e-4)


# (c) The vanilla variant, which scales at prediction -----------------------------------------------------


def vanilla_train(x, mask):
    """Nothing but the mask."""
    return x * mask


def vanilla_predict(x, keep):
    """A unit that was there in a share of keep of the steps counts as much as it did on average."""
    return x * keep


@pytest.mark.parametrize("keep", KEEPS)
def test_vanilla_dropout_only_masks_in_training(batch, rng, keep):
    x, grad = batch
    mask = rng.random(x.shape) < keep
    given = {"mode": "vanilla", "mask": mask}
    np.testing.assert_array_equal(functional.dropout(x, 1 - keep, **given), np.float32(vanilla_train(x, mask)))
    dx = functional.dropout_backward(grad, mask, 1 - keep, mode="vanilla")
    np.testing.assert_array_equal(dx, np.float32(grad * mask))
    net = network_of_one(keep, "vanilla")
    np.testing.assert_array_equal(net.forward(x, training=True, masks=[mask]), np.float32(vanilla_train(x, mask)))
    np.testing.assert_array_equal(net.backward(grad), np.float32(grad * mask))


@pytest.mark.parametrize("keep", KEEPS)
def test_vanilla_dropout_multiplies_by_keep_in_prediction(batch, keep):
    x, _ = batch
    expected = vanilla_predict(x, keep)
    y = functional.dropout(x, 1 - keep, mode="vanilla", training=False)
    np.testing.assert_allclose(y, expected, **ROUNDING)
    np.testing.assert_allclose(network_of_one(keep, "vanilla").forward(x), expected, **ROUNDING)
    np.testing.assert_allclose(network_of_one(keep, "vanilla").predict(x), expected, **ROUNDING)
    alone = cd.Dropout(1 - keep, mode="vanilla").forward(x, training=False)
    np.testing.assert_allclose(alone, expected, **ROUNDING)


def three_layers(x, parameters, masks, scales):
    """The three-layer network of the lectures: a dropped and scaled hidden layer twice, then the scores."""
    w1, b1, w2, b2, w3, b3 = parameters
    h1 = np.maximum(0, x @ w1 + b1) * masks[0] * scales[0]
    h2 = np.maximum(0, h1 @ w2 + b2) * masks[1] * scales[1]
    return h1, h2, h2 @ w3 + b3


def three_layers_backward(x, h1, h2, parameters, masks, scales, grad):
    """By the chain rule; where a hidden unit is zero, it was dropped or flat."""
    _, _, w2, _, w3, _ = parameters
    d2 = grad @ w3.T * masks[1] * scales[1] * (h2 > 0)
    d1 = d2 @ w2.T * masks[0] * scales[0] * (h1 > 0)
    gradients = [x.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ grad, grad.sum(0)]
    return gradients, d1 @ parameters[0].T


@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
@pytest.mark.parametrize("keep", KEEPS)
def test_the_three_layer_network_of_the_lectures_is_a_network_here(rng, mode, keep):
    sizes = 7, 11, 8, 3
    parameters = []
    for n_in, n_out in itertools.pairwise(sizes):
        parameters += [rng.normal(size=(n_in, n_out)), rng.normal(size=n_out)]
    x, grad = rng.normal(size=(5, 7)), rng.normal(size=(5, 3))
    masks = [rng.random((5, n)) < keep for n in sizes[1:3]]
    net = cd.Network(
        [
            cd.Dense(11, activation="relu"),
            cd.Dropout(1 - keep, mode=mode),
            cd.Dense(8, activation="relu"),
            cd.Dropout(1 - keep, mode=mode),
            cd.Dense(3),
        ]
    ).build(7)
    for view, value in zip(net.parameters().values(), parameters, strict=True):
        view[...] = value

    in_training = (1 / keep,) * 2 if mode == "inverted" else (1.0, 1.0)
    h1, h2, scores = three_layers(x, parameters, masks, in_training)
    gradients, dx = three_layers_backward(x, h1, h2, parameters, masks, in_training, grad)
    close = {"rtol": 1e-5, "atol": 1e-4}
    np.testing.assert_allclose(net.forward(x, training=True, masks=masks), scores, **close)
    np.testing.assert_allclose(net.backward(grad), dx, **close)
    for view, value in zip(net.gradients().values(), gradients, strict=True):
        np.testing.assert_allclose(view, value, **close)

    in_prediction = (1.0, 1.0) if mode == "inverted" else (keep, keep)
    *_, scores = three_layers(x, parameters, (1, 1), in_prediction)
    np.testing.assert_allclose(net.forward(x), scores, **close)


# (d) A ReLU network by hand: masks given, biases never dropped -------------------------------------------
#
#    x = (1, 1)   input mask (1, 0)   hidden mask (1, 0, 1)   rates 0.5 and 0.5
#
#    w1 = 1  2 -1     b1 = 1  1  3     w2 = 1  2     b2 = 5  -1
#         3 -4  2                          7  7
#                                         -1  3

W1 = [[1, 2, -1], [3, -4, 2]]
B1 = [1, 1, 3]
W2 = [[1, 2], [7, 7], [-1, 3]]
B2 = [5, -1]
X = [[1, 1]]
MASKS = [[[True, False]], [[True, False, True]]]


def network_by_hand(mode):
    net = cd.Network(
        [
            cd.Dropout(0.5, mode=mode),
            cd.Dense(3),
            cd.ReLU(),
            cd.Dropout(0.5, mode=mode),
            cd.Dense(2),
        ],
        loss="mse",
        optimizer=cd.SGD(0.5),
    ).build(2)
    parameters = net.parameters()
    assert list(parameters) == ["1.weight", "1.bias", "4.weight", "4.bias"]
    for view, value in zip(parameters.values(), (W1, B1, W2, B2), strict=True):
        view[...] = value
    return net


def test_prediction_by_hand_for_the_input_1_1():
    """Inverted: hidden = relu(1+3+1, 2-4+1, -1+2+3) = (5, 0, 4), out = (5-4+5, 10+12-1)."""
    np.testing.assert_array_equal(network_by_hand("inverted").forward(X), [[6, 21]])
    np.testing.assert_array_equal(network_by_hand("inverted").predict(X), [[6, 21]])


def test_vanilla_prediction_by_hand_for_the_input_1_1():
    """Vanilla: the input counts half, the biases wholly: hidden = relu(2+1, -1+1, 0.5+3) = (3, 0, 3.5),
    which counts half again: out = (1.5-1.75+5, 3+5.25-1)."""
    np.testing.assert_array_equal(network_by_hand("vanilla").forward(X), [[4.75, 7.25]])
    np.testing.assert_array_equal(network_by_hand("vanilla").predict(X), [[4.75, 7.25]])


def test_training_by_hand_with_given_masks():
    """Inverted: the input is (2, 0), hidden = relu(2+1, 4+1, -2+3) = (3, 5, 1), kept and doubled (6, 0, 2),
    out = (6-2+5, 12+6-1)."""
    net = network_by_hand("inverted")
    np.testing.assert_array_equal(net.forward(X, training=True, masks=MASKS), [[9, 17]])


def test_vanilla_training_by_hand_with_given_masks():
    """Vanilla: the input is (1, 0), hidden = relu(1+1, 2+1, -1+3) = (2, 3, 2), kept (2, 0, 2),
    out = (2-2+5, 4+6-1)."""
    net = network_by_hand("vanilla")
    np.testing.assert_array_equal(net.forward(X, training=True, masks=MASKS), [[5, 9]])


def test_biases_are_never_dropped():
    """Without any input the hidden layer is relu(b1); with nothing kept of that either, the output is b2."""
    for mode in ("inverted", "vanilla"):
        net = network_by_hand(mode)
        nothing = [np.zeros((1, 2), dtype=bool), np.zeros((1, 3), dtype=bool)]
        np.testing.assert_array_equal(net.forward(X, training=True, masks=nothing), [B2])
        no_input = [np.zeros((1, 2), dtype=bool), np.ones((1, 3), dtype=bool)]
        scale = 2 if mode == "inverted" else 1
        expected = scale * np.array(B1) @ np.array(W2) + B2
        np.testing.assert_array_equal(net.forward(X, training=True, masks=no_input), [expected])


def test_gradients_by_hand_with_given_masks():
    """Inverted, for d loss / d out = (1, 1). Behind the hidden units: w2 (1, 1) = (3, 14, 2), masked and
    doubled (6, 0, 4), and relu was open. At the input: w1 (6, 0, 4) = (6-4, 18+8), masked and doubled (4,
    0)."""
    net = network_by_hand("inverted")
    net.forward(X, training=True, masks=MASKS)
    np.testing.assert_array_equal(net.backward([[1, 1]]), [[4, 0]])
    gradients = net.gradients()
    np.testing.assert_array_equal(gradients["4.bias"], [1, 1])
    np.testing.assert_array_equal(gradients["4.weight"], [[6, 6], [0, 0], [2, 2]])
    np.testing.assert_array_equal(gradients["1.bias"], [6, 0, 4])
    np.testing.assert_array_equal(gradients["1.weight"], [[12, 0, 8], [0, 0, 0]])


def test_vanilla_gradients_by_hand_with_given_masks():
    """Vanilla, for d loss / d out = (1, 1): hidden (3, 0, 2), input (3-2, 0)."""
    net = network_by_hand("vanilla")
    net.forward(X, training=True, masks=MASKS)
    np.testing.assert_array_equal(net.backward([[1, 1]]), [[1, 0]])
    gradients = net.gradients()
    np.testing.assert_array_equal(gradients["4.bias"], [1, 1])
    np.testing.assert_array_equal(gradients["4.weight"], [[2, 2], [0, 0], [2, 2]])
    np.testing.assert_array_equal(gradients["1.bias"], [3, 0, 2])
    np.testing.assert_array_equal(gradients["1.weight"], [[3, 0, 2], [0, 0, 0]])


def test_a_step_by_hand_moves_only_what_was_kept():
    """Descent at the rate 0.5 from the gradients above; dropped units keep their weights, in and out."""
    net = network_by_hand("inverted")
    net.forward(X, training=True, masks=MASKS)
    net.backward([[1, 1]])
    net.step()
    parameters = net.parameters()
    np.testing.assert_array_equal(parameters["1.weight"], [[1 - 6, 2, -1 - 4], [3, -4, 2]])
    np.testing.assert_array_equal(parameters["1.bias"], [1 - 3, 1, 3 - 2])
    np.testing.assert_array_equal(parameters["4.weight"], [[1 - 3, 2 - 3], [7, 7], [-1 - 1, 3 - 1]])
    np.testing.assert_array_equal(parameters["4.bias"], [5 - 0.5, -1 - 0.5])


@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
def test_the_network_by_hand_is_the_functions_one_after_the_other(mode):
    masks = [np.array(mask) for mask in MASKS]
    x = functional.dropout(X, 0.5, mode=mode, mask=masks[0])
    hidden = functional.relu(functional.dense(x, W1, B1))
    kept = functional.dropout(hidden, 0.5, mode=mode, mask=masks[1])
    net = network_by_hand(mode)
    np.testing.assert_array_equal(net.forward(X, training=True, masks=masks), functional.dense(kept, W2, B2))
    grad, dw2, db2 = functional.dense_backward([[1, 1]], kept, W2)
    grad = functional.relu_backward(functional.dropout_backward(grad, masks[1], 0.5, mode), hidden)
    grad, dw1, db1 = functional.dense_backward(grad, x, W1)
    dx = functional.dropout_backward(grad, masks[0], 0.5, mode)
    np.testing.assert_array_equal(net.backward([[1, 1]]), dx)
    for view, value in zip(net.gradients().values(), (dw1, db1, dw2, db2), strict=True):
        np.testing.assert_array_equal(view, value)
