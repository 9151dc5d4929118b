"""One update of the parameters at a time against the float64 twins; the declarations and their checks."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cydrop as cd
from cydrop import optimizers, reference, schedules
from cydrop._core import optimizers as core

NONE = np.empty(0, dtype=np.float32)
NO_SEGMENTS = np.zeros((0, 5))

# name: (declaration, options of the twin); learning rates large enough for five updates to matter
CASES = {
    "SGD": (cd.SGD(0.1), {}),
    "SGD with decay": (cd.SGD(0.1, weight_decay=0.05), {"weight_decay": 0.05}),
    "SGD with momentum": (cd.SGD(0.1, momentum=0.9), {"momentum": 0.9}),
    "SGD with momentum and decay": (
        cd.SGD(0.1, momentum=0.7, weight_decay=0.05),
        {"momentum": 0.7, "weight_decay": 0.05},
    ),
    "Nesterov": (cd.SGD(0.1, momentum=0.9, nesterov=True), {"momentum": 0.9, "nesterov": True}),
    "Nesterov with decay": (
        cd.SGD(0.1, momentum=0.6, nesterov=True, weight_decay=0.05),
        {"momentum": 0.6, "nesterov": True, "weight_decay": 0.05},
    ),
    "RMSprop": (cd.RMSprop(0.01), {}),
    "RMSprop with options": (
        cd.RMSprop(0.02, rho=0.5, epsilon=1e-3, weight_decay=0.05),
        {"rho": 0.5, "epsilon": 1e-3, "weight_decay": 0.05},
    ),
    "Adagrad": (cd.Adagrad(0.05), {}),
    "Adagrad with options": (
        cd.Adagrad(0.05, epsilon=1e-3, weight_decay=0.05),
        {"epsilon": 1e-3, "weight_decay": 0.05},
    ),
    "Adam": (cd.Adam(0.01), {}),
    "Adam with options": (
        cd.Adam(0.01, beta1=0.5, beta2=0.9, epsilon=1e-3, weight_decay=0.05),
        {"beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3, "weight_decay": 0.05},
    ),
    "Adam without memory": (cd.Adam(0.01, beta1=0.0, beta2=0.0), {"beta1": 0.0, "beta2": 0.0}),
    "AdamW": (cd.AdamW(0.01), {}),
    "AdamW with options": (cd.AdamW(0.05, weight_decay=0.3), {"weight_decay": 0.3}),
}
TWINS = {
    cd.SGD: reference.sgd,
    cd.RMSprop: reference.rmsprop,
    cd.Adagrad: reference.adagrad,
    cd.Adam: reference.adam,
    cd.AdamW: reference.adamw,
}


class Parameters:
    """Flat float32 parameters and the moments that an optimizer needs, all zero at first."""

    def __init__(self, optimizer, w):
        self.optimizer, self.w, self.t = optimizer, w.astype(np.float32), 0
        self.m, self.v = (np.zeros_like(self.w) if used else NONE for used in optimizer.used_moments())

    def update(self, g, clip=1.0, n_threads=1, segments=NO_SEGMENTS):
        self.t += 1
        kind, beta1, beta2, epsilon, nesterov, _ = self.optimizer.kernel_options()
        core.update(
            kind, self.w, g, self.m, self.v, self.t, self.optimizer.learning_rate, beta1, beta2, epsilon,
            self.optimizer.weight_decay, nesterov, clip, segments, n_threads,
        )  # fmt: skip

    def bits(self):
        return self.w.tobytes(), self.m.tobytes(), self.v.tobytes()


class Twin:
    """The same in float64."""

    def __init__(self, case, w):
        optimizer, self.options = case
        self.options = self.options | {"learning_rate": optimizer.learning_rate}
        self.function, self.t = TWINS[type(optimizer)], 0
        self.w = w.astype(np.float64)
        self.m, self.v = np.zeros_like(self.w), np.zeros_like(self.w)

    def update(self, g):
        self.t += 1
        self.w, self.m, self.v = self.function(self.w, g, self.m, self.v, self.t, **self.options)


def assert_agree(parameters, twin, step):
    """To a few float32 units of the weight or of the step that was taken, whichever is larger."""
    np.testing.assert_allclose(parameters.w, twin.w, rtol=1e-6, atol=step * 2e-6)
    if parameters.m.size:
        np.testing.assert_allclose(parameters.m, twin.m, rtol=2e-6, atol=1e-6)
    if parameters.v.size:
        np.testing.assert_allclose(parameters.v, twin.v, rtol=2e-6, atol=2e-6)


def gradients(n, updates=5, seed=0):
    return np.random.default_rng([seed, n]).normal(size=(updates, n)).astype(np.float32)


# The updates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 40_000])
def test_five_updates_are_those_of_the_twin(name, n):
    w = np.random.default_rng(n).normal(size=n).astype(np.float32)
    parameters, twin = Parameters(CASES[name][0], w), Twin(CASES[name], w)
    for g in gradients(n):
        parameters.update(g)
        twin.update(g.astype(float))
        assert_agree(parameters, twin, step=1.0)
    assert n == 0 or np.abs(twin.w - w).max() > 0.01


@given(n=st.integers(1, 200), name=st.sampled_from(list(CASES)), size=st.sampled_from([1e-4, 0.1, 10.0, 1e3]))
def test_updates_are_those_of_the_twin_for_any_length_and_size_of_gradient(n, name, size):
    w = np.random.default_rng(n).normal(size=n).astype(np.float32)
    parameters, twin = Parameters(CASES[name][0], w), Twin(CASES[name], w)
    for g in gradients(n, updates=3, seed=1) * np.float32(size):
        parameters.update(g)
        twin.update(g.astype(float))
    np.testing.assert_allclose(parameters.w, twin.w, rtol=2e-6, atol=2e-6 * (1 + np.abs(twin.w).max()))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("clip", [0.25, 1e-3])
def test_the_clip_factor_multiplies_the_gradient_before_anything_else(name, clip):
    w = np.random.default_rng(1).normal(size=100).astype(np.float32)
    parameters, twin = Parameters(CASES[name][0], w), Twin(CASES[name], w)
    for g in gradients(100):
        parameters.update(g, clip=clip)
        twin.update(g.astype(float) * float(np.float32(clip)))
        assert_agree(parameters, twin, step=1.0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [100, 32_768, 32_769, 70_001])
def test_the_number_of_threads_changes_no_bit(name, n):
    w = np.random.default_rng(2).normal(size=n).astype(np.float32)
    bits = set()
    for n_threads in (1, 2, 3):
        parameters = Parameters(CASES[name][0], w)
        for g in gradients(n, updates=2):
            parameters.update(g, clip=0.5, n_threads=n_threads)
        bits.add(parameters.bits())
    assert len(bits) == 1


@pytest.mark.parametrize("name", CASES)
def test_a_parameter_s_update_does_not_depend_on_its_place(name):
    """Vector code and the scalar code of what is left over must give the same bits."""
    w = np.random.default_rng(3).normal(size=50).astype(np.float32)
    steps = gradients(50, updates=3)
    together = Parameters(CASES[name][0], w)
    alone = [Parameters(CASES[name][0], w[i : i + 1]) for i in range(50)]
    for g in steps:
        together.update(g)
        for i, one in enumerate(alone):
            one.update(g[i : i + 1])
    assert np.concatenate([one.w for one in alone]).tobytes() == together.w.tobytes()


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_not_written_and_nothing_beyond_the_arrays(name):
    memory = np.full((3, 60), 7.0, dtype=np.float32)
    w = memory[0, 20:37]
    g = gradients(17)[0]
    before = g.copy()
    parameters = Parameters(CASES[name][0], w)
    parameters.w = w
    if parameters.m.size:
        parameters.m = memory[1, 20:37]
    if parameters.v.size:
        parameters.v = memory[2, 20:37]
    parameters.update(g)
    np.testing.assert_array_equal(g, before)
    assert (memory[:, :20] == 7).all()
    assert (memory[:, 37:] == 7).all()
    assert (w != 7).all()


@pytest.mark.parametrize("name", CASES)
def test_a_late_update_has_the_bias_correction_of_its_number(name):
    """Update 100,000: the powers of the decays are as good as 0, and must not become NaN on the way."""
    case = CASES[name]
    w = np.random.default_rng(4).normal(size=20).astype(np.float32)
    for t in (2, 999, 100_000, 2**40):
        parameters, twin = Parameters(case[0], w), Twin(case, w)
        parameters.t = twin.t = t - 1
        g = gradients(20)[0]
        parameters.update(g)
        twin.update(g.astype(float))
        assert_agree(parameters, twin, step=1.0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_segment_with_factors_is_updated_as_by_an_optimizer_with_the_multiplied_options(name, n_threads):
    n, cut = 80_001, 40_007
    optimizer = CASES[name][0]
    factors = np.array([[0.1, 0.3, 0.0], [2.5, 1.7, 1.3]])  # learning rate, gain and weight decay
    segments = np.column_stack([[0, cut], [cut, n - cut], factors])
    w = np.random.default_rng(6).normal(size=n).astype(np.float32)
    together = Parameters(optimizer, w)
    apart = [
        Parameters(with_factors(optimizer, *row), part)
        for row, part in zip(factors.tolist(), np.split(w, [cut]), strict=True)
    ]
    for g in gradients(n, updates=3):
        together.update(g, clip=0.5, n_threads=n_threads, segments=segments)
        for one, part in zip(apart, np.split(g, [cut]), strict=True):
            one.update(part, clip=0.5, n_threads=n_threads)
    for arena in ("w", "m", "v"):
        assert np.concatenate([getattr(one, arena) for one in apart]).tobytes() == getattr(together, arena).tobytes()


def with_factors(optimizer, learning_rate, gain, weight_decay):
    """The optimizer with multiplied options."""
    options = optimizer.options()
    options["learning_rate"] = (
        options["learning_rate"] * learning_rate * (gain * gain if isinstance(optimizer, cd.SGD) else gain)
    )
    options["weight_decay"] = (
        options["weight_decay"] * weight_decay / (gain if isinstance(optimizer, cd.AdamW) else gain * gain)
    )
    if "epsilon" in options:
        options["epsilon"] = options["epsilon"] / gain
    return type(optimizer)(**options)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gain", [0.1, 1.7])
def test_of_a_segment_with_a_gain_the_arena_holds_gain_times_the_parameter(name, gain):
    w = np.random.default_rng(8).normal(size=50).astype(np.float32)
    held, twin = Parameters(CASES[name][0], (w * gain).astype(np.float32)), Twin(CASES[name], w)
    for g in gradients(50):
        held.update((g / gain).astype(np.float32), segments=np.array([[0.0, 50.0, 1.0, gain, 1.0]]))
        twin.update(g.astype(float))
    np.testing.assert_allclose(held.w, twin.w * gain, rtol=1e-5, atol=5e-6 * gain)


@pytest.mark.parametrize("name", CASES)
def test_a_segment_without_factors_is_updated_as_all_are_and_the_rest_is_left_alone(name):
    w = np.random.default_rng(7).normal(size=200).astype(np.float32)
    all_of_it, part = Parameters(CASES[name][0], w), Parameters(CASES[name][0], w)
    for g in gradients(200, updates=2):
        all_of_it.update(g)
        part.update(g, segments=np.array([[50.0, 100.0, 1.0, 1.0, 1.0]]))
    assert part.w[50:150].tobytes() == all_of_it.w[50:150].tobytes()
    assert part.w[:50].tobytes() + part.w[150:].tobytes() == w[:50].tobytes() + w[150:].tobytes()


@pytest.mark.parametrize("name", ["RMSprop", "Adagrad", "Adam", "AdamW"])
def test_no_gradient_divides_nothing_by_nothing(name):
    w = np.ones(20, dtype=np.float32)
    parameters = Parameters(CASES[name][0], w)
    parameters.update(np.zeros(20, dtype=np.float32))
    shrink = 1 - 0.01 * 0.01 if name == "AdamW" else 1
    np.testing.assert_allclose(parameters.w, shrink, rtol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_nan_in_a_gradient_is_shown_in_its_place_alone(name):
    parameters = Parameters(CASES[name][0], np.ones(40, dtype=np.float32))
    g = gradients(40)[0]
    g[13] = math.nan
    parameters.update(g)
    assert np.flatnonzero(np.isnan(parameters.w)).tolist() == [13]


def test_a_learning_rate_of_0_changes_no_weight():
    w = np.random.default_rng(5).normal(size=40).astype(np.float32)
    for optimizer in (
        cd.SGD(0.0),
        cd.SGD(0.0, momentum=0.5),
        cd.RMSprop(0.0),
        cd.Adagrad(0.0),
        cd.Adam(0.0),
        cd.AdamW(0.0),
    ):
        parameters = Parameters(optimizer, w)
        parameters.update(gradients(40)[0])
        assert parameters.w.tobytes() == w.tobytes()


def test_the_first_steps_are_those_that_the_papers_promise():
    """Worked by hand at w = 1, g = 0.5: Adam moves by learning_rate, whatever the size of the gradient."""
    w, g = np.ones(1, dtype=np.float32), np.full(1, 0.5, dtype=np.float32)
    for optimizer, expected in [
        (cd.SGD(0.1), 1 - 0.1 * 0.5),
        (cd.SGD(0.1, momentum=0.9), 1 - 0.1 * 0.5),
        (cd.SGD(0.1, momentum=0.9, nesterov=True), 1 - 0.1 * (0.5 + 0.9 * 0.5)),
        (cd.SGD(0.1, weight_decay=0.2), 1 - 0.1 * (0.5 + 0.2)),
        (cd.RMSprop(0.1), 1 - 0.1 / math.sqrt(0.1)),
        (cd.Adagrad(0.1), 1 - 0.1),
        (cd.Adam(0.1), 1 - 0.1),
        (cd.Adam(0.1, weight_decay=100.0), 1 - 0.1),
        (cd.AdamW(0.1, weight_decay=0.2), 1 - 0.1 * 0.2 - 0.1),
    ]:
        parameters = Parameters(optimizer, w)
        parameters.update(g)
        assert parameters.w[0] == pytest.approx(expected, rel=1e-6), optimizer


# The norm ---------------------------------------------------------------------------------------------------


def norm(g, n_threads=1):
    return core.norm(g, np.empty(core.spans_of(len(g))), n_threads)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 8191, 8192, 8193, 32_768, 32_769, 100_003])
def test_the_norm_is_that_of_float64(n):
    g = np.random.default_rng(n).normal(size=n).astype(np.float32)
    expected = math.sqrt(math.fsum(float(v) ** 2 for v in g))
    assert norm(g) == pytest.approx(expected, rel=1e-13, abs=0)
    assert norm(g, 2) == norm(g)
    assert norm(g, 3) == norm(g)


def test_the_norm_overflows_and_underflows_as_late_as_float64():
    largest = np.float32(np.finfo(np.float32).max)
    assert norm(np.full(4, largest)) == pytest.approx(2 * float(largest), rel=1e-12)
    assert norm(np.full(4, 2.0**-149, dtype=np.float32)) == 2.0**-148
    assert math.isnan(norm(np.array([1.0, math.nan], dtype=np.float32)))


def test_the_twin_s_clip_factor_brings_the_global_norm_down_and_never_up():
    g = [np.array([3.0, 0.0]), np.array([[0.0], [4.0]])]
    assert reference.clip_factor(g, 1.0) == pytest.approx(0.2)
    assert reference.clip_factor(g, 5.0) == 1
    assert reference.clip_factor(g, 100.0) == 1
    assert reference.clip_factor(g, None) == 1


# The declarations -------------------------------------------------------------------------------------------

CLASSES = [cd.SGD, cd.RMSprop, cd.Adagrad, cd.Adam, cd.AdamW]


def test_the_defaults_are_those_that_the_documentation_promises():
    assert cd.SGD() == cd.SGD(learning_rate=0.01, momentum=0.0, nesterov=False, weight_decay=0.0, clip_norm=None)
    assert cd.RMSprop() == cd.RMSprop(learning_rate=1e-3, rho=0.9, epsilon=1e-8, weight_decay=0.0, clip_norm=None)
    assert cd.Adam() == cd.Adam(
        learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0, clip_norm=None
    )
    assert cd.AdamW().weight_decay == 0.01
    assert [cls.code for cls in CLASSES] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("learning_rate", -0.1, ValueError),
        ("learning_rate", math.nan, ValueError),
        ("learning_rate", math.inf, ValueError),
        ("learning_rate", "fast", TypeError),
        ("learning_rate", None, TypeError),
        ("learning_rate", True, TypeError),
        ("weight_decay", -1e-9, ValueError),
        ("weight_decay", math.nan, ValueError),
        ("weight_decay", "0", TypeError),
        ("clip_norm", 0.0, ValueError),
        ("clip_norm", -1.0, ValueError),
        ("clip_norm", math.nan, ValueError),
        ("clip_norm", "1", TypeError),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(cls, argument, value, error):
    with pytest.raises(error, match=argument):
        cls(**{argument: value})


@pytest.mark.parametrize(
    ("cls", "argument", "value", "error"),
    [
        (cd.SGD, "momentum", 1.0, ValueError),
        (cd.SGD, "momentum", -0.1, ValueError),
        (cd.SGD, "momentum", None, TypeError),
        (cd.SGD, "nesterov", 1, TypeError),
        (cd.SGD, "nesterov", True, ValueError),  # without momentum it has no meaning
        (cd.RMSprop, "rho", 1.0, ValueError),
        (cd.RMSprop, "rho", -0.5, ValueError),
        (cd.RMSprop, "epsilon", 0.0, ValueError),
        (cd.Adagrad, "epsilon", 0.0, ValueError),
        (cd.Adagrad, "epsilon", -1e-8, ValueError),
        *[
            (cls, *rest)
            for cls in (cd.Adam, cd.AdamW)
            for rest in [
                ("beta1", 1.0, ValueError),
                ("beta1", -0.1, ValueError),
                ("beta2", 1.0, ValueError),
                ("beta2", math.nan, ValueError),
                ("beta2", "0.9", TypeError),
                ("epsilon", 0.0, ValueError),
                ("epsilon", math.inf, ValueError),
            ]
        ],
    ],
)
def test_an_option_of_one_optimizer_that_cannot_be_is_refused_by_name(cls, argument, value, error):
    with pytest.raises(error, match=argument):
        cls(**{argument: value})


@pytest.mark.parametrize("cls", CLASSES)
def test_an_option_that_no_optimizer_has_is_refused(cls):
    with pytest.raises(TypeError, match="speed"):
        cls(speed=1)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_optimizer_is_found_by_its_name_its_class_and_itself(cls):
    one = cls()
    assert optimizers.resolve(cls.__name__.lower()) == one
    assert optimizers.resolve(cls.__name__) == one
    assert optimizers.resolve(cls) == one
    assert optimizers.resolve(one) is one


@pytest.mark.parametrize(
    ("wish", "error"), [("adamax", ValueError), (None, TypeError), (3, TypeError), (dict, TypeError)]
)
def test_what_is_no_optimizer_is_refused_by_name(wish, error):
    with pytest.raises(error, match="optimizer"):
        optimizers.resolve(wish)


@pytest.mark.parametrize("name", CASES)
def test_the_description_of_an_optimizer_makes_it_again(name):
    optimizer = CASES[name][0]
    assert optimizers.from_config(optimizer.config()) == optimizer


@pytest.mark.parametrize("cls", CLASSES)
def test_a_declaration_cannot_be_changed_behind_a_network_s_back(cls):
    with pytest.raises(AttributeError, match=r"cannot be changed; make another one with learning_rate=1.0"):
        cls().learning_rate = 1.0


@pytest.mark.parametrize(("code", "beta1", "beta2"), [(3, 0.9, 0.9), (0, 0.9, 0.0), (1, 0.0, 0.9)])
def test_moments_of_a_weight_without_gradient_end_at_0_and_not_as_denormals(code, beta1, beta2):
    w, m, v = (np.full(20, value, dtype=np.float32) for value in (1.0, 1e-3, 1e-3))
    g = np.zeros(20, dtype=np.float32)
    for t in range(1, 2001):
        core.update(code, w, g, m, v, t, 1e-3, beta1, beta2, 1e-8, 0.0, False, 1.0, NO_SEGMENTS, 1)
        for moment in (m, v):
            assert ((moment == 0) | (np.abs(moment) >= np.finfo(np.float32).tiny)).all()
    assert (v == 0).all()
    assert (m == 0).all() or code != 3


# A weight decay that is a schedule ----------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("units", [8, 700])  # one pass over the arenas, or inside the gradient's product
@pytest.mark.parametrize("cls", CLASSES)
def test_a_scheduled_weight_decay_is_that_of_each_batch(cls, units, clip_norm, rng):
    """Step by step with numbers, and in one call of fit with the schedule: the same bits."""
    X, y = rng.standard_normal((40, 20)).astype(np.float32), rng.integers(0, 3, 40)
    layers = [cd.Dense(units), cd.ReLU(), cd.Dense(3, decay_factor={"bias": 0.5})]
    nets = [
        cd.Network(layers, optimizer=cls(0.01, weight_decay=decay, clip_norm=clip_norm), seed=0)
        for decay in (schedules.Linear(0.4, 0.0), 0.4)
    ]
    history = nets[0].fit(X, y, epochs=2, batch_size=10, shuffle=False, verbose=0)
    for step in range(8):
        nets[1].optimizer = cls(0.01, weight_decay=0.4 + (0.0 - 0.4) * (step / 8), clip_norm=clip_norm)
        rows = slice(step % 4 * 10, step % 4 * 10 + 10)
        nets[1].train_on_batch(X[rows], y[rows])
    for mine, other in zip(*(net.parameters().values() for net in nets), strict=True):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_allclose(history.metrics["weight_decay"], [0.25, 0.05])
    assert "weight_decay" not in nets[1].history.metrics


@pytest.mark.parametrize("cls", CLASSES)
def test_a_weight_decay_of_constant_schedule_has_the_bits_of_the_number(cls, rng, tmp_path):
    X, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
    found = []
    for decay in (0.1, schedules.Constant(0.1), lambda progress: 0.1):
        net = cd.Network([cd.Dense(3)], optimizer=cls(0.01, weight_decay=decay), seed=0)
        net.fit(X, y, epochs=2, verbose=0)
        net.partial_fit(X, y, batch_size=7)
        net.train_on_batch(X, y)
        net.backward(net.forward(X, training=True))
        net.step()
        found.append(net.predict(X).tobytes())
    assert len(set(found)) == 1


def test_files_pickles_and_copies_keep_a_scheduled_weight_decay(rng, tmp_path):
    X, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
    optimizer = cd.AdamW(schedules.CosLog4(0.04), weight_decay=schedules.FlatCos(0.02))
    assert optimizers.from_config(optimizer.config()) == optimizer
    assert optimizer.with_learning_rate(0.1).weight_decay == optimizer.weight_decay
    assert eval(repr(optimizer), vars(schedules) | vars(cd)) == optimizer
    net = cd.Network([cd.Dense(3)], optimizer=optimizer, seed=0)
    net.fit(X, y, epochs=2, verbose=0)
    net.save(tmp_path / "n")
    for again in (cd.load(tmp_path / "n"), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        again.fit(X, y, epochs=2, verbose=0)
        mine = cd.load(tmp_path / "n")
        mine.fit(X, y, epochs=2, verbose=0)
        assert again.predict(X).tobytes() == mine.predict(X).tobytes()
        assert again.optimizer == optimizer
    net.optimizer = cd.AdamW(weight_decay=lambda progress: 0.1)
    with pytest.raises(ValueError, match="weight_decay is a function of your own"):
        net.save(tmp_path / "m")


@pytest.mark.parametrize("decay", [schedules.Linear(0.1, -0.1), lambda progress: math.nan])
def test_a_weight_decay_that_leaves_its_range_is_refused_before_anything_changes(decay, rng):
    net = cd.Network([cd.Dense(3)], optimizer=cd.AdamW(weight_decay=decay), seed=0)
    with pytest.raises(ValueError, match="weight_decay at progress"):
        net.fit(rng.standard_normal((40, 6)), rng.integers(0, 3, 40), verbose=0)
    assert len(net.history) == 0


def test_a_reduced_learning_rate_leaves_a_scheduled_weight_decay_alone(rng):
    net = cd.Network([cd.Dense(3)], optimizer=cd.AdamW(weight_decay=schedules.FlatCos(0.02)), seed=0)
    reduce = cd.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1e3)
    net.fit(rng.standard_normal((40, 6)), rng.integers(0, 3, 40), epochs=3, callbacks=[reduce], verbose=0)
    assert net.optimizer.learning_rate < 1e-3
    assert net.optimizer.weight_decay == schedules.FlatCos(0.02)
