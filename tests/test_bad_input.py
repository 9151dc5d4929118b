"""Nonsense gets a sentence that names the argument, what came and what was expected, and changes nothing."""

import pickle

import numpy as np
import pytest

import cydrop as cd


class Sparse:
    """What all sparse matrices have in common."""

    def toarray(self):
        return np.ones((4, 3))


class Frame:
    """A table with a column of text, as a DataFrame shows itself to NumPy."""

    def __array__(self, dtype=None, copy=None):
        return np.array([[1.0, "a"], [2.0, "b"]], dtype=object)


X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 2, 1])


def with_value(value, row=2, column=1):
    changed = X.copy()
    changed[row, column] = value
    return changed


BAD_X = [
    (X[0], ValueError, r"X must be 2-D.*\(3,\).*reshape\(1, -1\)"),
    (X.reshape(2, 2, 3), ValueError, r"X must be 2-D.*\(2, 2, 3\)"),
    (3.0, ValueError, "X must be 2-D"),
    (None, TypeError, "X must be numeric"),
    (np.empty((0, 3)), ValueError, r"X is empty.*\(0, 3\)"),
    (np.empty((4, 0)), ValueError, "X is empty"),
    ([], ValueError, "X must be 2-D"),
    (with_value(np.nan), ValueError, "X has 1 values.*first NaN at row 2, column 1"),
    (with_value(-np.inf, 3, 0), ValueError, "X has 1 values.*first infinity at row 3, column 0"),
    (with_value(1e300), ValueError, "X has a value too large for float32: 1e.300 at row 2, column 1"),
    (X.astype(complex), TypeError, "X must be real, got complex"),
    (X.astype(str), TypeError, "X must be numeric, got text"),
    ([["a", "b"], ["c", "d"]], TypeError, "X must be numeric, got text"),
    (X.astype(object), TypeError, "X must be numeric, got Python objects"),
    (Frame(), TypeError, "X must be numeric, got Python objects"),
    (np.zeros((4, 3), dtype="M8[s]"), TypeError, "X must be numeric, got dates"),
    ([[1, 2], [3]], ValueError, "X cannot be made into an array"),
    (Sparse(), TypeError, r"X is a sparse matrix \(Sparse\); make it dense with .toarray\(\)"),
]

BAD_Y = [
    ([0, 1, 2], ValueError, "y must have a row for each of the 4 rows of X, got 3"),
    ([0, 1, 2, 3], ValueError, r"y must be class labels 0..2 \(the last layer has 3 units\), got 3 at index 3"),
    ([0, -1, 2, 1], ValueError, "got -1 at index 1"),
    ([0, 0.5, 2, 1], ValueError, "y must be integer class labels, got 0.5 at index 1"),
    ([0, np.nan, 2, 1], ValueError, "y must be integer class labels, got nan at index 1"),
    (["a", "b", "c", "a"], TypeError, "y must be numeric, got text"),
    (
        np.ones((4, 2)) / 2,
        ValueError,
        r"y must be 1-D class labels, or class probabilities of shape \(4, 3\), got shape",
    ),
    (np.eye(3)[[0, 1, 2]], ValueError, "y must have a row for each of the 4 rows of X, got 3"),
    (np.eye(3)[[0, 1, 2, 1]] - [[0], [0], [0.01], [0]], ValueError, "none negative, got -0.01.* at row 2, column 0"),
    (
        np.eye(3)[[0, 1, 2, 1]] * [[1], [1.002], [1], [1]],
        ValueError,
        "each row sums to 1 .within 0.001., got 1.002 at row 1",
    ),
    (with_value(np.nan), ValueError, "y has 1 values.*first NaN at row 2, column 1"),
    (None, TypeError, "y must be numeric"),
    (np.array([0, 1, 2, 1], dtype=complex), TypeError, "y must be real"),
]


def network():
    return cd.Network([cd.Dense(5), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3)], seed=0)


