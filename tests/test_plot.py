"""Pictures: what was drawn, not only that something was."""

import importlib
import math
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.exceptions import ConvergenceWarning

import cydrop as cd
from cydrop import metrics, plot
from cydrop.sklearn import MLPRegressor

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


@pytest.fixture
def history():
    return cd.History(
        {
            "loss": [0.9, 0.5, 0.4, 0.3],
            "accuracy": [0.5, 0.7, 0.8, 0.9],
            "clean_loss": [0.8, 0.4, 0.3, 0.2],
            "val_loss": [0.85, 0.55, 0.6, 0.7],
            "val_accuracy": [0.4, 0.6, 0.7, 0.65],
            "val_rmse": [math.nan, 3.0, 1.0, 2.0],
            "seconds": [0.1, 0.1, 0.1, 0.1],
        }
    )


def lines(ax):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# Learning curves


def test_a_history_draws_its_losses_and_marks_the_best_epoch(history):
    ax = history.plot()
    epochs = [1, 2, 3, 4]
    assert lines(ax) == {
        "training (dropout on)": (epochs, history.metrics["loss"]),
        "training, dropout off": (epochs, history.metrics["clean_loss"]),
        "validation": (epochs, history.metrics["val_loss"]),
        "best validation, epoch 2": ([2], [0.55]),
    }
    assert set(legend(ax)) == set(lines(ax))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_the_best_accuracy_is_the_greatest(history):
    ax = history.plot(metric="accuracy")
    assert lines(ax)["best validation, epoch 3"] == ([3], [0.7])
    assert lines(ax)["training (dropout on)"][1] == history.metrics["accuracy"]
    assert "training, dropout off" not in lines(ax)


def test_no_epoch_is_marked_where_a_name_does_not_say_which_is_best():
    history = cd.History({"val_gini": [0.1, 0.3, 0.2], "val_auc": [0.1, 0.3, 0.2]})
    assert set(lines(history.plot(metric="gini"))) == {"validation"}
    assert lines(history.plot(metric="auc"))["best validation, epoch 2"] == ([2], [0.3])


def test_a_metric_of_validation_alone_and_one_without_validation(history):
    assert set(lines(history.plot(metric="rmse"))) == {"validation", "best validation, epoch 3"}
    assert lines(history.plot(metric="seconds")) == {"seconds": ([1, 2, 3, 4], [0.1] * 4)}


def test_an_epoch_alone_is_seen():
    (line,) = cd.History({"loss": [0.5]}).plot().lines
    assert line.get_marker() == "."


def test_several_histories_have_a_colour_each(history):
    other = cd.History({"loss": [1.0, 0.7], "val_loss": [0.9, 0.8]})
    ax = plot.learning_curves({"dropout": history, "none": other})
    drawn = {line.get_label(): line for line in ax.lines}
    assert lines(ax)["none, validation"] == ([1, 2], [0.9, 0.8])
    assert lines(ax)["none, best validation, epoch 2"] == ([2], [0.8])
    colours = {
        name: {line.get_color() for label, line in drawn.items() if label.startswith(f"{name}, ")}
        for name in ("dropout", "none")
    }
    assert len(colours["dropout"]) == len(colours["none"]) == 1
    assert colours["dropout"] != colours["none"]
    styles = [drawn[f"dropout, {kind}"].get_linestyle() for kind in ("validation", "training (dropout on)")]
    assert styles == ["-", "--"]


def test_given_axes_are_drawn_into_and_no_figure_is_made(history):
    figure, (left, right) = plt.subplots(1, 2)
    assert history.plot(ax=left) is left
    assert plot.learning_curves(history, metric="accuracy", ax=right) is right
    assert plt.get_fignums() == [figure.number]
    assert len(left.lines) == 4
    assert len(right.lines) == 3


def test_axes_with_a_logarithmic_scale_keep_it(history):
    ax = plt.subplots()[1]
    ax.set_xscale("log")
    history.plot(ax=ax)
    ax.figure.canvas.draw()
    assert ax.get_xscale() == "log"


