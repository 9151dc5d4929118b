"""Random search for people: folds and configurations side by side, the better ones for longer, the best ones together.

trial      a configuration, drawn at random (_spaces), with a network for each fold
race       all trials up to the first rung, the best third up to the second, ...          (_run.many)
selection  of what was trained, those whose mean predicts held-out rows best              (_selection)
"""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone

from cydrop._base import checks, threads
from cydrop._core import cpu
from cydrop._run.core import core_of
from cydrop._run.many import Judge, ManyJob, OneOfMany, Run, finish_all
from cydrop._run.prediction import predict
from cydrop._run.rows import NO_ORDER, checked_rows
from cydrop._run.state import Weights
from cydrop.errors import DivergedError
from cydrop.history import History
from cydrop.losses import CrossEntropy
from cydrop.many import running
from cydrop.network import Network
from cydrop.tabular._columns import Doubles, is_missing
from cydrop.tabular._estimator import TableEstimator
from cydrop.tabular._estimators import RealMLPClassifier, RealMLPRegressor, TabMClassifier, TabMRegressor
from cydrop.tabular._parts import Part, Rows
from cydrop.tabular._preprocessing import Prepared
from cydrop.tabular._recipe import CLASSES, AnyPreprocessor, Recipe, Settings
from cydrop.tabular._selection import Score, select
from cydrop.tabular._spaces import SPACES, Draw, drawn
from cydrop.tabular._targets import Standard
from cydrop.tabular._training import gathered, pairs_of, random_state_of

NAMED: dict[str, dict[str, Any]] = {
    "realmlp": {CLASSES: RealMLPClassifier, "numbers": RealMLPRegressor},
    "tabm": {CLASSES: TabMClassifier, "numbers": TabMRegressor},
}
FEW_LABELS = 20  # different whole numbers in y that are taken for classes without asking
BETTER = 3  # at each rung one of so many trials goes on
MOST_CHOSEN = 40  # networks' shares that the selection deals out
TOGETHER = 4  # trials that are trained side by side before the first rung: what has lost gives its memory back
SMALLEST = 1e-300  # of a probability whose logarithm is taken
DIGITS = 6  # of a share of wrong rows


@dataclass(eq=False)
class Fold:
    """Training and held-out rows, as one trial's networks take them."""

    train: NDArray[np.intp]
    held: NDArray[np.intp]
    standard: Standard | None
    prepared: dict[int, tuple[AnyPreprocessor, Prepared, Prepared]] = field(default_factory=dict)  # by max_onehot


@dataclass(eq=False)
class Trained:
    """What is left of a network whose training has ended."""

    weights: Weights
    history: History
    best_epoch: int


@dataclass(eq=False)
class Trial:
    """A configuration, with a network for each fold."""

    number: int
    recipe: Recipe
    chosen: dict[str, Any]
    seeds: list[int]
    members: list[OneOfMany] = field(default_factory=list)  # those that are trained at the moment
    trained: list[Trained] = field(default_factory=list)
    diverged: DivergedError | None = None  # one of its networks, which leaves it out
    predictions: Doubles | None = None  # of the rows that the networks were not trained on, (n, k)
    score: Score = (math.inf,)
    goal: float = 0.0  # share of training

    @property
    def running(self) -> float:
        """The mean of the folds' scores so far; less is better. A trial with a network that has diverged is lost."""
        if any(member.diverged for member in self.members):
            return math.inf
        return sum(member.score for member in self.members) / len(self.members)


