"""What is assigned to a network or a layer is obeyed by everything, or refused with a sentence that says what to do."""

import copy
import pickle

import numpy as np
import pytest

import cydrop as cd


def make(*middle, loss="cross_entropy", seed=0, **options):
    return cd.Network([cd.Dense(16), cd.ReLU(), *middle, cd.Dense(3)], loss=loss, seed=seed, n_threads=1, **options)


@pytest.fixture
def table(rng):
    X = rng.standard_normal((90, 5)).astype(np.float32)
    return X, rng.integers(0, 3, 90)


@pytest.mark.parametrize("layer", [
    cd.Dense(3), cd.ReLU(), cd.LeakyReLU(), cd.ELU(), cd.Dropout(0.5), cd.AlphaDropout(), cd.GaussianDropout(),
    cd.Dropout("learn"), cd.GaussianNoise(), cd.LayerNorm(), cd.BatchNorm(), cd.losses.Huber(), cd.Adam(),
    cd.schedules.Linear(1),
], ids=lambda layer: type(layer).__name__)  # fmt: skip
def test_declarations_cannot_be_changed(layer):
    before = layer.options()
    for name in layer.options():
        with pytest.raises(AttributeError, match=f"cannot be changed; make another one with {name}=7"):
            setattr(layer, name, 7)
        with pytest.raises(AttributeError, match=f"make another one without {name}"):
            delattr(layer, name)
    for name in ("trainable", "p", "lr"):
        with pytest.raises(AttributeError, match=f"has no option '{name}'"):
            setattr(layer, name, False)
    assert layer.options() == before


class Tagged(cd.Dropout):
    def __init__(self, rate, tag=""):
        super().__init__(rate)
        self.tag = tag


class Warming(cd.schedules.Schedule):
    def __init__(self, peak):
        self.peak = peak

    def __call__(self, progress):
        return self.peak * min(1.0, 2 * progress)


def test_a_subclass_of_a_declaration_keeps_what_it_likes_beside_the_options(table):
    layer, schedule = Tagged(0.5, "x"), Warming(0.25)
    net = make(layer, optimizer=cd.SGD(schedule))
    assert net.fit(*table, epochs=2, batch_size=90, verbose=0).metrics["learning_rate"] == [0.0, 0.25]
    again = pickle.loads(pickle.dumps(net))
    assert again.layers[2].tag == "x"
    assert again.optimizer.learning_rate.peak == 0.25
    for name in ("rate", "mode", "mask"):
        with pytest.raises(AttributeError, match="cannot be changed"):
            setattr(layer, name, 0.1)


def test_a_used_layer_cannot_be_changed_either(table):
    layer = cd.Dropout(0.5)
    layer.forward(np.ones((2, 3)))
    net = make(layer)
    net.fit(*table, epochs=1, verbose=0)
    with pytest.raises(AttributeError, match=r"or call network.set_rate\(place, rate\)"):
        layer.rate = 1.5
    np.testing.assert_array_equal(layer.mask, net.masks()[0])


def test_the_layers_of_a_network_are_a_tuple(table):
    net = make(cd.Dropout(0.5))
    with pytest.raises(AttributeError, match="make another Network, or call set_rate"):
        net.layers = [cd.Dense(3)]
    with pytest.raises(AttributeError, match="insert"):
        net.layers.insert(0, cd.Dropout(0.5))
    with pytest.raises(TypeError, match="item assignment"):
        net.layers[1] = cd.Tanh()
    assert [type(layer) for layer in net.layers] == [cd.Dense, cd.ReLU, cd.Dropout, cd.Dense]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("learning_rate", "with_learning_rate"), ("dropout", "set_rate"), ("trainable", "learning_rate_factor=0"),
     ("weights", "parameters"), ("epochs", "give it to fit"), ("nonsense", "")],
)  # fmt: skip
def test_an_attribute_that_nothing_reads_is_refused(name, hint):
    with pytest.raises(AttributeError, match=f"no attribute '{name}' to set.*{hint}"):
        setattr(make(), name, 1)


@pytest.mark.parametrize("value", [{}, None, {"loss": [1.0]}])
def test_a_history_that_is_none_is_refused_before_any_epoch_is_lost(value):
    net = make()
    before = net.history
    with pytest.raises(TypeError, match=r"history must be a cydrop\.History, got"):
        net.history = value
    assert net.history is before


def test_a_subclass_may_have_attributes_of_its_own(table):
    class Named(cd.Network):
        pass

    net = Named([cd.Dense(3)], seed=0)
    net.name = "mine"
    net.fit(*table, epochs=1, verbose=0)
    assert pickle.loads(pickle.dumps(net.name)) == copy.deepcopy(net.name) == "mine"