@pytest.mark.parametrize(
    ("given", "metric", "error", "message"),
    [
        (cd.History(), "loss", ValueError, "history has no epochs"),
        ({}, "loss", ValueError, "history is an empty dict"),
        ({"a": cd.History()}, "loss", ValueError, r"history\['a'\] has no epochs"),
        ({"loss": [1.0]}, "loss", TypeError, r"history\['loss'\] must be a History, .* got list"),
        (cd.History({"loss": [1.0], "val_rmse": [1.0]}), "f1", ValueError, "metric='f1' .* it has 'loss', 'rmse'"),
        (cd.History({"loss": [1.0], "val_loss": [math.nan]}), "val_loss", ValueError, "metric='val_loss' .* 'loss'$"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_figure_is_made(given, metric, error, message):
    with pytest.raises(error, match=message):
        plot.learning_curves(given, metric=metric)
    assert not plt.get_fignums()


# Bands


def monte_carlo():
    """Predictions at the inputs 3, 1, 2."""
    return cd.MonteCarlo(
        mean=np.array([[30], [10], [20]], np.float32),
        std=np.array([[3], [1], [2]], np.float32),
        quantiles=np.array([[[33], [12], [23]], [[30], [10], [20]], [[27], [9], [17]]], np.float32),
    )


def edges(band):
    """Position -> (low, high) of a filled band."""
    corners = band.get_paths()[0].vertices
    return {x: (corners[corners[:, 0] == x, 1].min(), corners[corners[:, 0] == x, 1].max()) for x in set(corners[:, 0])}


def test_bands_lie_around_the_sorted_mean():
    ax = plot.predictive_bands([[3], [1], [2]], monte_carlo(), data=([1, 5], [11, 12]))
    assert lines(ax) == {"mean": ([1, 2, 3], [10, 20, 30]), "data": ([1, 5], [11, 12])}
    wide, narrow = ax.collections
    assert edges(wide) == {1: (8, 12), 2: (16, 24), 3: (24, 36)}
    assert edges(narrow) == {1: (9, 11), 2: (18, 22), 3: (27, 33)}
    assert legend(ax) == ["mean", "± 2 std", "± 1 std", "data"]
    assert to_rgba(ax.lines[0].get_color())[:3] == tuple(wide.get_facecolor()[0][:3])


def test_bands_of_one_level_and_of_quantiles():
    ax = plot.predictive_bands([3, 1, 2], monte_carlo(), levels=1.5)
    assert edges(ax.collections[0]) == {1: (8.5, 11.5), 2: (17, 23), 3: (25.5, 34.5)}
    ax = plot.predictive_bands([3, 1, 2], monte_carlo(), bands="quantiles")
    assert edges(ax.collections[0]) == {1: (9, 12), 2: (17, 23), 3: (27, 33)}
    assert len(ax.collections) == 1
    assert lines(ax)["quantile 2"] == ([1, 2, 3], [10, 20, 30])


def test_bands_of_a_network(rng):
    x = rng.standard_normal((40, 1))
    net = cd.Network([cd.Dense(16), cd.ReLU(), cd.Dropout(0.3), cd.Dense(1)], loss="mse", seed=0)
    net.fit(x, x[:, 0] ** 2, epochs=3, verbose=0)
    mc = net.predict_mc(x, samples=20, seed=1, quantiles=[0.9, 0.1])
    ax = plot.predictive_bands(x, mc, bands="quantiles")
    found = edges(ax.collections[0])
    for position, low, high in zip(x[:, 0], mc.quantiles[1, :, 0], mc.quantiles[0, :, 0], strict=True):
        assert found[position] == (low, high)


def test_bands_of_an_estimator_with_one_target_are_those_of_its_network(rng):
    x = rng.standard_normal((30, 1))
    model = MLPRegressor((8,), dropout=0.2, batch_size=10, max_iter=2, random_state=0)
    with pytest.warns(ConvergenceWarning):
        model.fit(x, x[:, 0])
    mc = model.predict_mc(x, 10, seed=1, quantiles=[0.1, 0.9])
    assert mc.mean.shape == (30,)
    of_the_network = model.network_.predict_mc(x, 10, seed=1, quantiles=[0.1, 0.9])
    for bands in ("std", "quantiles"):
        found, expected = (plot.predictive_bands(x, one, bands=bands) for one in (mc, of_the_network))
        assert lines(found) == lines(expected)
        assert [edges(one) for one in found.collections] == [edges(one) for one in expected.collections]


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        ([1, 2], {}, ValueError, "x must have a value for each of the 3 rows of mc, got 2"),
        (np.ones((3, 2)), {}, ValueError, r"x must have shape \(n,\) or \(n, 1\).*got \(3, 2\)"),
        ([1, 2, math.nan], {}, ValueError, "x has 1 values that are NaN"),
        ([1, 2, 3], {"levels": (0,)}, ValueError, "levels must be a finite number above 0"),
        ([1, 2, 3], {"output": 1}, ValueError, "output must be at most 0"),
        ([1, 2, 3], {"bands": "sd"}, ValueError, "bands='sd' is not known"),
        ([1, 2, 3], {"data": [1, 2, 3]}, ValueError, r"data must be \(x, y\)"),
        ([1, 2, 3], {"data": ([1], [1, 2])}, ValueError, "as many x as y, got 1 and 2"),
    ],
)
def test_bands_refuse_what_they_cannot_draw(x, options, error, message):
    with pytest.raises(error, match=message):
        plot.predictive_bands(x, monte_carlo(), **options)
    assert not plt.get_fignums()


def test_bands_say_what_is_missing():
    two = cd.MonteCarlo(mean=np.zeros((3, 2), np.float32), std=np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="mc has 2 outputs: give output=0 to 1"):
        plot.predictive_bands([1, 2, 3], two)
    with pytest.raises(ValueError, match=r"needs predict_mc\(\.\.\., quantiles="):
        plot.predictive_bands([1, 2, 3], two, output=1, bands="quantiles")
    with pytest.raises(TypeError, match=r"mc must be a MonteCarlo, .* got ndarray"):
        plot.predictive_bands([1, 2, 3], two.mean)
    assert edges(plot.predictive_bands([1, 2, 3], two, output=1, levels=1).collections[0])[1] == (-1, 1)


# Calibration

PROBA = [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.1, 0.15, 0.75], [0.4, 0.3, 0.3], [0.3, 0.45, 0.25]]
LABELS = [0, 1, 0, 0, 2]