def search(
    X: Any,
    y: Any,
    *,
    estimator: str | BaseEstimator = "realmlp",
    n_trials: int = 50,
    n_folds: int = 8,
    time_limit: float | None = None,
    random_state: Any = None,
    executor: Any = None,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
    verbose: bool | int = False,
) -> Any:
    """Random search, and an ensemble of the best that it has found.

    The first trial is the estimator as it is; the others are drawn from TabArena's space for it (Erickson et al. 2025,
    arXiv 2506.16791). Each has a network for every fold, all of them trained side by side. Training is a race: where
    the learning rate of RealMLP comes to 0 for the first, second and third time (after 1, 3 and 7 fifteenths of the
    epochs; of TabM after 10 and 30 epochs), the best third of the trials goes on (successive halving, Jamieson and
    Talwalkar 2016). All that was trained, the losers too, is then a candidate for the ensemble: greedy selection
    (Caruana et al. 2004) by the rows that each network held out.

    Parameters
    ----------
    X, y
        As for the estimator's `fit`.
    estimator : "realmlp", "tabm", or an estimator of `cydrop.tabular`
        By name, labels or numbers are told from y: fractions, or several columns, are numbers. An estimator says which
        it is, and its parameters hold for what the search does not choose.
    n_trials : int >= 1
    n_folds : int >= 2
        The rows are divided into this many parts, each of which is held out once in every trial.
    time_limit : float > 0 or None
        Seconds after which training ends, wherever it stands; what was trained until then is used, and at least an
        epoch of the first trial is. With one the result depends on how fast the machine is.
    random_state : int, numpy.random.RandomState or None
        For trials, folds, weights, masks and shuffles. The same int, data and parameters give the same bits, on any
        number of threads.
    executor : concurrent.futures.Executor or None
        Where the networks are trained, as for `cydrop.fit_many`.
    sample_weight : array-like, shape (n_samples,), or None
    n_threads : int or None
        Threads for all networks together; None takes what the machine grants.
    verbose : bool or int
        Whether to print a line for each rung.

    Returns
    -------
    estimator
        Fitted: it predicts as the ensemble does, can be saved, and has `trials_`: a list with a dict for each trial,
        "number", "parameters" (of the recipe: some have no name among the estimator's own), "epochs" that its networks
        were trained for, "score" on the held-out rows (the estimator's metric, less is better; infinite for a trial
        that was not trained or has diverged) and "share", how much it counts in the ensemble. `best_score_` is that of
        the ensemble on the same rows; it is a little too good, since they have chosen it. Both are for you: no file of
        `save` has them. The parameters of the estimator itself stay those that the search began with: `fit`, `clone`
        and `cross_val_score` train it anew as it is, without a search.

    Raises
    ------
    ValueError, TypeError
        For unusable arguments, before anything is trained.
    DivergedError
        When a network of every trial has diverged. A trial in which one has is left out.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from cydrop import tabular
    >>> X, y = load_iris(return_X_y=True)
    >>> model = tabular.search(X, y, n_trials=3, n_folds=2, random_state=0)
    >>> len(model.trials_)
    3
    """
    n_trials = checks.integer("n_trials", n_trials, 1)
    n_folds = checks.integer("n_folds", n_folds, 2)
    limit = None if time_limit is None else checks.number("time_limit", time_limit, 0.0, low_open=True)
    model = model_of(estimator, y)
    model.set_params(n_folds=n_folds, random_state=random_state, n_threads=n_threads)
    settings: Settings = model.family.checked(model)
    count = threads.resolve(n_threads)
    began = time.monotonic()
    schema, rows, _ = gathered(model, X, y, sample_weight, 2)
    rng = random_state_of(random_state)
    race = Race(settings, rows, pairs_of(rng, rows, settings), bool(verbose))
    draw = Draw(rng)
    for number in range(n_trials):
        recipe, chosen = (settings.recipe, {}) if number == 0 else drawn(draw, settings.recipe)
        race.trials.append(Trial(number, recipe, chosen, [int(rng.randint(2**31 - 1)) for _ in race.folds]))
    race.until = math.inf if limit is None else began + limit
    try:
        race.run(executor, count if executor is None or n_threads is not None else None)
    finally:
        if count > 1:
            cpu.rest_threads()
    counts, best = race.selected()
    model.schema_, model.parts_ = schema, race.parts(counts)
    model.trials_ = [trial_as_dict(trial, int(share)) for trial, share in zip(race.trials, counts, strict=True)]
    model.best_score_ = best[0]
    model.set_params(n_threads=n_threads)
    return model


