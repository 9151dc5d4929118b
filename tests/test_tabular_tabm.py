"""TabM on tables as users have them. What all estimators for tables share is tested with RealMLP's."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from onnx_session import session
from sklearn.base import clone
from sklearn.metrics import log_loss
from test_tabular import table
from test_tabular_onnx import check as check_onnx

import cydrop as cd
from cydrop import DivergedError, tabular
from cydrop._run.core import core_of
from cydrop.tabular import TabMClassifier, TabMRegressor

FAST = {"n_members": 4, "hidden_layer_sizes": (16,), "max_iter": 3, "random_state": 0}
BOTH = pytest.mark.parametrize("cls", [TabMClassifier, TabMRegressor])
SHARINGS = ["mini", "tabm", "packed"]


@pytest.fixture(scope="module")
def data():
    return table(np.random.default_rng(5))


@pytest.fixture(scope="module")
def classifier(data):
    X, price = data
    return TabMClassifier(**FAST | {"max_iter": 60}).fit(X, np.where(price > np.median(price), "dear", "cheap"))


@pytest.fixture(scope="module")
def regressor(data):
    return TabMRegressor(**FAST | {"max_iter": 60}).fit(*data)


def members(model):
    return model.network_.layers[-1]


def test_a_table_with_everything_is_learned(data, classifier, regressor):
    X, price = data
    assert classifier.score(X, np.where(price > np.median(price), "dear", "cheap")) > 0.84
    assert regressor.score(X, price) > 0.85
    assert classifier.classes_.tolist() == ["cheap", "dear"]
    assert classifier.predict_proba(X).dtype == regressor.predict(X).dtype == np.float64
    np.testing.assert_allclose(classifier.predict_proba(X).sum(axis=1), 1.0)


def test_on_a_smooth_table_the_recipe_is_better_than_boosted_trees():
    """HistGradientBoosting with its default parameters gives .940, .934 and .165 there."""
    (X, price), (X_test, price_test) = (table(np.random.default_rng(seed), 1000) for seed in (5, 55))
    recipe = {"n_members": 8, "hidden_layer_sizes": (64, 64), "random_state": 0}
    assert TabMRegressor(**recipe).fit(X, price).score(X_test, price_test) > 0.945
    y, y_test = price > np.median(price), price_test > np.median(price)
    model = TabMClassifier(**recipe, metric="log_loss").fit(X, y)
    assert model.score(X_test, y_test) > 0.93
    assert log_loss(y_test, model.predict_proba(X_test)) < 0.165


def test_pandas_polars_and_objects_give_the_same(data, regressor):
    X, price = data
    frame = pl.from_pandas(X)
    other = TabMRegressor(**FAST | {"max_iter": 60}).fit(frame, pl.Series(price))
    np.testing.assert_array_equal(other.predict(frame), regressor.predict(X))
    third = TabMRegressor(**FAST | {"max_iter": 60}).fit(X.to_numpy(dtype=object), price)
    np.testing.assert_array_equal(third.predict(X.to_numpy(dtype=object)), regressor.predict(X))


def test_units_of_the_columns_do_not_matter(data, regressor):
    X, price = data
    scaled = X.assign(size=X["size"] * 2.0**-40, rooms=X["rooms"] * 2.0**60)
    other = TabMRegressor(**FAST | {"max_iter": 60}).fit(scaled, price)
    np.testing.assert_array_equal(other.predict(scaled), regressor.predict(X))


def test_rows_never_seen_before(data, classifier, regressor):
    X, _ = data
    odd = X.head(4).copy()
    odd["street"] = ["street 1", "never", None, ""]
    odd["town"] = ["Ulm", "Paris", None, "Bern"]
    odd["size"] = [1e30, np.nan, -1e300, 0.0]
    assert np.isfinite(classifier.predict_proba(odd)).all()
    assert np.isfinite(regressor.predict(odd)).all()


# The recipe -------------------------------------------------------------------------------------------------


def test_the_network_is_that_of_the_recipe(data):
    X, price = data
    model = TabMRegressor(random_state=0, max_iter=1).fit(X, price)
    embedding, ensemble = model.network_.layers
    assert (embedding.kind, embedding.columns, embedding.size, embedding.bins) == ("piecewise_linear", 3, 16, 48)
    kinds = [type(layer).__name__ for layer in ensemble.layers]
    assert kinds == ["Dense", "ReLU", "Dropout"] * 2 + ["Dense"]
    assert [layer.units for layer in ensemble.layers if isinstance(layer, cd.Dense)] == [512, 512, 1]
    assert [layer.rate for layer in ensemble.layers if isinstance(layer, cd.Dropout)] == [0.1, 0.1]
    assert (ensemble.members, ensemble.sharing, ensemble.batches) == (32, "mini", "own")
    optimizer = model.network_.optimizer
    assert isinstance(optimizer, cd.AdamW)
    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.clip_norm) == (2e-3, 3e-4, 1.0)
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.9, 0.999, 1e-8)


def test_biases_and_the_embeddings_lines_do_not_decay(data):
    X, price = data
    model = TabMRegressor(**FAST).fit(X, price)
    embedding, ensemble = model.network_.layers
    assert embedding.decay_factor == {"slope": 0.0, "bias": 0.0}
    assert all(layer.decay_factor == {"bias": 0.0} for layer in ensemble.layers if isinstance(layer, cd.Dense))


@pytest.mark.parametrize("sharing", ["mini", "tabm"])
@pytest.mark.parametrize("numeric_embedding", ["piecewise_linear", None])
def test_columns_of_the_same_thing_begin_with_the_same_scale(sharing, numeric_embedding, data):
    X, price = data
    options = {"numeric_embedding": numeric_embedding, "sharing": sharing, "max_onehot": 10}
    model = TabMRegressor(**FAST | options, learning_rate_init=1e-30).fit(X, price)
    ensemble = members(model)
    size = 16 if numeric_embedding else 1
    expected = np.repeat(range(7), [size, size, size, 1, 3, 2, 16])  # the indicator is 3
    assert ensemble.scale_groups == tuple(expected)
    assert ensemble.first_scale == ("normal" if numeric_embedding else "signs")


def test_the_bins_are_quantiles_of_the_training_rows(data):
    X, price = data
    model = TabMRegressor(**FAST).fit(X[:300], price[:300], X_val=X[300:], y_val=price[300:])
    (part,) = model.parts_
    rows = part.preprocessor.transform(model.schema_.read([(None, name, X[name][:300]) for name in X])).rows
    edges = core_of(model.network_).made("bins").arrays()["0.edges"]
    np.testing.assert_array_equal(edges, model.network_.layers[0].quantile_edges(rows))
    assert edges.min() < -3


@pytest.mark.parametrize(("rows", "size"), [(100, 32), (2_799, 32), (2_800, 64), (4_500, 128), (6_400, 256)])
def test_batches_go_by_the_rows_to_train_on(rows, size):
    recipe = TabMRegressor().family.checked(TabMRegressor()).recipe
    assert recipe.rows_of_batch(rows) == size
    assert recipe.rows_of_batch(10**6) == 512
    assert TabMRegressor().family.checked(TabMRegressor(batch_size=7)).recipe.rows_of_batch(rows) == 7


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(
    "options", [{}, {"batches": "shared", "shared_masks": True}, {"dropout": 0.0}, {"numeric_embedding": "pbld"}]
)
def test_every_sharing_learns(sharing, options, data):
    X, price = data
    model = TabMRegressor(**FAST | {"max_iter": 40}, sharing=sharing, learning_rate_init=0.01, **options)
    assert model.fit(X, price).score(X, price) > 0.8


def test_training_ends_when_nothing_gets_better(data):
    X, price = data
    model = TabMRegressor(**FAST | {"max_iter": 500}, n_iter_no_change=3, learning_rate_init=0.02).fit(X, price)
    errors = np.array(model.history_.metrics["val_error"])
    assert model.n_iter_ == len(errors) == model.best_epochs_[0] + 3 < 500
    assert errors.argmin() + 1 == model.best_epochs_[0]


@pytest.mark.parametrize("options", [{}, {"metric": "log_loss"}])
def test_the_first_of_the_epochs_with_the_least_error_of_the_ensemble_is_kept(options, data):
    X, price = data
    y = (price > np.median(price)).astype(int)
    held = slice(300, 400)
    model = TabMClassifier(**FAST | {"max_iter": 12}, **options).fit(X[:300], y[:300], X_val=X[held], y_val=y[held])
    errors = np.array(model.history_.metrics["val_error"])
    assert model.best_epochs_ == [errors.argmin() + 1]
    p = model.predict_proba(X[held])
    error = log_loss(y[held], p) if options else (p.argmax(axis=1) != y[held]).mean()
    assert error == pytest.approx(errors.min(), rel=1e-5)


# Parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("n_members", 0, ValueError),
        ("n_members", 300, ValueError),
        ("n_members", 2.5, TypeError),
        ("sharing", "all", ValueError),
        ("sharing", None, TypeError),
        ("shared_masks", "yes", TypeError),
        ("batches", "mine", ValueError),
        ("n_iter_no_change", 0, ValueError),
        ("n_iter_no_change", None, TypeError),
        ("batch_size", "large", ValueError),
        ("batch_size", 0, ValueError),
        ("batch_size", 2.5, TypeError),
        ("batch_size", None, TypeError),
        ("learning_rate_init", None, TypeError),
        ("learning_rate_init", 0, ValueError),
        ("label_smoothing", "auto", TypeError),
        ("label_smoothing", 1.0, ValueError),
        ("numeric_embedding", "rbf", ValueError),
        ("max_onehot", -1, ValueError),
        ("metric", "auc", ValueError),
        ("dropout", 1.0, ValueError),
    ],
)
@BOTH
def test_unusable_parameters_are_named(cls, name, value, error):
    model = cls(**FAST | {name: value})
    with pytest.raises(error, match=name):
        model.fit([[1.0], [2.0]] * 9, [0, 1] * 9)
    assert vars(model) == vars(cls(**FAST | {name: value}))


def test_what_is_for_classifiers_is_refused_by_regressors():
    for options in ({"metric": "log_loss"}, {"label_smoothing": 0.1}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}=.* is for classifiers"):
            TabMRegressor(**options).fit([[1.0], [2.0]], [0.0, 1.0])


def test_divergence_says_what_an_estimator_can_do_about_it(data):
    with pytest.raises(DivergedError, match=r"is as it was before fit\. Try a smaller learning_rate_init"):
        TabMRegressor(**FAST, learning_rate_init=1e30).fit(*data)


def test_batches_are_not_cut_into_shards(data):
    model = TabMRegressor(**FAST)
    with pytest.raises(ValueError, match=r"parallel= cannot train a network with Members"):
        model.fit(*data, parallel=cd.distributed.DataParallel())
    assert vars(model) == vars(TabMRegressor(**FAST))


# Targets, weights, ensembles --------------------------------------------------------------------------------


def test_several_targets_are_learned_at_once(rng):
    X = rng.normal(size=(300, 2))
    y = np.c_[X[:, 0] * 1e6 + 1e9, X[:, 1] * 1e-6, X.sum(axis=1)]
    model = TabMRegressor(**FAST | {"max_iter": 200, "learning_rate_init": 0.01}).fit(X, y)
    assert model.predict(X).shape == (300, 3)
    assert model.score(X, y) > 0.97
    assert model.predict_mc(X[:5], 3).mean.shape == (5, 3)


@pytest.mark.parametrize("label", ["only", 3, True])
def test_one_class_is_predicted(label, rng):
    X = rng.normal(size=(20, 2))
    model = TabMClassifier(**FAST).fit(X, [label] * 20)
    assert (model.predict(X) == label).all()
    assert (model.predict_proba(X) == 1.0).all()
    assert model.n_iter_ == 1


@pytest.mark.parametrize("value", [0.0, 3.5, -1e300, 1e-300])
def test_a_constant_target_is_predicted(value, rng):
    X = rng.normal(size=(20, 2))
    assert (TabMRegressor(**FAST).fit(X, np.full(20, value)).predict(X) == value).all()


def test_two_rows_are_enough():
    X = pd.DataFrame({"a": ["x", None], "b": [None, 1.0]})
    for options in ({}, {"n_folds": 2}, {"n_ensemble": 2}, {"sharing": "packed"}):
        assert np.isfinite(TabMRegressor(**FAST, **options).fit(X, [1.0, 2.0]).predict(X)).all()
        assert TabMClassifier(**FAST, **options).fit(X, ["a", "b"]).predict_proba(X).shape == (2, 2)


@pytest.mark.parametrize("X", [pd.DataFrame({"a": ["x", "y", None] * 9}), np.ones((27, 1)), np.full((27, 2), np.nan)])
def test_tables_without_numbers_or_without_anything(X):
    y = np.arange(27) % 3
    for cls in (TabMClassifier, TabMRegressor):
        assert cls(**FAST).fit(X, y).predict(X).shape == (27,)


@BOTH
def test_a_weight_is_a_number_of_equal_rows(cls, data):
    X, price = data
    X, y = X[:30], (price[:30] > 6).astype(int)
    weight = np.arange(30) % 3
    first = cls(**FAST).fit(X, y, sample_weight=weight)
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(30), weight))
    second = cls(**FAST).fit(X.iloc[rows], y[rows])
    np.testing.assert_array_equal(first.predict(X), second.predict(X))


def test_class_weights_act_like_sample_weights(data):
    X, _ = data
    y = np.array(["a", "b"])[(np.arange(400) % 10 == 0).astype(int)]
    by_class = TabMClassifier(**FAST, class_weight={"b": 9.0}).fit(X, y)
    by_row = TabMClassifier(**FAST).fit(X, y, sample_weight=np.where(y == "b", 9.0, 1.0))
    np.testing.assert_array_equal(by_class.predict_proba(X), by_row.predict_proba(X))
    plain = TabMClassifier(**FAST).fit(X, y)
    assert by_class.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean()


@BOTH
def test_several_networks_give_their_mean(cls, data):
    X, price = data
    y = price if cls is TabMRegressor else (price > 6).astype(int)
    method = "predict" if cls is TabMRegressor else "predict_proba"
    four = cls(**FAST, n_ensemble=2, n_folds=2).fit(X, y)
    assert len(four.networks_) == len(four.histories_) == 4
    alone = []
    for part in four.parts_:
        for network in part.networks:
            single = clone(four)
            vars(single).update(vars(four) | {"parts_": [type(part)(part.preprocessor, part.standard, [network])]})
            alone.append(getattr(single, method)(X))
    np.testing.assert_allclose(getattr(four, method)(X), np.mean(alone, axis=0), rtol=1e-12)


@BOTH
@pytest.mark.parametrize("options", [{}, {"n_ensemble": 2, "n_folds": 2}])
def test_the_bits_do_not_depend_on_the_number_of_threads(cls, options, data):
    X, price = data
    y = (price > 6).astype(int)
    found = [cls(**FAST, n_threads=threads, **options).fit(X, y).predict_mc(X, 8).mean for threads in (1, 2, 3)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_line_is_printed_for_each_epoch(data, capsys):
    TabMRegressor(**FAST, verbose=1).fit(*data)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [f"epoch {n}/3" for n in (1, 2, 3)]


# Monte Carlo dropout ----------------------------------------------------------------------------------------


def test_samples_have_a_mean_and_a_spread(data, classifier, regressor):
    X, _ = data
    mc = classifier.predict_mc(X[:50], samples=200)
    assert mc.mean.shape == mc.std.shape == (50, 2)
    assert mc.entropy.shape == mc.mutual_information.shape == (50,)
    assert (mc.std > 0).all()
    np.testing.assert_allclose(mc.mean, classifier.predict_proba(X[:50]), atol=0.05)
    mc = regressor.predict_mc(X[:50], samples=60, quantiles=[0.05, 0.95], return_samples=True)
    assert mc.samples.shape == (60, 50)
    assert (mc.std > 0).all()
    np.testing.assert_array_equal(mc.mean, regressor.predict_mc(X[:50], samples=60, seed=0).mean)


def test_without_dropout_the_spread_is_that_of_the_members(data):
    X, price = data
    model = TabMRegressor(**FAST, dropout=0.0).fit(X, price)
    mc = model.predict_mc(X, samples=8, return_samples=True)
    np.testing.assert_array_equal(mc.samples[:4], mc.samples[4:])
    np.testing.assert_allclose(mc.mean, model.predict(X), rtol=1e-5)
    assert (mc.std > 0).all()
    with pytest.raises(ValueError, match=r"rate=0.5 has nothing to act on: with dropout=0"):
        model.predict_mc(X, rate=0.5)


# Files, pickles, ONNX ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"n_folds": 2, "n_ensemble": 2}, {"max_onehot": 3}, {"sharing": "packed"}])
@BOTH
def test_files_and_pickles_keep_the_bits(cls, options, data, tmp_path):
    X, price = data
    y = price if cls is TabMRegressor else (price > 6).astype(int)
    model = cls(**FAST, **options).fit(X, y)
    model.save(tmp_path / "model")
    for other in (tabular.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        np.testing.assert_array_equal(other.predict_mc(X, 5).mean, model.predict_mc(X, 5).mean)
        assert other.get_params() == model.get_params()
        assert other.best_epochs_ == model.best_epochs_
    other.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()
    np.testing.assert_array_equal(tabular.load(tmp_path / "model").fit(X, y).predict(X), model.predict(X))


@pytest.mark.parametrize("quantiles", [[], [[1.0, 2.0, 1.0], [1.0, 1.0, 1.0]], [[1.0]], None, [["a", 1.0, 1.0]]])
def test_a_file_with_other_quantiles_is_refused(quantiles, data, tmp_path):
    import json
    import zipfile

    TabMRegressor(**FAST).fit(*data).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(entries["estimator.json"])
    description["parts"][0]["preprocessor"]["quantiles"] = quantiles
    with zipfile.ZipFile(tmp_path / "model", "w") as archive:
        for name, entry in (entries | {"estimator.json": json.dumps(description)}).items():
            archive.writestr(name, entry)
    with pytest.raises(ValueError, match=r"is not an estimator that cydrop\.tabular can load: .*quantiles"):
        tabular.load(tmp_path / "model")


@pytest.mark.parametrize("options", [{}, {"n_folds": 2, "n_ensemble": 2}, {"max_onehot": 3, "numeric_embedding": None}])
@pytest.mark.parametrize("sharing", SHARINGS)
@BOTH
def test_an_onnx_model_gives_the_same(cls, sharing, options, data):
    X, price = data
    X = X.assign(town=X["town"].astype(object), flat=3.0)
    y = price if cls is TabMRegressor else (price > 6).astype(int)
    model = cls(**FAST, sharing=sharing, **options).fit(X, y)
    odd = X.head(3).copy()
    odd["size"] = [1e30, np.nan, -3e38]
    odd["street"] = ["never", None, "street 1"]
    for rows in (X, odd, odd[:1]):
        check_onnx(model, rows)


def test_dropout_may_stay_in_the_model(data):
    X, price = data
    X = X[["size", "rooms"]]
    model = TabMRegressor(**FAST, dropout=0.5).fit(X, price)
    loaded = session(cd.onnx.to_model(model, mc=True))
    feed = {"X": X.to_numpy(np.float32)}
    plain, drawn = (loaded.run(None, feed | {"training_mode": np.array(mode)})[0] for mode in (False, True))
    np.testing.assert_allclose(plain, model.predict(X.astype(np.float32)), rtol=1e-4, atol=1e-5)
    assert np.abs(drawn - plain).max() > 1e-3


def test_an_onnx_model_of_few_rows_and_numbers_that_are_equal(rng):
    for X in (np.round(rng.normal(size=(9, 2))), np.zeros((3, 2)), np.round(rng.normal(size=(20_000, 1)), 2)):
        model = TabMRegressor(**FAST).fit(X, X[:, 0])
        found = session(cd.onnx.to_model(model)).run(None, {"X": X.astype(np.float32)})[0]
        np.testing.assert_allclose(found, model.predict(X.astype(np.float32)), rtol=1e-4, atol=1e-5)