def test_sets_and_dicts_of_layers_have_no_order_to_rely_on():
    for layers in ({cd.Dense(2), cd.ReLU()}, {"a": cd.Dense(2)}, frozenset([cd.Dense(2)])):
        with pytest.raises(TypeError, match="layers must be a list of layers"):
            cd.Network(layers)
    assert len(cd.Network(layer for layer in [cd.Dense(2), cd.ReLU()]).layers) == 2


# Rates ------------------------------------------------------------------------------------------------------


def everything(net, X):
    """What depends on rates: masks, training, prediction, Monte Carlo, copies."""
    mc = net.predict_mc(X, 20, seed=3).std
    net.forward(X, training=True)
    masks = [mask.copy() for mask in net.masks()]
    net.train_on_batch(X, np.arange(len(X)) % 3)
    return [mc, net.predict(X), *masks]


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize(
    ("layer", "rate"),
    [(cd.Dropout(0.5), 0.2), (cd.Dropout(0.0), 0.5), (cd.Dropout(0.5), 0.0), (cd.Dropout(0.3, mode="vanilla"), 0.6),
     (cd.Dropout(0.5, shared="batch"), 0.1), (cd.GaussianDropout(0.5), 0.1), (cd.GaussianNoise(0.1), 0.5),
     (cd.AlphaDropout(0.1), 0.4), (cd.Dense(16, drop_connect=0.0), 0.5), (cd.Dense(16, drop_connect=0.3), 0.1),
     (cd.Dropout(0.1), cd.schedules.Linear(0.6, 0.1))],
    ids=repr,
)  # fmt: skip
def test_a_rate_that_is_set_is_obeyed_as_if_it_had_been_declared(table, tmp_path, layer, rate, built):
    X = table[0]
    net, declared = make(layer, cd.Dropout(0.4)), make(layer.with_rate(rate), cd.Dropout(0.4))
    if built:
        net.build(5)
    net.set_rate(2, rate)
    assert net.layers[2].options() == declared.layers[2].options()
    assert layer.options() != net.layers[2].options()  # the layer itself stays what it was
    net.save(tmp_path / "net")
    copies = [net, cd.load(tmp_path / "net", n_threads=1), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)]
    wanted = everything(declared, X)
    for one in copies:
        for found, value in zip(everything(one, X), wanted, strict=True):
            np.testing.assert_array_equal(found, value)


def test_a_rate_raised_from_zero_draws_a_mask_of_its_own(table):
    net = make(cd.Dropout(0.0), cd.Dense(16), cd.Dropout(0.5)).build(5)
    net.set_rate(2, 0.5)
    net.forward(table[0], training=True)
    first, second = net.masks()
    assert 0.4 < (first == second).mean() < 0.6


def test_training_goes_on_after_a_change_of_rate_with_its_moments_and_steps(table):
    X, y = table
    net, other = (make(cd.Dropout(0.5), optimizer=cd.Adam(0.01)) for _ in range(2))
    for one in (net, other):
        one.fit(X, y, epochs=2, verbose=0)
    net.set_rate(2, 0.5)  # the same
    for one in (net, other):
        one.fit(X, y, epochs=2, verbose=0)
    np.testing.assert_array_equal(net.predict(X), other.predict(X))


def test_a_callback_may_change_a_rate(table):
    X, y = table
    rates = []

    def fade(network, epoch, metrics):
        rates.append(network.layers[2].rate)
        network.set_rate(2, network.layers[2].rate / 2)

    net = make(cd.Dropout(0.8))
    net.fit(X, y, epochs=3, verbose=0, callbacks=[cd.callbacks.LambdaCallback(fade)])
    assert rates == [0.8, 0.4, 0.2]
    by_hand = make(cd.Dropout(0.8))
    for rate in rates:
        by_hand.set_rate(2, rate)
        by_hand.fit(X, y, epochs=1, verbose=0)
    np.testing.assert_array_equal(net.predict(X), by_hand.predict(X))


def test_masks_and_backward_belong_to_the_pass_before_the_change(table):
    X = table[0]
    net, other = make(cd.Dropout(0.5)), make(cd.Dropout(0.5))
    for one in (net, other):
        one.forward(X, training=True)
    net.set_rate(2, 0.1)
    np.testing.assert_array_equal(net.masks()[0], other.masks()[0])
    grad = np.ones((90, 3), dtype=np.float32)
    np.testing.assert_array_equal(net.backward(grad), other.backward(grad))


def test_a_rate_out_of_range_or_of_no_layer_changes_nothing(table):
    net = make(cd.Dropout(0.5)).build(5)
    for place, rate, error in ((2, 1.5, ValueError), (2, "a", TypeError), (2, float("nan"), ValueError),
                               (1, 0.5, ValueError), (4, 0.5, ValueError), (-1, 0.5, ValueError),
                               ("2", 0.5, TypeError)):  # fmt: skip
        with pytest.raises(error, match=r"rate|place"):
            net.set_rate(place, rate)
    with pytest.raises(ValueError, match=r"which has no rate; places with one are \["):
        net.set_rate(1, 0.5)
    assert net.layers[2].rate == 0.5