def test_the_calibration_of_a_small_example():
    """Confidences .9 .8 .75 .4 .45, right: yes yes no yes no; of four bins (.25, .5] has two rows, (.5, .75] one."""
    confidence, accuracy, count = plot.calibration(LABELS, PROBA, bins=4)
    np.testing.assert_array_equal(count, [0, 2, 1, 2])
    np.testing.assert_allclose(confidence, [math.nan, 0.425, 0.75, 0.85])
    np.testing.assert_allclose(accuracy, [math.nan, 0.5, 0, 1])
    by_hand = (2 * abs(0.5 - 0.425) + 0.75 + 2 * abs(1 - 0.85)) / 5
    assert plot.expected_calibration_error(LABELS, PROBA, bins=4) == pytest.approx(by_hand)
    assert plot.expected_calibration_error(LABELS, PROBA, bins=1) == pytest.approx(abs(3 / 5 - 0.66))


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_a_single_probability_is_calibrated_as_in_scikit_learn(rng, bins):
    p = rng.random(500)
    y = (rng.random(500) < p**1.5).astype(int)
    accuracy, confidence = calibration_curve(y, p, n_bins=bins)
    for given in (p, p[:, None]):
        mine = plot.calibration(y, given, bins)
        some = mine[2] > 0
        np.testing.assert_allclose(mine[0][some], confidence)
        np.testing.assert_allclose(mine[1][some], accuracy)
        assert mine[2].sum() == 500


def test_the_top_class_is_calibrated_as_in_scikit_learn(rng):
    p = rng.dirichlet([1, 1, 1, 1], 400)
    y = rng.integers(0, 4, 400)
    accuracy, confidence = calibration_curve(p.argmax(axis=1) == y, p.max(axis=1), n_bins=10)
    mine = plot.calibration(y, p)
    some = mine[2] > 0
    np.testing.assert_allclose(mine[0][some], confidence)
    np.testing.assert_allclose(mine[1][some], accuracy)


def test_a_certain_classifier_that_is_right_has_no_error():
    assert plot.expected_calibration_error([0, 1], np.eye(2, dtype=np.float32)) == 0
    assert plot.expected_calibration_error([0, 1], [0.0, 1.0]) == 0
    assert plot.expected_calibration_error([1, 0], [0.0, 1.0]) == 1