def trial_as_dict(trial: Trial, share: int) -> dict[str, Any]:
    """What the user is told of a trial."""
    epochs = max((len(one.history) for one in trial.trained), default=0)
    return {
        "number": trial.number, "parameters": trial.chosen, "epochs": epochs, "score": trial.score[0], "share": share
    }  # fmt: skip


def model_of(estimator: Any, y: Any) -> Any:
    """An estimator that is not fitted, by its name or itself."""
    if isinstance(estimator, TableEstimator):
        model = clone(estimator)
        if model.n_ensemble != 1:
            raise ValueError(f"estimator has n_ensemble={model.n_ensemble}; a search makes its own ensemble: give 1")
        if not any(isinstance(model.family.checked(model).recipe, known) for known in SPACES):
            raise TypeError(f"estimator must be RealMLP or TabM, got {estimator!r:.100}")
        return model
    kinds = checks.choice("estimator", estimator, NAMED, "an estimator of cydrop.tabular")
    given = np.asarray(y)
    if given.ndim == 2 and given.shape[1] > 1:
        return kinds["numbers"]()
    found = numbers_in(given.reshape(-1))
    if (found != np.floor(found)).any():
        return kinds["numbers"]()
    count = len(np.unique(found))
    if count > FEW_LABELS:
        raise ValueError(
            f"y has {count:,} different whole numbers: are they classes, or numbers? Give "
            f"estimator={kinds[CLASSES].__name__}() or estimator={kinds['numbers'].__name__}()"
        )
    return kinds[CLASSES]()  # which says what is wrong with y, if anything is


def numbers_in(y: NDArray[Any]) -> Doubles:
    """The finite numbers among targets; none where any of them is something else, a missing value aside."""
    if y.dtype.kind in "iuf":
        found = y.astype(np.float64)
        return np.asarray(found[np.isfinite(found)])
    present = [value for value in y.tolist() if not is_missing(value)] if y.dtype.kind == "O" else []
    if not all(isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_) for value in present):
        return np.zeros(0)
    found = np.array([float(value) for value in present])
    return np.asarray(found[np.isfinite(found)])


