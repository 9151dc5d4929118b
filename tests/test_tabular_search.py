"""`tabular.search`: trials side by side, the better ones for longer, the best ones together."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.metrics import log_loss

from cydrop import DivergedError, tabular
from cydrop._run.core import core_of
from cydrop.tabular import _search, _spaces
from cydrop.tabular._recipe import train_member
from cydrop.tabular._selection import select
from cydrop.tabular._table import columns_of
from cydrop.tabular._training import gathered, pairs_of

SMALL = {"hidden_layer_sizes": (16, 16), "max_iter": 30}


@pytest.fixture
def small_space(monkeypatch):
    """The published space, of narrower networks."""

    def narrow(draw, task):
        chosen = _spaces.realmlp(draw, task)
        return chosen | {"hidden_layer_sizes": (chosen["hidden_layer_sizes"][0] // 32,) * 2}

    monkeypatch.setitem(_spaces.SPACES, _spaces.RealMLP, narrow)


def tensors(model):
    return [net.parameters()[name].tobytes() for net in model.networks_ for name in net.parameters()]


def told(model):
    return [{**trial, "score": float(trial["score"])} for trial in model.trials_]


def iris():
    X, y = load_iris(return_X_y=True)
    return X[::2], y[::2]


@pytest.mark.usefixtures("small_space")
@pytest.mark.parametrize("n_threads", [2, 3])
def test_the_result_has_the_same_bits_on_any_number_of_threads(n_threads):
    X, y = iris()
    options = {"estimator": tabular.RealMLPClassifier(**SMALL), "n_trials": 5, "n_folds": 3, "random_state": 1}
    one = tabular.search(X, y, **options, n_threads=1)
    other = tabular.search(X, y, **options, n_threads=n_threads)
    assert told(one) == told(other)
    assert tensors(one) == tensors(other)
    assert one.predict_proba(X).tobytes() == other.predict_proba(X).tobytes()


@pytest.mark.usefixtures("small_space")
def test_an_executor_gives_the_same_bits():
    X, y = iris()
    options = {"estimator": tabular.RealMLPClassifier(**SMALL), "n_trials": 4, "n_folds": 2, "random_state": 1}
    here = tabular.search(X, y, **options)
    with ThreadPoolExecutor(2) as executor:
        there = tabular.search(X, y, **options, executor=executor)
    assert told(here) == told(there)
    assert tensors(here) == tensors(there)


@pytest.mark.parametrize(
    ("estimator", "metric"),
    [
        (tabular.RealMLPClassifier, "error"),
        (tabular.RealMLPClassifier, "log_loss"),
        (tabular.RealMLPRegressor, "error"),
        (tabular.TabMClassifier, "error"),
        (tabular.TabMRegressor, "error"),
    ],
)
def test_a_network_of_a_trial_is_as_the_estimator_trains_it(estimator, metric):
    classes = "Classifier" in estimator.__name__
    X, y = load_iris(return_X_y=True) if classes else load_diabetes(return_X_y=True)
    X, y = X[::3], y[::3]
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    model = estimator(metric=metric, n_folds=2, hidden_layer_sizes=(16, 16), max_iter=12, n_threads=2)
    if "TabM" in estimator.__name__:
        model.set_params(n_members=4)
    settings = model.family.checked(model)
    _, rows, _ = gathered(model, X, y, weight, 1)
    race = _search.Race(settings, rows, pairs_of(np.random.RandomState(0), rows, settings), False)
    race.trials = [_search.Trial(0, settings.recipe, {}, [5, 6])]
    race.run(None, 2)
    for place, fold in enumerate(race.folds):
        _, own, held = race.prepared(settings.recipe, fold)
        y_own, y_held = race.targets(fold, fold.train), race.targets(fold, fold.held)
        train, valid = rows.take(fold.train), rows.take(fold.held)
        member = train_member(
            settings.recipe, own, y_own, train.scaled_weight(), held, y_held, valid.scaled_weight(),
            race.trials[0].seeds[place], metric,
        )  # fmt: skip
        trained = race.trials[0].trained[place]
        assert trained.best_epoch == member.best_epoch
        assert trained.weights.parameters.tobytes() == core_of(member.network).made("test").parameters.tobytes()
        for name, values in member.history.metrics.items():
            if name != "seconds":
                assert trained.history.metrics[name] == values, name


@pytest.mark.usefixtures("small_space")
def test_the_better_trials_are_trained_for_longer():
    X, y = iris()
    base = tabular.RealMLPClassifier(**SMALL, metric="log_loss")
    model = tabular.search(X, y, estimator=base, n_trials=9, n_folds=2, random_state=0)
    epochs = [trial["epochs"] for trial in model.trials_]
    assert {2, 6, 30} <= set(epochs) <= {2, 6, 14, 30}  # the ends of the waves of the learning rate
    assert epochs[0] == 30  # the estimator as it is goes to the end
    assert sum(count > 2 for count in epochs) in (3, 4)
    assert [trial["number"] for trial in model.trials_] == list(range(9))
    assert model.trials_[0]["parameters"] == {}
    assert all(trial["parameters"]["sigma"] > 0 for trial in model.trials_[1:])
    assert model.best_score_ <= min(trial["score"] for trial in model.trials_)
    assert len(model.networks_) == 2 * sum(trial["share"] > 0 for trial in model.trials_)


@pytest.mark.usefixtures("small_space")
@pytest.mark.parametrize("task", ["classes", "numbers"])
def test_the_estimator_predicts_as_the_weighted_mean_and_can_be_saved(tmp_path, task):
    classes = task == "classes"
    X, y = iris() if classes else load_diabetes(return_X_y=True)
    base = (tabular.RealMLPClassifier if classes else tabular.RealMLPRegressor)(**SMALL)
    model = tabular.search(X, y, estimator=base, n_trials=6, n_folds=2, random_state=3)
    shares = [trial["share"] for trial in model.trials_ if trial["share"]]
    assert [part.share for part in model.parts_] == [share for share in shares for _ in range(2)]
    predict = model.predict_proba if classes else model.predict
    expected = 0
    for part in model.parts_:
        rows = part.preprocessor.transform(model.schema_.read(columns_of(X))).rows
        output = part.networks[0].predict(rows).astype(np.float64)
        if classes:
            own = output / output.sum(axis=1, keepdims=True)
        else:
            own = part.standard.undone(output, clamped=True)[:, 0]
        expected = expected + part.share * own
    np.testing.assert_allclose(predict(X), expected / sum(part.share for part in model.parts_), rtol=1e-12)
    model.save(tmp_path / "model")
    again = tabular.load(tmp_path / "model")
    assert (again.predict_proba if classes else again.predict)(X).tobytes() == predict(X).tobytes()
    assert model.predict_mc(X, 2 * len(model.parts_), seed=0).mean.shape == predict(X).shape


@pytest.mark.usefixtures("small_space")
def test_after_the_time_limit_what_was_trained_is_used():
    X, y = iris()
    base = tabular.RealMLPClassifier(hidden_layer_sizes=(16,), max_iter=100_000)
    model = tabular.search(X, y, estimator=base, n_trials=30, n_folds=2, time_limit=0.5, random_state=0)
    assert 1 <= model.trials_[0]["epochs"] < 100_000
    assert model.score(X, y) > 0.3


def test_after_a_time_that_was_over_before_training_began_there_is_an_epoch_of_the_first_trial():
    X, y = iris()
    model = tabular.search(
        X, y, estimator=tabular.RealMLPClassifier(**SMALL), n_trials=3, n_folds=2, random_state=0, time_limit=1e-9
    )
    assert model.trials_[0]["epochs"] >= 1
    assert [trial["epochs"] for trial in model.trials_[1:]] == [0, 0]
    assert [trial["share"] for trial in model.trials_] == [1, 0, 0]
    assert np.isinf([trial["score"] for trial in model.trials_[1:]]).all()


@pytest.mark.parametrize("rate", [1e8, 1e12, 1e30])
def test_trials_that_diverge_are_left_out(rate):
    X, y = iris()
    wild = tabular.RealMLPClassifier(**SMALL, learning_rate_init=rate)
    with pytest.raises(DivergedError, match="a network of every other trial"):
        tabular.search(X, y, estimator=wild, n_trials=1, n_folds=3, random_state=1)
    model = tabular.search(X, y, estimator=wild, n_trials=3, n_folds=2, random_state=1)
    assert model.trials_[0]["share"] == 0
    assert model.trials_[0]["score"] == np.inf
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (np.tile(["a", "b"], 4), "Classifier"),
        (np.arange(8) % 3, "Classifier"),
        (np.arange(8) % 3.0, "Classifier"),
        ([True, False] * 4, "Classifier"),
        (np.arange(8)[:, None] % 2, "Classifier"),
        (np.array([1, 2, None] * 3, dtype=object), "Classifier"),
        (np.array(["a", np.nan] * 4, dtype=object), "Classifier"),
        (np.array([1, "a"] * 4, dtype=object), "Classifier"),
        (np.array([1.5, None] * 4, dtype=object), "Regressor"),
        (np.arange(8) / 2, "Regressor"),
        (np.array([0.5, np.nan] * 4), "Regressor"),
        (np.arange(16).reshape(8, 2) % 2, "Regressor"),
    ],
)
def test_what_y_holds_tells_the_kind_of_estimator(y, kind):
    assert type(_search.model_of("tabm", y)).__name__ == f"TabM{kind}"


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array(["a", np.nan] * 60, dtype=object), "Input y contains NaN: rows 1, 3, 5 and 57 others have missing"),
        (np.array([1, "a"] * 60, dtype=object), "y has labels of several types"),
        (np.array([0.5, np.nan] * 60), "Input y contains NaN"),
        (None, "y"),
    ],
)
def test_a_bad_y_is_refused_by_the_estimators_own_words(y, message):
    with pytest.raises(ValueError, match=message):
        tabular.search(np.zeros((120, 2)), y, n_trials=1, n_folds=2)


def test_another_fit_of_the_result_forgets_the_search():
    X, y = iris()
    model = tabular.search(X, y, estimator=tabular.RealMLPClassifier(**SMALL), n_trials=2, n_folds=2, random_state=0)
    model.fit(X, y)
    assert not hasattr(model, "trials_")
    assert not hasattr(model, "best_score_")


def test_names_tell_classes_from_numbers_and_ask_where_they_cannot():
    X = np.arange(90.0).reshape(30, 3)
    with pytest.raises(ValueError, match=r"30 different whole numbers: are they classes, or numbers\? Give "):
        tabular.search(X, np.arange(30))
    assert isinstance(_search.model_of("tabm", np.arange(30) / 7), tabular.TabMRegressor)
    assert isinstance(_search.model_of("realmlp", ["a", "b"] * 15), tabular.RealMLPClassifier)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"estimator": "forest"}, ValueError, "estimator='forest' is not known; known are 'realmlp', 'tabm'"),
        ({"estimator": tabular.RealMLPClassifier(n_ensemble=2)}, ValueError, "n_ensemble=2; a search makes its own"),
        ({"n_trials": 0}, ValueError, "n_trials must be"),
        ({"n_folds": 1}, ValueError, "n_folds must be"),
        ({"n_folds": 200}, ValueError, "n_folds=200 needs as many different rows, got 75"),
        ({"time_limit": 0}, ValueError, "time_limit must be"),
        ({"executor": 3}, TypeError, "executor must be a concurrent.futures.Executor or None, got 3"),
    ],
)
def test_unusable_arguments_are_refused(options, error, message):
    X, y = iris()
    with pytest.raises(error, match=message):
        tabular.search(X, y, **{"n_trials": 2, "n_folds": 2} | options)


def test_greedy_selection_adds_what_helps_most_and_stops_at_the_best():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    perfect = np.eye(3)[y]
    models = [0.6 * perfect + 0.4 * rng.dirichlet(np.ones(3), 200) for _ in range(4)]
    models.append(rng.dirichlet(np.ones(3), 200))  # knows nothing

    def score(p):
        return (log_loss(y, p),)

    counts, best = select(models, score, 20)
    assert counts[4] == 0
    assert (counts[:4] > 0).sum() > 1
    assert best == score(np.tensordot(counts, models, 1) / counts.sum())
    assert best < min(score(model) for model in models)


def test_one_good_model_is_enough():
    y = np.array([0.0, 1.0, 2.0])[:, None]
    counts, best = select([y + 1, y, y - 9], lambda p: (float(np.abs(p - y).mean()),), 10)
    assert counts.tolist() == [0, 1, 0]
    assert best == (0.0,)
