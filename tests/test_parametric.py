"""Scale and Parametric: against their twins, in whole networks, with dropout, files, threads."""

import numpy as np
import pytest
from digests import digest
from onnx_session import session
from oracle import assert_same_training
from plain_network import PlainNetwork

import cydrop as cd
from cydrop import functional, reference
from cydrop._run.core import core_of

NAMES = [cls.kernel for cls in cd.layers.activations.LAYERS]
SHAPES = [(1, 1), (1, 7), (5, 1), (16, 15), (17, 16), (33, 65), (40, 257), (300, 70)]


def close(found, expected, rows=1):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * (1 + np.abs(expected).max()) * rows**0.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_scale_is_its_twin(shape, rng):
    x, dy = rng.standard_normal((2, *shape))
    weight = rng.standard_normal(shape[1])
    close(functional.scale(x, weight), reference.scale(x, weight))
    for found, expected in zip(
        functional.scale_backward(dy, x, weight), reference.scale_backward(dy, x, weight), strict=True
    ):
        close(found, expected, shape[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_parametric_is_its_twin(name, shape, rng):
    x, dy = rng.standard_normal((2, *shape)) * 3
    alpha = rng.standard_normal(shape[1])
    y = functional.parametric(x, alpha, name)
    close(y, reference.parametric(x, alpha, name))
    fast = functional.parametric_backward(dy, x, alpha, name)
    for found, expected in zip(fast, reference.parametric_backward(dy, x, alpha, name), strict=True):
        close(found, expected, shape[0])
    for n_threads in (2, 3):
        assert functional.parametric(x, alpha, name, n_threads=n_threads).tobytes() == y.tobytes()
        again = functional.parametric_backward(dy, x, alpha, name, n_threads=n_threads)
        assert [a.tobytes() for a in again] == [a.tobytes() for a in fast]


@pytest.mark.parametrize(("name", "option"), [("leaky_relu", 0.3), ("elu", 0.4)])
def test_the_option_of_the_activation_is_used(name, option, rng):
    x, dy = rng.standard_normal((2, 20, 30))
    alpha = rng.standard_normal(30)
    close(functional.parametric(x, alpha, name, option), reference.parametric(x, alpha, name, option))
    for found, expected in zip(
        functional.parametric_backward(dy, x, alpha, name, option),
        reference.parametric_backward(dy, x, alpha, name, option),
        strict=True,
    ):
        close(found, expected, 20)


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_s_gradients_are_derivatives(name, rng):
    x, dy, h = rng.standard_normal((7, 5)), rng.standard_normal((7, 5)), 1e-6
    alpha = rng.standard_normal(5)
    dx, dalpha = reference.parametric_backward(dy, x, alpha, name)

    def y(x, alpha):
        return reference.parametric(x, alpha, name)

    np.testing.assert_allclose(dx, dy * (y(x + h, alpha) - y(x - h, alpha)) / (2 * h), atol=1e-7)
    change = (dy * (y(x, alpha + h) - y(x, alpha - h)) / (2 * h)).sum(axis=0)
    np.testing.assert_allclose(dalpha, change, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_alpha_1_is_the_activation_and_alpha_0_the_identity(name, rng):
    x = (rng.standard_normal((9, 40)) * 30).astype(np.float32)
    np.testing.assert_array_equal(functional.parametric(x, np.ones(40), name), getattr(functional, name)(x))
    np.testing.assert_array_equal(functional.parametric(x, np.zeros(40), name), x)


STACKS = {
    "scale first": lambda: [cd.Scale(), cd.Dense(20), cd.ReLU(), cd.Dropout(0.3), cd.Dense(3)],
    "scale and dropout": lambda: [cd.Scale(), cd.Dropout(0.3), cd.Dense(20), cd.Scale(), cd.SELU(), cd.Dense(3)],
    "mish": lambda: [cd.Dense(20), cd.Parametric("mish"), cd.Dropout(0.3), cd.Dense(18), cd.Parametric("mish"),
                     cd.Dropout(0.2), cd.Dense(3)],
    "after an activation": lambda: [cd.Dense(20, activation="tanh"), cd.Dropout(0.2), cd.Parametric("selu"),
                                    cd.Dense(3)],
    "before an activation": lambda: [cd.Dense(20), cd.Parametric(cd.LeakyReLU(0.3)), cd.ELU(0.7), cd.Dropout(0.2),
                                     cd.Dense(3)],
    "before relu": lambda: [cd.Dense(20), cd.Parametric(cd.ELU(0.3)), cd.ReLU(), cd.Dropout(0.2), cd.Dense(3)],
    "vanilla": lambda: [cd.Dense(20), cd.Parametric("silu"), cd.Dropout(0.4, mode="vanilla"), cd.Dense(3)],
    "shared": lambda: [cd.Dense(20), cd.Parametric("gelu"), cd.Dropout(0.4, shared="batch"), cd.Dense(3)],
    "two of them": lambda: [cd.Dense(20), cd.Parametric("selu"), cd.Parametric("tanh"), cd.Scale(),
                            cd.Dropout(0.1), cd.Dense(3)],
    "alone and last": lambda: [cd.Parametric("softplus"), cd.Dense(3), cd.Parametric("mish"), cd.Dropout(0.1)],
}  # fmt: skip


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("optimizer", [cd.SGD(0.1, momentum=0.5), cd.SGD(0.1, clip_norm=0.1)], ids=["fused", "clipped"])
@pytest.mark.parametrize("features", [11, 900], ids=["small", "large"])
def test_training_and_prediction_are_the_plain_networks(stack, optimizer, features, rng):
    X, y = rng.standard_normal((19, features)), rng.integers(0, 3, 19)
    net = cd.Network(stack(), optimizer=optimizer, seed=2).build(features)
    for array in net.parameters().values():
        array += 0.1 * rng.standard_normal(array.shape).astype(np.float32)
    assert_same_training(net, X, y, rtol=1e-4)
    np.testing.assert_allclose(net.forward(X), PlainNetwork(net).forward(X), atol=1e-3)


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_gradients_are_finite_differences_of_the_loss(stack, rng):
    X, y = rng.standard_normal((13, 6)), rng.integers(0, 3, 13)
    net = cd.Network(stack(), optimizer=cd.SGD(0.0), seed=2).build(6)
    z = net.forward(X, training=True)
    p = np.exp(z.astype(float) - z.max(axis=1, keepdims=True).astype(float))
    p /= p.sum(axis=1, keepdims=True)
    net.backward((p - np.eye(3)[y]) / 13)
    masks = net.masks()
    plain = PlainNetwork(net)
    for name, gradient in net.gradients().items():
        array = plain.parameters[name]
        for place in {tuple(rng.integers(0, n) for n in array.shape) for _ in range(4)}:
            before, losses = array[place], []
            for step in (1e-6, -1e-6):
                array[place] = before + step
                losses.append(plain.loss_of(plain.forward(X, masks), y)[0])
            array[place] = before
            assert gradient[place] == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=2e-5), name


def test_dropout_goes_into_the_operation_before_it():
    net = cd.Network(STACKS["mish"](), seed=0).build(4)
    assert [op.kind for op in core_of(net).plan.ops] == ["dense", "parametric", "dense", "parametric", "dense"]


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_with_alpha_1_everything_has_the_bits_of_the_plain_activation(rate, rng):
    X = rng.standard_normal((40, 30)).astype(np.float32)
    after = [cd.Dropout(0.3), cd.Dense(30), cd.Dropout(rate), cd.Dense(3)]
    between = [cd.Parametric("mish"), cd.Mish()]
    nets = [cd.Network([cd.Dense(50), layer, *after], seed=1).build(30) for layer in between]
    assert len({net.predict(X).tobytes() for net in nets}) == 1
    assert len({net.forward(X, training=True).tobytes() for net in nets}) == 1
    assert len({net.predict_mc(X, 7, seed=0, return_samples=True).samples.tobytes() for net in nets}) == 1


def test_a_mask_of_all_rows_drops_the_same_units_where_nothing_may_be_left_out(rng):
    """A large network, in which the dense layer above could do without the dropped units."""
    layers = [cd.Dense(200), cd.Parametric("mish"), cd.Dropout(0.5, shared="batch"), cd.Dense(3)]
    net = cd.Network(layers, optimizer=cd.SGD(0.1), seed=3)
    assert_same_training(net, rng.standard_normal((15, 90)), rng.integers(0, 3, 15), rtol=1e-4)


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_trained_networks_have_the_same_bits_on_any_number_of_threads(stack, rng):
    X, y = rng.standard_normal((700, 90)), rng.integers(0, 3, 700)
    results = set()
    for n_threads in (1, 2, 3):
        layers = [cd.Dense(300) if isinstance(x, cd.Dense) and x.units == 20 else x for x in stack()]
        net = cd.Network(layers, seed=1, n_threads=n_threads)
        net.fit(X, y, epochs=2, verbose=0)
        results.add(digest(net) + str(net.predict(X).tobytes()) + str(net.predict_mc(X, 5, seed=0).mean.tobytes()))
    assert len(results) == 1


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_files_predict_the_same(stack, rng, tmp_path):
    X, y = rng.standard_normal((50, 6)).astype(np.float32), rng.integers(0, 3, 50)
    net = cd.Network(stack(), seed=1)
    net.fit(X, y, epochs=2, batch_size=16, verbose=0)
    net.save(tmp_path / "net")
    loaded = cd.load(tmp_path / "net")
    for one in (net, loaded):
        one.fit(X, y, epochs=2, batch_size=16, verbose=0)
    assert loaded.predict(X).tobytes() == net.predict(X).tobytes()


@pytest.mark.extras
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_onnx_models_predict_the_same(stack, rng):
    X, y = rng.standard_normal((50, 6)).astype(np.float32), rng.integers(0, 3, 50)
    net = cd.Network(stack(), seed=1)
    net.fit(X, y, epochs=2, batch_size=16, verbose=0)
    (found,) = session(cd.onnx.to_model(net)).run(None, {"X": X})
    np.testing.assert_allclose(found, net.predict(X), rtol=1e-4, atol=1e-5)


def test_the_numbers_begin_at_1_and_have_names_of_their_own():
    net = cd.Network([cd.Scale(), cd.Dense(3), cd.Parametric("mish"), cd.Dense(2)], seed=0).build(4)
    assert list(net.parameters()) == ["0.weight", "1.weight", "1.bias", "2.alpha", "3.weight", "3.bias"]
    assert net.parameters()["0.weight"].tolist() == [1, 1, 1, 1]
    assert net.parameters()["2.alpha"].tolist() == [1, 1, 1]


def test_factors_of_learning_rate_and_decay_reach_the_optimizer(rng):
    layers = [
        cd.Scale(learning_rate_factor=6, decay_factor=3), cd.Dense(8),
        cd.Parametric("mish", learning_rate_factor={"alpha": 0.1}, decay_factor=0), cd.Dense(3),
    ]  # fmt: skip
    net = cd.Network(layers, optimizer=cd.AdamW(1e-2, weight_decay=0.1), seed=3)
    assert_same_training(net, rng.standard_normal((15, 5)), rng.integers(0, 3, 15), rtol=1e-4)


def test_wrong_arguments_are_refused_by_name():
    for make, error, message in (
        (lambda: cd.Parametric("swish"), ValueError, "activation='swish' is not known"),
        (lambda: cd.Parametric(None), TypeError, "activation must be"),
        (lambda: cd.Parametric(3), TypeError, "activation must be one of"),
        (lambda: cd.Parametric("relu", decay_factor={"weight": 1}), ValueError, "decay_factor: the parameter='weight'"),
        (lambda: cd.Scale(learning_rate_factor=-1), ValueError, "learning_rate_factor"),
        (lambda: functional.scale(np.ones((2, 3)), np.ones(2)), ValueError, "weight must have shape"),
        (lambda: functional.scale(np.ones(3), np.ones(3)), ValueError, "x must have shape"),
        (lambda: functional.scale_backward(np.ones((2, 2)), np.ones((2, 3)), np.ones(3)), ValueError, "same shape"),
        (lambda: functional.parametric(np.ones((2, 3)), np.ones(2), "relu"), ValueError, "alpha must have shape"),
        (lambda: functional.parametric(np.ones((2, 3)), np.ones(3), "scale"), ValueError, "activation='scale'"),
        (lambda: functional.parametric(np.ones((2, 3)), np.ones(3), "relu", 2), ValueError, "option must be None"),
        (lambda: functional.parametric(np.ones((2, 3)), np.ones(3), "elu", "x"), TypeError, "option"),
        (lambda: functional.parametric(np.ones((2, 3)), np.ones(3), "elu", n_threads=0), ValueError, "n_threads"),
    ):
        with pytest.raises(error, match=message):
            make()


def test_arrays_without_rows_or_columns_are_no_obstacle():
    for shape in ((0, 3), (3, 0)):
        x, weight = np.ones(shape), np.ones(shape[1])
        assert functional.scale(x, weight).shape == functional.parametric(x, weight, "mish").shape == shape
        dx, dweight = functional.parametric_backward(x, x, weight, "mish")
        assert dx.shape == shape
        assert dweight.tolist() == [0] * shape[1]