def test_a_reliability_diagram_shows_the_numbers():
    confidence, accuracy, count = plot.calibration(LABELS, PROBA, bins=4)
    ax = plot.reliability_diagram(LABELS, PROBA, bins=4)
    error = plot.expected_calibration_error(LABELS, PROBA, bins=4)
    name = f"expected calibration error {error:.3f}"
    assert lines(ax) == {
        "perfectly calibrated": ([0, 1], [0, 1]),
        name: (list(confidence[1:]), list(accuracy[1:])),
    }
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], count / 5)
    np.testing.assert_allclose([bar.get_x() for bar in ax.patches], [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], 0.25)
    assert name in legend(ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("confidence", "accuracy")


def test_a_reliability_diagram_takes_monte_carlo_and_given_axes():
    ax = plt.subplots()[1]
    mc = cd.MonteCarlo(mean=np.array([[0.25], [0.75]], np.float32), std=np.zeros((2, 1), np.float32))
    assert plot.reliability_diagram([0, 1], mc, ax=ax) is ax
    assert lines(ax)["expected calibration error 0.250"] == ([0.25, 0.75], [0, 1])
    assert ax.get_ylabel() == "share of label 1"
    assert plot.expected_calibration_error([0, 1], mc) == 0.25


@pytest.mark.parametrize(
    ("y", "proba", "error", "message"),
    [
        ([0, 3], [[0.5, 0.5], [1, 0]], ValueError, r"y must be labels 0\.\.1, got 3 at index 1"),
        ([0, 0.5], [0.1, 0.2], ValueError, r"y must be labels 0\.\.1, got 0.5 at index 1"),
        ([0], [0.1, 0.2], ValueError, "a label for each of the 2 rows of proba, got 1"),
        ([0], [1.5], ValueError, r"proba must be probabilities in \[0, 1\]"),
        ([0], [math.nan], ValueError, r"proba must be probabilities in \[0, 1\]"),
        ([0], [[0.9, 0.8]], ValueError, "the rows of proba must sum to 1"),
        ([0], [[[0.9]]], ValueError, "proba must have shape"),
        (["a"], [0.9], TypeError, "y must be numeric"),
        ([], [], ValueError, "with n at least 1"),
    ],
)
def test_calibration_refuses_what_is_no_classifier(y, proba, error, message):
    for function in (plot.calibration, plot.expected_calibration_error, plot.reliability_diagram):
        with pytest.raises(error, match=message):
            function(y, proba)
    assert not plt.get_fignums()


# Uncertainty


def test_an_interval_band_is_sorted_and_marks_what_is_outside():
    ax = plot.interval_band([[3], [1], [2]], [[29, 31], [8, 12], [19, 22]], y=[30, 13, 19], center=[30, 10, 20])
    (band,) = ax.collections
    assert edges(band) == {1: (8, 12), 2: (19, 22), 3: (29, 31)}
    assert lines(ax) == {
        "center": ([1, 2, 3], [10, 20, 30]),
        "inside": ([3, 2], [30, 19]),
        "outside: 33.3% of 3": ([1], [13]),
    }
    assert legend(ax) == ["interval", "center", "inside", "outside: 33.3% of 3"]
    assert to_rgba(ax.lines[0].get_color())[:3] == tuple(band.get_facecolor()[0][:3])
    ax = plt.subplots()[1]
    assert plot.interval_band([1, 2], [[0, 1], [0, 1]], ax=ax) is ax
    assert not ax.lines


@pytest.mark.parametrize(
    ("x", "intervals", "options", "message"),
    [
        ([1, 2], [[0, 1]], {}, r"each of the 2 x, shape \(2, 2\), got \(1, 2\)"),
        ([1], [0, 1], {}, r"shape \(1, 2\), got \(2,\)"),
        ([1], [[1, 0]], {}, "intervals has 1 rows whose lower end is not below"),
        ([1], [[math.nan, 0]], {}, "intervals has 1 rows whose lower end is not below"),
        ([1], [[-math.inf, 0]], {}, "1 rows without bounds"),
        ([1], [[0, 1]], {"y": [1, 2]}, "y must have a value for each of the 1 x, got 2"),
        ([1], [[0, 1]], {"center": [1, 2]}, "center must have a value for each of the 1 x, got 2"),
        ([1], [[0, 1]], {"y": [math.nan]}, "y has 1 values that are NaN"),
        (np.ones((3, 2)), [[0, 1]] * 3, {}, r"x must have shape \(n,\) or \(n, 1\)"),
    ],
)
def test_an_interval_band_refuses_what_it_cannot_draw(x, intervals, options, message):
    with pytest.raises(ValueError, match=message):
        plot.interval_band(x, intervals, **options)
    assert not plt.get_fignums()


def test_a_coverage_curve_lies_in_a_band_around_the_diagonal():
    y = [0.1, 0.2, 0.3, 0.9]
    ax = plot.coverage_curve(y, {0.5: [[0, 0.25]] * 4, 0.8: [[0, 0.5]] * 4})
    assert lines(ax) == {"as asked for": ([0, 1], [0, 1]), "observed": ([0.5, 0.8], [0.5, 0.75])}
    found = edges(ax.collections[0])
    assert found[0.5] == (0, 1)  # 1/2 ± 2 sqrt(1/16)
    assert found[0.0] == (0, 0)
    assert found[0.9] == pytest.approx((0.6, 1))
    assert legend(ax) == ["± 2 standard errors of 4 rows", "as asked for", "observed"]
    ax = plot.coverage_curve(y, [[0.15, 0.5]] * 4, [0.25, 0.75])
    assert lines(ax)["observed"] == ([0.25, 0.75], [0.25, 0.75])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("quantile", "share of y up to the prediction")


def test_the_error_rises_with_the_uncertainty():
    ax = plot.error_by_uncertainty([1, 2, 3, 4], [0, 0, 0, 0], [1, 1, 2, 2], bins=2)
    assert lines(ax) == {"4 rows in 2 bins": ([1, 2], [1.5, 3.5])}
    mc = cd.MonteCarlo(mean=np.zeros((4, 1), np.float32), std=np.array([[1], [1], [2], [2]], np.float32))
    ax = plot.error_by_uncertainty([1, 2, 3, 4], mc, bins=4)
    drawn = lines(ax)
    assert drawn["4 rows in 2 bins"] == ([1, 2], [1.5, 3.5])
    assert drawn["normal with this std"] == ([0, 2], pytest.approx([0, 2 * math.sqrt(2 / math.pi)]))
    assert ax.get_xlabel() == "predicted standard deviation"


def test_a_rejection_curve_is_seen_between_chance_and_the_oracle():
    rejected, score, oracle = metrics.rejection_curve(LABELS, PROBA)
    ax = plot.rejection_curve(LABELS, PROBA)
    ratio = metrics.rejection_ratio(LABELS, PROBA)
    assert lines(ax) == {
        f"least certain first, rejection ratio {ratio:.2f}": (list(rejected), list(score)),
        "oracle": (list(rejected), list(oracle)),
        "at random": ([0, 1], [score[0]] * 2),
    }
    assert ax.get_ylabel() == "accuracy of the rest"
    several = plot.rejection_curve(LABELS, PROBA, {"a": [1, 2, 3, 4, 5], "b": [5, 4, 3, 2, 1]})
    assert [name.split(",")[0] for name in legend(several)] == ["a", "b", "oracle", "at random"]


def test_a_rejection_curve_of_numbers_and_of_what_has_no_errors():
    ax = plot.rejection_curve([1, 2], [1, 2], [0, 1])
    assert legend(ax) == ["least certain first", "oracle", "at random"]
    assert ax.get_ylabel() == "root mean squared error of the rest"
    mc = monte_carlo()
    assert plot.rejection_curve([1, 2, 3], mc).get_ylabel() == "root mean squared error of the rest"
    classes = cd.MonteCarlo(mean=np.array([[0.9]]), std=np.array([[0.1]]), entropy=np.array([[0.3]]))
    assert plot.rejection_curve([1], classes).get_ylabel() == "accuracy of the rest"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot.coverage_curve([1], {}), "predicted is an empty dict"),
        (lambda: plot.rejection_curve([1], [1], {}), "uncertainty is an empty dict"),
        (lambda: plot.rejection_curve([1], [1], {"a": [1, 2]}), "uncertainty must have a value for each of the 1 rows"),
        (lambda: plot.error_by_uncertainty([1], [1]), "uncertainty must be given"),
    ],
)
def test_pictures_of_uncertainty_refuse_what_they_cannot_draw(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
    assert not plt.get_fignums()


# Weights


def built(features=6, units=5):
    net = cd.Network([cd.Dropout(0.1), cd.Dense(units), cd.ReLU(), cd.Dense(2)], seed=0).build(features)
    return net, net.parameters()["1.weight"]


def test_the_first_layers_weights_are_tiles_of_one_image():
    net, weights = built()
    weights[...] = np.arange(30).reshape(6, 5) - 20
    ax = plot.first_layer_weights(net, shape=(2, 3), units=4)
    (image,) = ax.images
    n = math.nan
    expected = [
        [n, n, n, n, n, n, n, n, n],
        [n, -20, -15, -10, n, -19, -14, -9, n],
        [n, -5, 0, 5, n, -4, 1, 6, n],
        [n, n, n, n, n, n, n, n, n],
        [n, -18, -13, -8, n, -17, -12, -7, n],
        [n, -3, 2, 7, n, -2, 3, 8, n],
        [n, n, n, n, n, n, n, n, n],
    ]
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), n), expected)
    assert image.get_clim() == (-20, 20)
    assert image.get_cmap().name == "RdBu_r"
    assert len(ax.figure.axes) == 1