class Race:
    """Trials that are trained side by side.

    Parameters
    ----------
    settings : Settings
    rows : Rows
    pairs : list of (training, held-out) row numbers
    verbose : bool
    """

    def __init__(
        self, settings: Settings, rows: Rows, pairs: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]], verbose: bool
    ) -> None:
        self.settings, self.rows, self.verbose = settings, rows, verbose
        self.trials: list[Trial] = []
        self.until = math.inf
        self.running: AbstractContextManager[Run] | None = None
        classes = settings.recipe.task == CLASSES
        self.spread = np.zeros(0) if classes else Standard.of(rows.y, rows.weight).scale
        self.outputs = max(2, int(rows.y.max()) + 1) if classes else rows.y.shape[1]
        self.folds = [
            Fold(train, held, None if classes else Standard.of(rows.y[train], rows.weight[train]))
            for train, held in pairs
        ]

    def run(self, executor: Any, n_threads: int | None) -> None:
        """Rung after rung; without a number of threads each worker of the executor has its share of its machine."""
        ladder = [*self.settings.recipe.rungs, 1.0]
        left = self.trials
        together = len(left) if executor is not None else TOGETHER
        for number, share in enumerate(ladder):
            going = max(1, math.ceil(len(left) / BETTER)) if number < len(ladder) - 1 else 0
            done: list[Trial] = []
            for start in range(0, len(left), together if number == 0 else len(left)):
                some = left[start : start + (together if number == 0 else len(left))]
                for trial in some:
                    trial.goal = share
                    self._begin(trial)
                self._train(some, executor, n_threads)
                done += [trial for trial in some if trial.members]
                done = self._retire(done, going)
            if self.verbose:
                self._report(share, done)
            left = done
            if not left:
                break

    def _begin(self, trial: Trial) -> None:
        """Networks for all folds, or a further goal for those that there are."""
        if not trial.members and (trial.number == 0 or time.monotonic() < self.until):
            trial.members = [self._member(trial, place) for place in range(len(self.folds))]
        for member in trial.members:
            member.goal = max(1, math.floor(trial.goal * member.job.epochs + 1e-9))

    def _train(self, trials: Sequence[Trial], executor: Any, n_threads: int | None) -> None:
        members = [member for trial in trials for member in trial.members]
        first = self.trials[0]

        def tell(going: Sequence[OneOfMany]) -> None:
            if time.monotonic() >= self.until:
                for member in members:
                    # of the first trial there is an epoch at least
                    member.stopped = member not in first.members or member.training.epoch > 0

        try:
            if self.running is None or executor is None:  # the workers of an executor keep their rows
                self.running = running(executor, members, n_threads)
            with self.running as run:
                run(members, n_threads or 1, tell)
        except BaseException:
            finish_all(members)
            raise

    def _retire(self, trials: Sequence[Trial], going: int) -> list[Trial]:
        """Those that may go on, by the mean of their scores; the first trial always does. What has lost, or has nothing
        left to do, is put aside with its predictions."""
        alive = [trial for trial in trials if not all(member.done for member in trial.members)]
        ranked = sorted(alive, key=lambda trial: (trial.running, trial.number))
        kept = [trial for trial in ranked[:going] if math.isfinite(trial.running)]
        kept += [trial for trial in ranked[going:] if trial.number == 0 and going]
        for trial in trials:
            if trial not in kept:
                self._put_aside(trial)
        return sorted(kept, key=lambda trial: trial.number)

    def _put_aside(self, trial: Trial) -> None:
        finish_all(trial.members)
        found = np.full((len(self.rows), self.outputs), np.nan)
        for place, member in enumerate(trial.members):
            fold = self.folds[place]
            model = member.core.made("a trial")
            trial.trained.append(Trained(model.weights.copy(), member.core.history, member.training.best[1]))
            trial.diverged = trial.diverged or member.diverged
            if member.training.best[1] > 0:
                found[fold.held] = self._predicted(member, fold)
        if trial.diverged is None and np.isfinite(found).all():
            trial.predictions = found
            trial.score = self.score_of(found)
        trial.members = []

    # Networks ---------------------------------------------------------------------------------------------

    def prepared(self, recipe: Recipe, fold: Fold) -> tuple[AnyPreprocessor, Prepared, Prepared]:
        if recipe.max_onehot not in fold.prepared:
            own, held = self.rows.table.take(fold.train), self.rows.table.take(fold.held)
            preprocessor = recipe.fitted(own)
            fold.prepared[recipe.max_onehot] = preprocessor, preprocessor.transform(own), preprocessor.transform(held)
        return fold.prepared[recipe.max_onehot]

    def targets(self, fold: Fold, rows: NDArray[np.intp]) -> NDArray[Any]:
        y = self.rows.y[rows]
        return y if fold.standard is None else fold.standard.applied(y)

    def _network(self, trial: Trial, place: int) -> Network:
        _, own, _ = self.prepared(trial.recipe, self.folds[place])
        return trial.recipe.network(own, self.outputs, trial.seeds[place])

    def _member(self, trial: Trial, place: int) -> OneOfMany:
        """As `train_member` trains one."""
        recipe, fold = trial.recipe, self.folds[place]
        _, own, held = self.prepared(recipe, fold)
        core = core_of(self._network(trial, place))
        y, y_held = self.targets(fold, fold.train), self.targets(fold, fold.held)
        train, valid = self.rows.take(fold.train), self.rows.take(fold.held)
        weight, weight_held = train.scaled_weight(), valid.scaled_weight()
        if self.settings.metric == "log_loss":
            judge = Judge("loss", CrossEntropy())
        elif recipe.task == CLASSES:
            judge = Judge("share_wrong")
        else:
            clamp = (y.min(axis=0), y.max(axis=0)) if recipe.clamped else (None, None)
            judge = Judge("root_mean_square", None, *clamp)
        job = ManyJob(
            checked_rows(core.loss, self.outputs, own.rows, y, weight, len(own)),
            checked_rows(core.loss, self.outputs, held.rows, y_held, weight_held, len(held)),
            NO_ORDER, NO_ORDER, recipe.max_iter, recipe.rows_of_batch(len(own)), recipe.patience,
            ties=recipe.ties, drop_last=recipe.drop_last, judge=judge,
        )  # fmt: skip
        return OneOfMany(core, job)

    def _predicted(self, member: OneOfMany, fold: Fold) -> Doubles:
        """Probabilities, or targets, of held-out rows."""
        assert member.job.held is not None
        z = predict(member.core.made("a trial"), member.job.held.X, True).astype(np.float64)
        if fold.standard is None:
            return np.asarray(z / z.sum(axis=1, keepdims=True))
        return fold.standard.undone(z, clamped=self.settings.recipe.clamped)

    # Choosing ---------------------------------------------------------------------------------------------

    def score_of(self, predictions: Doubles) -> Score:
        """The error of predictions of held-out rows, and what decides between equal ones."""
        p, y, weight = predictions, self.rows.y, self.rows.weight
        if self.settings.recipe.task != CLASSES:
            spread = np.where(self.spread > 0, self.spread, 1.0)
            squares = (((p - y) / spread) ** 2).mean(axis=1)
            rmse = float(np.sqrt(np.average(squares, weights=weight)))
            return (rmse * float(spread[0]) if len(spread) == 1 else rmse,)
        losses = -np.log(np.maximum(p[np.arange(len(y)), y], SMALLEST))
        log_loss = float(np.average(losses, weights=weight))
        if self.settings.metric == "log_loss":
            return (log_loss,)
        return round(float(np.average(p.argmax(axis=1) != y, weights=weight)), DIGITS), log_loss

    def selected(self) -> tuple[NDArray[np.int64], Score]:
        """How often each trial counts in the ensemble, and its score."""
        for trial in self.trials:
            if trial.members:
                self._put_aside(trial)
        candidates = [trial for trial in self.trials if trial.predictions is not None]
        if not candidates:
            advice = "so did a network of every other trial. Try a smaller learning_rate_init"
            error = self.trials[0].diverged
            raise DivergedError(*((error.epoch, error.batch) if error else (1, 1)), advice)
        predictions = [trial.predictions for trial in candidates if trial.predictions is not None]
        found, score = select(predictions, self.score_of, MOST_CHOSEN)
        counts = np.zeros(len(self.trials), dtype=np.int64)
        counts[[trial.number for trial in candidates]] = found
        return counts // np.gcd.reduce(counts), score

    def parts(self, counts: NDArray[np.int64]) -> list[Part]:
        """The chosen trials' networks, fold by fold."""
        found = []
        for trial, share in zip(self.trials, counts, strict=True):
            for place, trained in enumerate(trial.trained if share else ()):
                fold = self.folds[place]
                network = self._network(trial, place)
                core = core_of(network)
                core.put_back(trained.weights)
                core.history = trained.history
                network.n_threads = None
                preprocessor, _, _ = self.prepared(trial.recipe, fold)
                found.append(
                    Part(preprocessor, fold.standard, [network], [trained.history], [trained.best_epoch], int(share))
                )
        return found

    def _report(self, share: float, left: Sequence[Trial]) -> None:
        tried = [trial for trial in self.trials if trial.predictions is not None]
        best = min(
            (trial.running for trial in left), default=min((trial.score[0] for trial in tried), default=math.inf)
        )
        going = "the end" if share == 1.0 else f"{len(left)} of {len(self.trials)} trials go on"
        print(
            f"{share:4.0%} of the epochs: {going}, the best trial has {best:.4f}",
            flush=True,
        )