def state(net):
    """Everything that a network is, as bytes."""
    return pickle.dumps(net)


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize(("bad", "error", "message"), BAD_X, ids=lambda value: None)
def test_bad_X_is_refused_everywhere_and_changes_nothing(trained, bad, error, message):
    net = network()
    if trained:
        net.fit(X, Y, epochs=1, verbose=0)
    before = state(net)
    calls = [
        lambda: net.fit(bad, Y), lambda: net.partial_fit(bad, Y), lambda: net.train_on_batch(bad, Y),
        lambda: net.predict(bad), lambda: net.predict_mc(bad), lambda: net.evaluate(bad, Y),
        lambda: net.forward(bad), lambda: net.forward(bad, training=True),
        lambda: net.fit(X, Y, validation_data=(bad, Y)),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(error, match=message):
            call()
    assert state(net) == before


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize(("bad", "error", "message"), BAD_Y, ids=lambda value: None)
def test_bad_labels_are_refused_everywhere_and_change_nothing(trained, bad, error, message):
    net = network()
    if trained:
        net.fit(X, Y, epochs=1, verbose=0)
    before = state(net)
    for call in (
        lambda: net.fit(X, bad), lambda: net.partial_fit(X, bad), lambda: net.train_on_batch(X, bad),
        lambda: net.evaluate(X, bad), lambda: net.fit(X, Y, validation_data=(X, bad)),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()
    assert state(net) == before


def test_another_width_than_the_first_is_refused():
    net = network()
    net.fit(X, Y, epochs=1, verbose=0)
    for call in (lambda: net.fit(X[:, :2], Y), lambda: net.predict(X[:, :2]), lambda: net.evaluate(X[:, :2], Y)):
        with pytest.raises(ValueError, match="X must have 3 columns, got 2"):
            call()
    with pytest.raises(ValueError, match="validation X must have 3 columns, got 2"):
        net.fit(X, Y, validation_data=(X[:, :2], Y))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 2.0}, TypeError, "epochs must be an integer, got 2.0"),
        ({"epochs": True}, TypeError, "epochs must be an integer, got True"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": -3}, ValueError, "batch_size must be at least 1, got -3"),
        ({"batch_size": "32"}, TypeError, "batch_size must be an integer, got '32'"),
        ({"validation_split": 1.0}, ValueError, r"validation_split must be in \[0, 1\), got 1.0"),
        ({"validation_split": 0.01}, ValueError, "leaves 0 for validation"),
        ({"validation_split": 0.5, "validation_data": (X, Y)}, ValueError, "not both"),
        ({"validation_data": X}, ValueError, r"validation_data must be \(X, y\)"),
        ({"shuffle": "yes"}, ValueError, "shuffle must be True, False, 'rows' or 'chunks', got 'yes'"),
        ({"shuffle": 1}, TypeError, "shuffle must be True, False, 'rows' or 'chunks', got 1"),
        ({"sample_weight": [1, 2]}, ValueError, r"sample_weight must have shape \(4,\), got \(2,\)"),
        ({"sample_weight": [1, 2, -1, 0]}, ValueError, "sample_weight must not be negative, got -1.0 at index 2"),
        ({"sample_weight": [1, 2, np.nan, 0]}, ValueError, "sample_weight has 1 values that are NaN"),
        ({"callbacks": [print]}, TypeError, "callbacks must be cydrop.callbacks.Callback objects"),
        ({"verbose": -1}, ValueError, "verbose must be at least 0"),
    ],
)
def test_bad_options_of_fit_are_refused_and_change_nothing(options, error, message):
    net = network()
    before = state(net)
    with pytest.raises(error, match=message):
        net.fit(X, Y, **options)
    assert state(net) == before


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cd.Dropout(1.5), ValueError, r"rate must be in \[0, 1\], got 1.5"),
        (lambda: cd.Dropout(-0.1), ValueError, r"rate must be in \[0, 1\]"),
        (lambda: cd.Dropout(float("nan")), ValueError, r"rate must be in \[0, 1\], got nan"),
        (lambda: cd.Dense(2, max_norm=float("nan")), ValueError, "max_norm must be a finite number above 0, got nan$"),
        (lambda: cd.SGD(weight_decay=float("inf")), ValueError, "weight_decay must be a finite number of at least 0, got inf$"),
        (lambda: cd.Dropout("half"), TypeError, "rate must be a number, got 'half'"),
        (lambda: cd.Dropout(0.5, mode="outverted"), ValueError, "mode='outverted' is not known; known are 'inverted', 'vanilla'"),
        (lambda: cd.Dropout(0.5, shared="row"), ValueError, "shared='row' is not known; known are 'batch', None"),
        (lambda: cd.Dropout(0.5, seed="x"), TypeError, "seed must be None, an int"),
        (lambda: cd.Dense(0), ValueError, "units must be at least 1, got 0"),
        (lambda: cd.Dense(2.5), TypeError, "units must be an integer"),
        (lambda: cd.Dense(2, activation="rleu"), ValueError, "activation='rleu' is not known; known are 'relu', .*, None"),
        (lambda: cd.Dense(2, activation=3), TypeError, "activation must be one of"),
        (lambda: cd.Dense(2, weight_init="zeros"), ValueError, "weight_init='zeros' is not known; known are 'he_normal'"),
        (lambda: cd.Dense(2, bias_init="ones"), ValueError, "bias_init='ones' is not known; known are 'zeros', 'he_normal'"),
        (lambda: cd.Dense(2, bias_init=None), TypeError, "bias_init must be one of 'zeros', 'he_normal'"),
        (lambda: cd.Dense(2, max_norm=0), ValueError, "max_norm must be a finite number above 0"),
        (lambda: cd.Dense(2, bias=1), TypeError, "bias must be True or False"),
        (lambda: cd.Dense(2, max_norm=1e-50), ValueError, "max_norm must be a finite number above 0, got 1e-50, which float32 rounds to 0"),
        (lambda: cd.Adam(epsilon=2.2e-308), ValueError, "epsilon must be a finite number above 0, got 2.2e-308, which float32 rounds to 0"),
        (lambda: cd.RMSprop(epsilon=1e-300), ValueError, "epsilon must be a finite number above 0, got 1e-300, which float32"),
        (lambda: cd.Adagrad(epsilon=1e-300), ValueError, "epsilon must be a finite number above 0, got 1e-300, which float32"),
        (lambda: cd.SGD(1e39), ValueError, "learning_rate must be a finite number of at least 0, got 1e.39, which float32 rounds to inf"),
        (lambda: cd.SGD(0.1, weight_decay=1e39), ValueError, "weight_decay must be a finite number.*got 1e.39"),
        (lambda: cd.Adam(clip_norm=1e-50), ValueError, "clip_norm must be a finite number above 0, got 1e-50"),
        (lambda: cd.LayerNorm(epsilon=1e-300), ValueError, "epsilon must be a finite number above 0, got 1e-300"),
        (lambda: cd.BatchNorm(epsilon=1e39), ValueError, "epsilon must be a finite number above 0, got 1e.39"),
        (lambda: cd.LeakyReLU(1e39), ValueError, "negative_slope must be a finite number, got 1e.39"),
        (lambda: cd.ELU(-1e39), ValueError, "alpha must be a finite number, got -1e.39"),
        (lambda: cd.GaussianNoise(1e39), ValueError, "std must be a finite number of at least 0, got 1e.39"),
        (lambda: cd.losses.Huber(1e-50), ValueError, "delta must be a finite number above 0, got 1e-50"),
        (lambda: cd.losses.CrossEntropy(r_drop=1e39), ValueError, "r_drop must be a finite number of at least 0, got 1e.39"),
        (lambda: cd.Network([cd.Dense(2)], optimizer=cd.SGD(lambda p: 1e39)).fit(X, [0, 1, 0, 1]), ValueError, "learning_rate at progress 0 must be.*got 1e.39"),
        (lambda: cd.Network([]), ValueError, "layers is empty"),
        (lambda: cd.Network(cd.Dense(2)), TypeError, "layers must be a list of layers"),
        (lambda: cd.Network(["relu"]), TypeError, r"layers\[0\] must be a cydrop layer, got 'relu'"),
        (lambda: cd.Network([cd.Dense]), TypeError, r"layers\[0\] must be a cydrop layer"),
        (lambda: cd.Network([cd.Dense(2)], loss="crossentropy"), ValueError, "loss='crossentropy' is not known; known are .*, a loss object"),
        (lambda: cd.Network([cd.Dense(2)], optimizer="adamm"), ValueError, "optimizer='adamm' is not known; known are 'sgd'"),
        (lambda: cd.Network([cd.Dense(2)], seed=-1), ValueError, "seed must not be negative"),
        (lambda: cd.Network([cd.Dense(2)], seed="0"), TypeError, "seed must be None, an int"),
        (lambda: cd.Network([cd.Dense(2)], seed=1.5), TypeError, "seed must be None, an int"),
        (lambda: cd.Network([cd.Dense(2)], n_threads=0), ValueError, "n_threads must be at least 1"),
        (lambda: cd.Network([cd.Dense(1)]).fit(X, [0, 0, 0, 0]), ValueError, "cross_entropy needs.*binary_cross_entropy"),
        (lambda: cd.Network([cd.Dense(3)], loss="gaussian_nll").fit(X, Y), ValueError, "gaussian_nll needs.*two units"),
        (lambda: cd.Network([cd.Dense(1)], loss="binary_cross_entropy").fit(X, [0, 1, 2, 0]), ValueError,
         "y must be 0 or 1, or a probability between, got 2.0 at row 2, column 0"),
        (lambda: cd.Network([cd.Dense(2)], loss="mse").fit(X, Y), ValueError, r"y must have shape \(4, 2\), got \(4,\)"),
        (lambda: cd.Network([cd.Dense(1)], loss="mse").fit(X, with_value(1)), ValueError, r"y must have shape \(4,\) or \(4, 1\)"),
        (lambda: cd.losses.CrossEntropy(label_smoothing=1.0), ValueError, r"label_smoothing must be in \[0, 1\)"),
        (lambda: cd.losses.Huber(delta=0), ValueError, "delta must be a finite number above 0"),
        (lambda: network().parameters(), RuntimeError, "parameters needs a built network"),
        (lambda: network().masks(), RuntimeError, "masks needs a training forward pass"),
        (lambda: network().backward([[1.0]]), RuntimeError, r"backward needs a forward\(X, training=True\)"),
        (lambda: network().step(), RuntimeError, "step needs a built network"),
        (lambda: cd.ReLU().backward([[1.0]]), RuntimeError, "backward needs a forward"),
        (lambda: network().build(0), ValueError, "n_features must be at least 1"),
        (lambda: network().build(3).build(4), ValueError, "was built for 3 features, got 4"),
        (lambda: network().predict(X, batch_size=0), ValueError, "batch_size must be at least 1"),
        (lambda: network().predict_mc(X, 0), ValueError, "samples must be at least 1"),
        (lambda: network().forward(X, masks=[None]), ValueError, "masks are for training=True"),
        (lambda: network().forward(X, training=1), TypeError, "training must be True or False"),
        (lambda: network().forward(X, training=True, masks=[None, None]), ValueError, "each of the 1 dropout layers, got 2"),
        (lambda: network().forward(X, training=True, masks=[np.ones((4, 4))]), ValueError,
         r"masks\[0\] must have shape \(4, 5\), got \(4, 4\)"),
        (lambda: network().forward(X, training=True, masks=[np.full((4, 5), 0.5)]), ValueError, r"masks\[0\] must be boolean"),
        (lambda: cd.functional.dropout(X, 2), ValueError, r"rate must be in \[0, 1\]"),
        (lambda: cd.functional.dropout(X, mask=np.ones((3, 4))), ValueError, r"mask must have shape \(4, 3\)"),
        (lambda: cd.functional.dropout(X, out=np.empty((4, 3))), ValueError, "out must be a writeable C-contiguous float32"),
        (lambda: cd.functional.dropout(X, mode="x"), ValueError, "mode='x' is not known"),
        (lambda: cd.functional.dropout(X, n_threads=0), ValueError, "n_threads must be at least 1"),
        (lambda: cd.functional.dense(X, X), ValueError, "do not fit"),
        (lambda: cd.functional.dense(X, X.T, bias=[1, 2]), ValueError, r"bias must have shape \(4,\)"),
        (lambda: cd.functional.relu_backward(X, X.T), ValueError, "dy and x must have the same shape"),
        (lambda: cd.functional.cross_entropy(X, [0, 1, 2, 5]), ValueError, "y must be class labels 0..2"),
        (lambda: cd.functional.softmax(X[0]), ValueError, "logits must have shape"),
        (lambda: cd.functional.mse(np.empty((0, 2)), []), ValueError, "prediction is empty"),
    ],
    ids=lambda value: None,
)  # fmt: skip
def test_nonsense_gets_a_sentence_that_says_what_was_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_arguments_are_refused_by_the_name_of_the_public_class():
    net = network()
    with pytest.raises(TypeError, match=r"^Network.initialize\(\) missing 1 required positional argument: 'X'"):
        net.initialize()
    with pytest.raises(TypeError, match=r"^Network.predict_mc\(\) got an unexpected keyword argument 'sample'"):
        net.predict_mc(X, sample=3)
    with pytest.raises(TypeError, match=r"^Network.backward\(\) missing"):
        net.backward()


def test_a_wrong_gradient_shape_is_refused():
    net = network()
    net.forward(X, training=True)
    with pytest.raises(ValueError, match=r"grad must have shape \(4, 3\), got \(3, 4\)"):
        net.backward(np.ones((3, 4)))


def test_a_schedule_that_leaves_its_range_is_refused_before_anything_changes():
    net = cd.Network([cd.Dense(3), cd.Dropout(lambda progress: 0.3 + progress)], seed=0).build(3)
    before = net.predict(X)
    with pytest.raises(ValueError, match=r"rate at progress 0.71 must be in \[0, 1\], got 1.01"):
        net.fit(X, Y, epochs=2, batch_size=4, verbose=0)
    np.testing.assert_array_equal(net.predict(X), before)