# Loss and threads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("built", [False, True])
def test_a_loss_that_is_assigned_is_obeyed_by_training_and_evaluation(table, built):
    X = table[0]
    y = 2 * X[:, :3]
    net, declared = make(), make(loss="mse")
    if built:
        net.build(5)
    net.loss = "mse"
    for one in (net, declared):
        one.fit(X, y, epochs=20, verbose=0)
    assert net.loss == cd.losses.MSE()
    assert net.evaluate(X, y) == declared.evaluate(X, y)
    assert net.history.metrics["loss"] == declared.history.metrics["loss"]
    np.testing.assert_array_equal(net.predict(X), declared.predict(X))


def test_an_option_of_the_loss_is_obeyed_by_all_and_kept_in_files(table, tmp_path):
    X, y = table
    net, declared = make(), make(loss=cd.losses.CrossEntropy(0.2, r_drop=1.0))
    net.fit(X, y, epochs=1, verbose=0)
    declared.loss = "cross_entropy"
    declared.fit(X, y, epochs=1, verbose=0)
    net.loss = declared.loss = cd.losses.CrossEntropy(0.2, r_drop=1.0)
    net.save(tmp_path / "net")
    for one in (net, declared, loaded := cd.load(tmp_path / "net", n_threads=1)):
        one.fit(X, y, epochs=2, verbose=0)
    assert net.evaluate(X, y) == declared.evaluate(X, y) == loaded.evaluate(X, y)


def test_a_loss_that_does_not_fit_is_refused_and_changes_nothing(table):
    net = make().build(5)
    with pytest.raises(ValueError, match="two units per target"):
        net.loss = "gaussian_nll"
    with pytest.raises(ValueError, match="is not known"):
        net.loss = "nonsense"
    assert net.loss == cd.losses.CrossEntropy()
    net.fit(*table, epochs=1, verbose=0)

    def change(network, epoch, metrics):
        network.loss = "mse"

    with pytest.raises(RuntimeError, match="cannot be changed while fit runs"):
        net.fit(*table, epochs=1, verbose=0, callbacks=[cd.callbacks.LambdaCallback(change)])


def test_the_number_of_threads_can_be_assigned_and_changes_no_bits(rng):
    X, y = rng.standard_normal((512, 100)).astype(np.float32), rng.integers(0, 3, 512)
    nets = [make(cd.Dropout(0.5)) for _ in range(3)]
    for net in nets:
        net.fit(X, y, epochs=1, verbose=0)
    nets[1].n_threads = 3
    nets[2].n_threads = None
    assert [net.n_threads for net in nets[:2]] == [1, 3]
    for net in nets:
        net.fit(X, y, epochs=1, verbose=0)
    assert len({net.predict(X).tobytes() for net in nets}) == 1
    for wrong in (0, -1, 1.5, "2", 10**9):
        with pytest.raises((ValueError, TypeError), match="n_threads"):
            nets[0].n_threads = wrong
    assert nets[0].n_threads == 1


# Layers alone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer", [cd.Dropout(0.5, seed=1), cd.GaussianDropout(0.5), cd.GaussianNoise(), cd.AlphaDropout(), cd.ReLU()],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_a_layer_alone_takes_any_width(layer):
    for shape in ((2, 3), (2, 4), (5, 2, 2), (3,), (2, 3)):
        x = np.full(shape, 2.0)
        assert layer.forward(x).shape == shape
        assert layer.backward(np.ones(shape)).shape == shape


def test_the_masks_of_a_layer_alone_go_on_after_another_width():
    layer, same = cd.Dropout(0.5, seed=1), cd.Dropout(0.5, seed=1)
    layer.forward(np.ones((8, 8)))
    layer.forward(np.ones((2, 3)))
    layer.forward(np.ones((8, 8)))
    masks = []
    for _ in range(3):
        same.forward(np.ones((8, 8)))
        masks.append(same.mask)
    np.testing.assert_array_equal(layer.mask, masks[2])
    assert (layer.mask != masks[0]).any()


@pytest.mark.parametrize("layer", [cd.Dropout(0.5), cd.Dense(2), cd.BatchNorm()], ids=["Dropout", "Dense", "BatchNorm"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0,), (2, 0, 3)])
def test_a_layer_alone_names_an_input_without_elements(layer, shape):
    with pytest.raises(ValueError, match="x is empty: shape "):
        layer.forward(np.zeros(shape))


def test_a_layer_with_weights_stays_with_its_width():
    layer = cd.Dense(2)
    layer.forward(np.ones((2, 3)))
    with pytest.raises(ValueError, match="3 columns, got 4"):
        layer.forward(np.ones((2, 4)))
