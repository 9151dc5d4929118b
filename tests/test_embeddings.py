"""Embeddings of numbers and of codes: against their twins, derivatives, threads, files, bad rows."""

import pickle

import numpy as np
import pytest
from digests import fused
from onnx_session import session
from oracle import assert_same_training
from plain_network import PlainNetwork

import cydrop as cd
from cydrop import functional, reference
from cydrop._core import dense as kernels

KINDS = ["pbld", "plr", "piecewise_linear"]
NO_BIAS = {"pbld", "piecewise_linear"}  # in the backward pass


def arrays_of(kind, columns, rng, terms=5, outputs=3):
    """What a function of `kind` takes, in its order."""
    if kind == "piecewise_linear":
        edges = np.sort(rng.standard_normal((columns, terms + 1)), axis=1)
        edges[0, 3:] = edges[0, 3]  # a feature with fewer bins
        edges[columns // 2, 1:] = edges[columns // 2, 0] + (columns > 1)  # one bin, or none
        shapes = {"slope": (columns, outputs), "weight": (columns, terms, outputs), "bias": (columns, outputs)}
        return {"edges": edges} | {word: rng.standard_normal(shape) for word, shape in shapes.items()}
    found = {"frequency": rng.standard_normal((columns, terms))}
    if kind == "pbld":
        found["phase"] = rng.uniform(-np.pi, np.pi, (columns, terms))
    found["weight"] = rng.standard_normal((columns, terms * (1 + (kind == "plr")), outputs))
    return found | {"bias": rng.standard_normal((columns, outputs))}


def both(kind, x, dy, arrays, module, **options):
    """Outputs and gradients."""
    y = getattr(module, kind)(x, **arrays, **options)
    own = {word: array for word, array in arrays.items() if word != "bias" or kind not in NO_BIAS}
    return y, *getattr(module, f"{kind}_backward")(dy[:, : y.shape[1]], x, **own, **options)


def single(arrays):
    """As float32 holds them, in float64."""
    return {word: array.astype(np.float32).astype(np.float64) for word, array in arrays.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "features", "columns"), [(1, 1, 1), (17, 3, 3), (16, 3, 1), (256, 61, 61), (257, 5, 2), (600, 4, 3)]
)
@pytest.mark.parametrize("outputs", [1, 3, 17])
def test_both_passes_are_their_twins(kind, rows, features, columns, outputs, rng):
    arrays = single(arrays_of(kind, columns, rng, outputs=outputs))
    x = rng.standard_normal((rows, features)).astype(np.float32).astype(np.float64)
    dy = rng.standard_normal((rows, features + columns * outputs)).astype(np.float32).astype(np.float64)
    fast, plain = both(kind, x, dy, arrays, functional), both(kind, x, dy, arrays, reference)
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == np.float32
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=3e-6 * (1 + np.abs(other).max()))
    for n_threads in (2, 3):
        again = both(kind, x, dy, arrays, functional, n_threads=n_threads)
        assert [array.tobytes() for array in again] == [array.tobytes() for array in fast]