def test_images_are_square_unless_told_and_places_that_are_left_over_stay_empty():
    net, weights = built(9, 3)
    drawn = np.ma.filled(plot.first_layer_weights(net).images[0].get_array(), math.nan)
    assert drawn.shape == (9, 9)
    np.testing.assert_array_equal(drawn[1:4, 5:8], weights[:, 1].reshape(3, 3))
    assert np.isnan(drawn[5:8, 5:8]).all()


def test_weights_of_zero_can_be_drawn():
    net, weights = built(9, 3)
    weights[...] = 0
    assert plot.first_layer_weights(net).images[0].get_clim() == (-1, 1)


def test_weights_that_are_no_images_are_refused():
    net, _ = built()
    for options, message in (
        ({}, r"6 features are no square image: give shape=\(height, width\)"),
        ({"shape": (2, 2)}, r"shape=\(2, 2\) has 4 pixels, .* has 6 inputs"),
        ({"shape": 6}, "shape must be"),
        ({"units": 0}, "units must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            plot.first_layer_weights(net, **options)
    with pytest.raises(ValueError, match="no dense layer"):
        plot.first_layer_weights(cd.Network([cd.ReLU()], loss="mse").build(4))
    with pytest.raises(RuntimeError, match="needs a built network"):
        plot.first_layer_weights(cd.Network([cd.Dense(2)]))
    assert not plt.get_fignums()


# Around them


def test_no_style_is_set_and_nothing_is_shown(history, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *a, **k: pytest.fail("shown"))
    before = dict(matplotlib.rcParams)
    history.plot()
    plot.predictive_bands([3, 1, 2], monte_carlo())
    plot.reliability_diagram(LABELS, PROBA)
    plot.first_layer_weights(built(9)[0])
    plot.interval_band([1, 2], [[0, 1], [0, 2]], [3, 1], [0.5, 1])
    plot.coverage_curve([1, 2], {0.5: [[0, 1], [0, 1]]})
    plot.error_by_uncertainty([1, 2], [1, 1], [1, 2])
    plot.rejection_curve(LABELS, PROBA)
    assert dict(matplotlib.rcParams) == before
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()


def test_without_matplotlib_the_numbers_are_there_and_pictures_say_what_to_install(history, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for draw in (
        history.plot,
        lambda: plot.predictive_bands([3, 1, 2], monte_carlo()),
        lambda: plot.reliability_diagram(LABELS, PROBA),
        lambda: plot.first_layer_weights(built(9)[0]),
        lambda: plot.interval_band([1], [[0, 1]]),
        lambda: plot.coverage_curve([1], {0.5: [[0, 1]]}),
        lambda: plot.error_by_uncertainty([1], [1], [1]),
        lambda: plot.rejection_curve(LABELS, PROBA),
    ):
        with pytest.raises(ImportError, match=r'pip install "cydrop\[plot\]"'):
            draw()
    assert importlib.reload(plot).expected_calibration_error(LABELS, PROBA) > 0


def test_neither_cydrop_nor_its_plots_import_matplotlib():
    script = "import sys, cydrop as cd; cd.plot.calibration; import cydrop.plot; print('matplotlib' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"