@pytest.mark.parametrize("kind", KINDS)
def test_the_backward_pass_is_the_derivative(kind, rng):
    arrays = arrays_of(kind, 2, rng)
    x, dy = rng.standard_normal((7, 4)), rng.standard_normal((7, 12))
    y, *gradients = both(kind, x, dy, arrays, reference)
    trained = {"x": x} | {word: array for word, array in arrays.items() if word != "edges"}
    for (word, array), gradient in zip(trained.items(), gradients, strict=True):
        for place in (0, array.size // 2, array.size - 1):
            change = []
            for step in (1e-6, -1e-6):
                moved = array.copy()
                moved.reshape(-1)[place] += step
                given = {"x": x, **arrays, word: moved}
                change.append((getattr(reference, kind)(**given) * dy[:, : y.shape[1]]).sum())
            assert (change[0] - change[1]) / 2e-6 == pytest.approx(gradient.reshape(-1)[place], abs=1e-6), word


def test_piecewise_linear_adds_the_shares_of_the_bins():
    edges, x = [[0.0, 1.0, 3.0, 3.0]], [[-2.0], [0.5], [2.0], [3.0], [7.0]]
    weight = np.array([[[10.0], [100.0], [1000.0]]])  # the last bin has no width
    y = functional.piecewise_linear(x, edges, [[0.0]], weight, [[0.0]])
    np.testing.assert_allclose(y[:, 0], [-20, 5, 60, 110, 310])


def test_cosines_of_far_turns_are_as_good_as_of_near_ones(rng):
    for scale in (1.0, 100.0, 1e4, 8e4):
        x = (scale * rng.uniform(-1, 1, 20_000)).astype(np.float32)
        w, b = np.float32(1.2345678), np.float32(-2.5)
        c, s = np.empty_like(x), np.empty_like(x)
        kernels.parts_of_turns(x, w, b, c, s)
        turns = x.astype(np.float64) * np.float64(w)
        angle = 2 * np.pi * (turns - np.rint(turns)) + np.float64(b)
        if not fused(cd.show_config()["simd"]):  # the product is rounded
            assert np.abs(c - np.cos(angle)).max() < 1e-6 * (1 + scale)
            continue
        assert np.abs(c - np.cos(angle)).max() < 1e-6
        assert np.abs(s - np.sin(angle)).max() < 1e-6


def test_numbers_beyond_all_turns_give_cosines_all_the_same():
    x = np.array([1e8, -1e12, 1e30, -3e38, 1e-30, 0], dtype=np.float32)
    c, s = np.empty_like(x), np.empty_like(x)
    kernels.parts_of_turns(x, 0.7, 0.3, c, s)
    assert (np.abs(c) <= 1.0001).all()
    assert (np.abs(s) <= 1.0001).all()
    kernels.parts_of_turns(np.full(6, np.nan, dtype=np.float32), 0.7, 0.3, c, s)
    assert np.isnan(c).all()
    assert np.isnan(s).all()


CODES = [([2, 3], 4), ([7], 1), ([1, 1, 5], 9), ([10_000, 4], 8), ([3] * 61, 5)]


@pytest.mark.parametrize(("cardinalities", "size"), CODES)
@pytest.mark.parametrize("rows", [1, 17, 600])
@pytest.mark.parametrize("others", [0, 3])
def test_codes_take_rows_of_tables_and_give_them_their_gradients(cardinalities, size, rows, others, rng):
    codes = [rng.integers(0, most, rows) for most in cardinalities]
    x = np.column_stack([*rng.standard_normal((others, rows)), *codes]).astype(np.float32)
    weight = rng.standard_normal((sum(cardinalities), size)).astype(np.float32)
    dy = rng.standard_normal((rows, others + size * len(cardinalities))).astype(np.float32)
    y = functional.embedding(x, weight, cardinalities)
    np.testing.assert_array_equal(y, reference.embedding(x, weight, cardinalities))
    dx, dweight = functional.embedding_backward(dy, x, cardinalities)
    plain = reference.embedding_backward(dy.astype(np.float64), x, cardinalities)
    np.testing.assert_array_equal(dx, plain[0])
    np.testing.assert_allclose(dweight, plain[1], atol=1e-4)
    for n_threads in (2, 3):
        assert functional.embedding(x, weight, cardinalities, n_threads=n_threads).tobytes() == y.tobytes()
        again = functional.embedding_backward(dy, x, cardinalities, n_threads=n_threads)
        assert [array.tobytes() for array in again] == [dx.tobytes(), dweight.tobytes()]


def test_what_is_no_code_reads_no_memory_outside_of_the_table():
    weight = np.arange(5, dtype=np.float32)[:, None]
    x = np.array([[-1, -1], [0.9, 1.5], [2, 3], [1e30, -1e30], [np.inf, np.nan]], dtype=np.float32)
    np.testing.assert_array_equal(functional.embedding(x, weight, [2, 3]), [[0, 2], [0, 3], [1, 4], [1, 2], [1, 2]])
    _, dweight = functional.embedding_backward(np.ones((5, 2)), x, [2, 3])
    np.testing.assert_array_equal(dweight[:, 0], [2, 3, 3, 1, 1])


STACKS = {
    "pbld": lambda: [cd.NumericEmbedding(), cd.Dense(5), cd.Tanh(), cd.Dense(3)],
    "plr": lambda: [cd.NumericEmbedding("plr", sigma=0.3), cd.Dense(5), cd.Tanh(), cd.Dense(3)],
    "piecewise_linear": lambda: [cd.NumericEmbedding("piecewise_linear"), cd.Dense(5), cd.Tanh(), cd.Dense(3)],
    "both": lambda: [cd.NumericEmbedding(columns=4), cd.Embedding([3, 50], 6), cd.Dropout(0.2), cd.Dense(3)],
    "inside": lambda: [
        cd.Dense(6, activation="tanh"), cd.NumericEmbedding("plr", columns=3, frequencies=4, size=5, sigma=1.0),
        cd.LayerNorm(), cd.NumericEmbedding("piecewise_linear", columns=9, bins=7, size=2),
        cd.NumericEmbedding(frequencies=3, size=2), cd.Dense(3),
    ],
    "last": lambda: [cd.Dense(2), cd.NumericEmbedding("pbld", columns=1, size=2)],
}  # fmt: skip


def table(rng, rows=70, features=6):
    X = rng.standard_normal((rows, features)).astype(np.float32)
    X[:, -2], X[:, -1] = rng.integers(0, 3, rows), rng.integers(0, 50, rows)
    return X, rng.integers(0, 3, rows)


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("optimizer", [cd.SGD(0.05, momentum=0.5), cd.SGD(0.1, clip_norm=0.1)], ids=["fused", "clip"])
@pytest.mark.parametrize("features", [6, 130], ids=["small", "large"])
def test_training_and_prediction_are_the_plain_networks(stack, optimizer, features, rng):
    X, y = table(rng, 19, features)
    if stack is not STACKS["both"]:
        X[:, -2:] /= 50  # as numbers they would be far out
    net = cd.Network(stack(), optimizer=optimizer, seed=2).build(features)
    assert_same_training(net, X, y, rtol=1e-4)
    np.testing.assert_allclose(net.forward(X), PlainNetwork(net).forward(X), atol=1e-3)


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_trained_networks_have_the_same_bits_on_any_number_of_threads(stack, rng):
    X, y = table(rng, 700, 61)
    results = set()
    for n_threads in (1, 2, 3):
        net = cd.Network(stack(), seed=1, n_threads=n_threads)
        net.fit(X, y, epochs=2, batch_size=300, verbose=0)
        arrays = [*net.parameters().values(), net.predict(X), net.predict(X, batch_size=7)]
        results.add(b"".join(array.tobytes() for array in arrays))
    assert len(results) == 1


def test_input_gradients_by_hand_are_the_plain_networks(rng):
    for stack in STACKS.values():
        X, _ = table(rng, 40)
        net = cd.Network(stack(), loss="mse", seed=2).build(6)
        out = net.forward(X, training=True)
        grad = rng.standard_normal(out.shape).astype(np.float32)
        plain = PlainNetwork(net)
        plain.draws -= 1
        plain.forward(X, net.masks())
        np.testing.assert_allclose(net.backward(grad), plain.backward(grad), atol=2e-4)
        for name, gradient in net.gradients().items():
            own = plain.gradients[name]
            np.testing.assert_allclose(gradient, own, atol=1e-4 * (1 + np.abs(own).max()), err_msg=name)


def test_first_parameters_are_those_of_the_papers():
    net = cd.Network([cd.NumericEmbedding(), cd.Dense(1)], loss="mse", seed=0).build(400)
    p = net.parameters()
    assert {name: array.shape for name, array in p.items() if name.startswith("0.")} == {
        "0.frequency": (400, 16), "0.phase": (400, 16), "0.weight": (400, 16, 3), "0.bias": (400, 3),
    }  # fmt: skip
    assert p["0.frequency"].std() == pytest.approx(0.1, rel=0.05)
    for name, bound in (("phase", np.pi), ("weight", 0.25), ("bias", 0.25)):
        assert 0.99 * bound < np.abs(p[f"0.{name}"]).max() <= np.float32(bound)
        assert abs(p[f"0.{name}"].mean()) < 0.06 * bound
    plr = cd.Network([cd.NumericEmbedding("plr"), cd.Dense(1)], loss="mse", seed=0).build(50).parameters()
    assert plr["0.weight"].shape == (50, 96, 24)
    assert plr["0.frequency"].std() == pytest.approx(0.01, rel=0.05)
    assert np.abs(plr["0.weight"]).max() == pytest.approx(96**-0.5, rel=0.01)
    linear = cd.Network([cd.NumericEmbedding("piecewise_linear"), cd.Dense(1)], loss="mse", seed=0).build(50)
    assert not linear.parameters()["0.weight"].any()
    assert np.abs(linear.parameters()["0.slope"]).max() == pytest.approx(0.25, rel=0.01)
    np.testing.assert_allclose(linear.buffers()["0.edges"][7], np.linspace(-3, 3, 49), atol=1e-6)
    codes = cd.Network([cd.Embedding([500, 20], 8), cd.Dense(1)], loss="mse", seed=0).build(3).parameters()
    assert codes["0.weight"].shape == (520, 8)
    assert codes["0.weight"].std() == pytest.approx(1, rel=0.05)


def test_edges_are_quantiles_without_duplicates(rng):
    layer = cd.NumericEmbedding("piecewise_linear", columns=3, bins=4)
    X = np.column_stack([np.arange(101), rng.integers(0, 2, 101), np.full(101, 7), rng.standard_normal(101)])
    edges = layer.quantile_edges(X)
    assert edges.tolist() == [[0, 25, 50, 75, 100], [0, 1, 1, 1, 1], [7, 7, 7, 7, 7]]
    arrays = {"edges": np.zeros((3, 5), dtype=np.float32)}
    layer.initialize(X.astype(np.float32), arrays)
    np.testing.assert_array_equal(arrays["edges"], edges)
    cd.NumericEmbedding().initialize(X.astype(np.float32), {})
    with pytest.raises(ValueError, match=r"kind='pbld' has no bins"):
        cd.NumericEmbedding().quantile_edges(X)


def test_edges_are_saved_and_pickled(rng, tmp_path):
    X, y = table(rng)
    net = cd.Network(STACKS["piecewise_linear"](), seed=1).build(6)
    net.layers[0].initialize(X, {"edges": net.buffers()["0.edges"]})
    net.fit(X, y, epochs=1, verbose=0)
    net.save(tmp_path / "n")
    for one in (cd.load(tmp_path / "n"), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(one.buffers()["0.edges"], net.layers[0].quantile_edges(X))
        np.testing.assert_array_equal(one.predict(X), net.predict(X))


@pytest.mark.extras
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_onnx_predicts_the_same_with_bins_of_any_number(stack, rng):
    X, y = table(rng)
    X[:, 0], X[:, 1] = rng.integers(0, 2, len(X)), 5  # two values and one
    net = cd.Network(stack(), seed=1).build(6)
    for place, layer in enumerate(net.layers):
        if f"{place}.edges" in net.buffers() and place == 0:
            layer.initialize(X, {"edges": net.buffers()["0.edges"]})
    net.fit(X, y, epochs=2, verbose=0)
    X[0] *= 3
    X[0, -2:] = 1
    (found,) = session(cd.onnx.to_model(net)).run(None, {"X": X})
    np.testing.assert_allclose(found, net.predict(X), rtol=1e-4, atol=1e-5)


def test_factors_are_the_words_of_the_parameters(rng):
    layer = cd.NumericEmbedding(learning_rate_factor={"phase": 0.1}, decay_factor=0.0)
    net = cd.Network([layer, cd.Embedding([3], 2, learning_rate_factor=0.0), cd.Dense(3)], seed=0)
    assert layer.factors("phase") == (0.1, 1.0, 0.0)
    assert layer.factors("weight") == (1.0, 1.0, 0.0)
    net = cd.Network([cd.NumericEmbedding(columns=4, learning_rate_factor={"phase": 0.0}), *net.layers[1:]], seed=0)
    X, y = table(rng)
    X[:, -1] = 1
    net.build(6)
    before = {name: array.copy() for name, array in net.parameters().items()}
    net.fit(X, y, epochs=1, verbose=0)
    moved = {name: bool((array != before[name]).any()) for name, array in net.parameters().items()}
    assert [name for name, changed in moved.items() if not changed] == ["0.phase", "1.weight"]
    with pytest.raises(ValueError, match="'phase' is not known; known are 'frequency', 'weight', 'bias'"):
        cd.NumericEmbedding("plr", learning_rate_factor={"phase": 1.0})


WRONG = [(3, "3 in row 4"), (-1, "-1 in row 4"), (0.5, "0.5 in row 4")]


@pytest.mark.parametrize(("value", "message"), WRONG)
@pytest.mark.parametrize("before", [[], [cd.NumericEmbedding(columns=2)], [cd.NumericEmbedding("plr", columns=4)]])
def test_values_that_are_no_codes_are_refused_before_anything_changes(value, message, before, rng):
    X, y = table(rng)
    net = cd.Network([*before, cd.Embedding([3, 50], 4), cd.Dense(3)], seed=0)
    net.fit(X, y, epochs=1, verbose=0)
    state = {name: array.tobytes() for name, array in net.parameters().items()}
    wrong = X.copy()
    wrong[4, 4] = value
    message = f"X column 4 must hold whole numbers from 0 to 2, .*{message}"
    for call in (
        lambda: net.fit(wrong, y, epochs=1, verbose=0),
        lambda: net.fit(X, y, epochs=1, validation_data=(wrong, y), verbose=0),
        lambda: net.partial_fit(wrong, y),
        lambda: net.train_on_batch(wrong, y),
        lambda: net.predict(wrong),
        lambda: net.predict_mc(wrong, 3),
        lambda: net.evaluate(wrong, y),
        lambda: net.forward(wrong, training=True),
        lambda: cd.Network(net.layers, seed=0).predict(wrong),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert {name: array.tobytes() for name, array in net.parameters().items()} == state
    net.predict(X)


def test_codes_behind_other_layers_are_rounded_to_what_the_table_has(rng):
    net = cd.Network([cd.Dense(4), cd.Embedding([3], 4), cd.Dense(3)], seed=0)
    X = 100 * rng.standard_normal((50, 5))
    assert np.isfinite(net.predict(X)).all()


def test_wrong_arguments_are_refused_by_name():
    for make, message in (
        (lambda: cd.NumericEmbedding("cubic"), "kind='cubic' is not known"),
        (lambda: cd.NumericEmbedding(size=1), "size must be at least 2"),
        (lambda: cd.NumericEmbedding(columns=0), "columns must be at least 1"),
        (lambda: cd.NumericEmbedding(sigma=0.0), "sigma"),
        (lambda: cd.NumericEmbedding(bins=3), "bins is no option of kind='pbld'"),
        (lambda: cd.NumericEmbedding("piecewise_linear", bins=0), "bins must be at least 1"),
        (lambda: cd.NumericEmbedding("piecewise_linear", sigma=1.0), "sigma is no option"),
        (lambda: cd.Network([cd.NumericEmbedding(columns=5), cd.Dense(2)]).build(4), r"layers\[0\].*rows have 4"),
        (lambda: cd.Embedding([], 3), "cardinalities is empty"),
        (lambda: cd.Embedding([3, 0], 3), r"cardinalities\[1\] must be at least 1"),
        (lambda: cd.Embedding([2**24 + 1], 3), r"cardinalities\[0\] must be at most 16777216"),
        (lambda: cd.Embedding([3], 0), "size must be at least 1"),
        (lambda: cd.Network([cd.Dense(2), cd.Embedding([3, 3, 3], 2), cd.Dense(2)]), "3 columns, but rows have 2"),
        (lambda: cd.Network([cd.Embedding([3, 3], 2), cd.Dense(2)]).predict([[1.0]]), "2 columns, but rows have 1"),
        (lambda: functional.pbld([[1.0]], [[1.0]], [[1.0, 2.0]], [[[1.0]]], [[0.0]]), "phase must have shape"),
        (lambda: functional.plr([[1.0]], [[1.0]], [[[1.0]]], [[0.0]]), "weight must have shape"),
        (lambda: functional.plr([[1.0]], [1.0], [[[1.0]]], [[0.0]]), "two dimensions"),
        (lambda: functional.pbld_backward([[1.0]], [[1.0]], [[1.0]], [[1.0]], [[[1.0]]]), "dy must have shape"),
        (lambda: functional.piecewise_linear([[1.0]], [[1.0]], [[1.0]], [[[1.0]]], [[0.0]]), "do not fit x"),
        (lambda: functional.embedding([[1.0]], np.ones((3, 2)), [4]), "weight must have shape"),
        (lambda: functional.embedding([[1.0]], np.ones((3, 2)), [1, 2]), "no 2 columns"),
        (lambda: functional.embedding_backward([[1.0]], [[1.0, 1.0]], [3]), "does not fit"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="cardinalities must be a list"):
        cd.Embedding(3, 4)


def test_a_plan_whose_sizes_do_not_fit_is_refused(rng):
    class Short(cd.NumericEmbedding):
        def lower(self, plan):
            super().lower(plan)
            plan.ops[-1].numbers = (plan.ops[-1].numbers[0], 99, self.size)

    class Long(cd.Embedding):
        def lower(self, plan):
            super().lower(plan)
            plan.ops[-1].numbers = (self.size, 0, 1, 10**6)

    for layer in (Short(), Short("plr"), Short("piecewise_linear"), Long([2, 3], 4)):
        with pytest.raises(ValueError, match="has not the parameters it needs"):
            cd.Network([layer, cd.Dense(2)]).build(5)


def test_empty_tables_of_rows_stay_empty():
    assert functional.pbld(np.ones((0, 2)), [[1.0]], [[1.0]], [[[1.0]]], [[0.0]]).shape == (0, 3)
    assert functional.embedding(np.ones((0, 2)), np.ones((3, 2)), [3]).shape == (0, 3)
    dx, dweight = functional.embedding_backward(np.ones((0, 3)), np.ones((0, 2)), [3])
    assert dx.shape == (0, 2)
    assert not dweight.any()
