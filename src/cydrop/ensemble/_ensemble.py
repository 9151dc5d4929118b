"""The ensemble: its face."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cydrop import losses
from cydrop._base import checks, seeding, threads
from cydrop._base.arrays import Floats
from cydrop._run.core import core_of
from cydrop._run.prediction import evaluated
from cydrop.ensemble import _members, _sampling, _training
from cydrop.ensemble._calibrated import Calibrates, of_folds
from cydrop.history import History
from cydrop.many import fit_many
from cydrop.monte_carlo import MonteCarlo
from cydrop.network import Network, of_core


class Ensemble(Calibrates):
    """Networks that predict together, by the mean of what each predicts.

    Networks that differ in nothing but their seeds do: each ends elsewhere, their errors partly cancel out, and where
    they disagree nobody should be sure (deep ensembles, Lakshminarayanan, Pritzel and Blundell 2017). They may differ
    in all else, too, but must take the same columns and give the same kind of output.

    Parameters
    ----------
    networks : sequence of Network
        Each stands in it once. Their losses are of one class: the predictions of one kind can be averaged. They need
        not be trained or built. The ensemble holds the networks themselves, not copies.

    Attributes
    ----------
    oof_predictions : ndarray or None
        After a `fit` that held rows out: for each row the prediction, as `predict` gives it, of the members that did
        not train on it, NaN where all did. Files do not hold it.

    Raises
    ------
    TypeError, ValueError
        For what is no list of networks, or of networks of different kinds.

    Examples
    --------
    >>> import cydrop as cd
    >>> X, y, X_test, y_test = cd.datasets.load_optdigits()
    >>> layers = [cd.Dense(32), cd.ReLU(), cd.Dropout(0.2), cd.Dense(10)]
    >>> ensemble = cd.Ensemble([cd.Network(layers, seed=seed) for seed in range(3)])
    >>> histories = ensemble.fit(X, y, epochs=2, verbose=0)
    >>> ensemble.predict(X_test).shape
    (1797, 10)
    >>> mc = ensemble.predict_mc(X_test, 10, seed=0)
    >>> bool((mc.epistemic >= 0).all())
    True
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = _members.checked(networks)
        self.oof_predictions: Floats | None = None

    @property
    def networks(self) -> tuple[Network, ...]:
        """The members."""
        return self._networks

    @property
    def loss(self) -> losses.Loss:
        """The loss of the first member, which `evaluate` takes."""
        return _members.loss_of(self._networks)

    @property
    def n_threads(self) -> int:
        """Threads in use, the most that any member has. Assigning a number, or None for what the machine grants, sets
        that of all members; it changes the speed but no bits."""
        return max(network.n_threads for network in self._networks)

    @n_threads.setter
    def n_threads(self, n_threads: int | None) -> None:
        threads.resolve(n_threads)
        for network in self._networks:
            network.n_threads = n_threads

    def __len__(self) -> int:
        return len(self._networks)

    def __iter__(self) -> Iterator[Network]:
        return iter(self._networks)

    # Training ---------------------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        bootstrap: bool = False,
        folds: int | None = None,
        validation_split: float = 0.0,
        seed: seeding.Seed = None,
        epochs: int = 10,
        batch_size: int = 128,
        patience: int | None = None,
        restore_best: bool = True,
        sample_weight: ArrayLike | None = None,
        n_threads: int | None = None,
        executor: Any = None,
        callbacks: Any = (),
        verbose: int | None = None,
    ) -> list[History]:
        """Trains all members at once (`cydrop.fit_many`): on all rows, on bootstrap samples (Breiman 1996), or each
        without a fold. Each ends with the bits that `Network.fit` would give on its rows.

        Rows that a member does not train on are its validation rows. Afterwards `oof_predictions` has what the members
        make of rows that they did not train on, which tells how good they are. It is a little too good where those rows
        chose the epoch, with `restore_best`.

        Parameters
        ----------
        X, y, sample_weight
            As for `Network.fit`.
        bootstrap : bool
            Whether each member trains on a sample of its own: as many rows as there are, drawn with replacement, which
            leaves out 37 % of them.
        folds : int >= 2 or None
            Into how many folds the rows are divided, at random; of class labels each fold gets its share of each class.
            Member i trains without fold i % folds: with as many members as folds, or a multiple, every row is held out
            equally often.
        validation_split : float in [0, 1)
            The share of rows, from the end, that all members hold out instead.
        seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
            Of the folds or samples; the networks have their own.
        epochs : int >= 1
        batch_size : int >= 1
        patience : int >= 1 or None
            A member stops after so many epochs without a lower loss of its validation rows. None: all take all epochs.
        restore_best : bool
            Whether each member goes back to the epoch with the lowest loss of its validation rows, where it has any.
        n_threads, executor, callbacks, verbose
            As for `fit_many`.

        Returns
        -------
        list of History
            One for each member, also kept as its `history`. `History.diverged` tells of a member that has diverged.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments, before anything is changed.
        RuntimeError, KeyboardInterrupt
            As for `fit_many`.

        Warns
        -----
        UserWarning
            Where members with the same seed, layers and options train on the same rows: they end up the same.
        """
        first = core_of(self._networks[0])
        bootstrap = checks.flag("bootstrap", bootstrap)
        epochs = checks.integer("epochs", epochs, 1)
        patience = None if patience is None else checks.integer("patience", patience, 1)
        share = checks.number("validation_split", validation_split, 0.0, 1.0, high_open=True)
        rows = _members.inputs(self._networks, X)
        data = first.rows(rows, y, sample_weight, batch_size)
        if bootstrap + (folds is not None) + (share > 0) > 1:
            raise ValueError("give bootstrap, folds or validation_split, one of them: each says what is held out")
        if (bootstrap or folds is not None) and len(rows) < 2:
            raise ValueError("X has 1 row: folds and bootstrap samples need at least 2")
        parts = None if folds is None else checks.integer("folds", folds, 2, len(rows))
        _members.models(self._networks, rows.shape[1])
        count = len(self._networks)
        if parts is not None:
            shares = _training.folded(count, data, parts, seeding.sequence(seed))
        elif bootstrap:
            shares = _training.bootstrapped(count, data, seeding.sequence(seed))
        else:
            seeding.sequence(seed)
            shares = _training.all_but_the_end(count, data, share)
        if patience is not None and shares.held is None:
            raise ValueError("patience needs rows that are held out: give folds, bootstrap=True or validation_split")
        _training.warn_of_twins(self._networks, shares)
        before = _training.passes_of(self._networks)
        try:
            histories = fit_many(
                self._networks, rows, data.y, rows=shares.rows, validation_rows=shares.held, epochs=epochs,
                batch_size=batch_size, patience=patience, restore_best=restore_best, sample_weight=sample_weight,
                n_threads=n_threads, executor=executor, callbacks=callbacks, verbose=verbose,
            )  # fmt: skip
        except BaseException:
            if _training.passes_of(self._networks) != before:
                self.oof_predictions = None  # they are of other members
            raise
        self.oof_predictions = _training.out_of_fold(self._networks, data, shares, data.loss)
        if parts is not None:
            assert shares.held is not None
            assert self.oof_predictions is not None
            self._made = of_folds(self._networks, data, parts, shares.held, self.oof_predictions)
        return histories

    # Prediction -------------------------------------------------------------------------------------------

    def predict(self, X: ArrayLike, *, batch_size: int | None = None) -> Floats:
        """The mean of the members' predictions, dropout off.

        The mean is that of probabilities or values, after the link, in float64 in the order of the members. For
        "gaussian_nll" it is the mean and the variance of the mixture of the members' normal distributions: the mean of
        the means; the mean of the variances plus the variance of the means (Lakshminarayanan et al. 2017).

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        batch_size : int >= 1 or None
            Rows at a time; the result does not depend on it.

        Returns
        -------
        ndarray of float32, shape (n_samples, units)
            As from `Network.predict`; the same bits on any number of threads.

        Raises
        ------
        ValueError, TypeError
            For an X that cannot be used.
        """
        rows = _members.inputs(self._networks, X)
        size = None if batch_size is None else checks.integer("batch_size", batch_size, 1)
        found = _members.models(self._networks, rows.shape[1])
        return _members.mean(found, rows, self.n_threads, size).prediction().astype(np.float32)

    def predict_all(self, X: ArrayLike, *, batch_size: int | None = None) -> Floats:
        """What each member predicts, dropout off.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        batch_size : int >= 1 or None
            As for `predict`.

        Returns
        -------
        ndarray of float32, shape (members, n_samples, units)

        Raises
        ------
        ValueError, TypeError
            For an X that cannot be used.
        """
        rows = _members.inputs(self._networks, X)
        _members.models(self._networks, rows.shape[1])
        return np.stack([network.predict(rows, batch_size=batch_size) for network in self._networks])

    def predict_mc(
        self,
        X: ArrayLike,
        samples: int = 100,
        *,
        seed: seeding.Seed = None,
        return_samples: bool = False,
        quantiles: ArrayLike | None = None,
        drop_connect: str = "masks",
        rate: float | None = None,
    ) -> MonteCarlo:
        """What the members predict, and how far they differ: Monte Carlo dropout (Gal and Ghahramani 2016) of all of
        them. Where no member draws anything, the members' predictions are the samples.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        samples : int >= 1
            Of each member: of ten members 100 samples are 1,000. A member without dropout counts as often, with the
            same prediction; if none has any, each counts once.
        seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
            Seed of the masks, of which each member has its own.
        return_samples : bool
            Whether `.samples` keeps all predictions, shape (members times samples, n_samples, units), the first
            member's first.
        quantiles, drop_connect, rate
            As for `Network.predict_mc`.

        Returns
        -------
        MonteCarlo
            of all samples together: mean, std; `total`, `aleatoric` and `epistemic`, the last of which has what the
            members disagree about and what dropout leaves open.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments.

        Warns
        -----
        UserWarning
            Where nothing is drawn and the members predict the same: the spread of 0 is not certainty; and where dropout
            has faded out, as for `Network.predict_mc`.
        """
        return _sampling.predict_mc(self._networks, X, samples, seed, return_samples, quantiles, drop_connect, rate)

    def evaluate(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        """The loss and the metrics of the mean prediction, dropout off.

        Parameters
        ----------
        X, y, sample_weight
            As for `Network.fit`.

        Returns
        -------
        dict of str to float
            "loss", that of `predict`: for "cross_entropy" of the mean probabilities, which is at most the mean of the
            members' losses; for "gaussian_nll" of the normal distribution with the mean and the variance of the mixture
            (`evaluate_mc` has the density of the mixture itself). "accuracy" for classifiers; "rmse" and "mae" for
            regression.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments.
        """
        data = core_of(self._networks[0]).rows(_members.inputs(self._networks, X), y, sample_weight, None)
        found = _members.models(self._networks, data.X.shape[1])

        def raw(rows: Floats) -> Floats:
            prediction = _members.mean(found, rows, self.n_threads).prediction()
            return data.loss.inverse_link(prediction).astype(np.float32)

        return evaluated(raw, found[0].plan.n_outputs, data, self.n_threads)

    def evaluate_mc(
        self,
        X: ArrayLike,
        y: ArrayLike,
        samples: int = 100,
        *,
        noise_precision: float | None = None,
        seed: seeding.Seed = None,
        drop_connect: str = "masks",
        rate: float | None = None,
    ) -> dict[str, float]:
        """How well the mixture of all members' samples predicts.

        Parameters
        ----------
        X, y
            As for `Network.fit`.
        samples : int >= 1
            Of each member; where none draws anything, the members are the samples.
        noise_precision : float > 0 or None
            As for `Network.evaluate_mc`.
        seed, drop_connect, rate
            As for `predict_mc`.

        Returns
        -------
        dict of str to float
            "log_likelihood": log of the mean over all samples of p(y | x, sample), in nats, the mean over rows; for
            regression only with noise. The metrics of the mean prediction, as from `evaluate`.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments.
        """
        return _sampling.evaluate_mc(self._networks, X, y, samples, noise_precision, seed, drop_connect, rate)

    # Around it --------------------------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Writes all members to one safetensors file, with all that `Network.save` writes; `cydrop.load(path)` gives
        the ensemble back, and training goes on bit for bit. The tensors of member 3 begin with "3.".

        The file is written under a temporary name and renamed, as by `Network.save`.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        ValueError
            For what a file cannot hold, before anything is written, as for `Network.save`. The limits are those of one
            file, for all members together: a header of 1 MB, which is about 430 networks of two dense layers with Adam,
            and histories of 1,500,000 values.
        OSError
            When the file cannot be written; it is named.
        """
        from cydrop import saving

        with contextlib.ExitStack() as turns:
            for network in self._networks:
                turns.enter_context(core_of(network).turn)
            saving.save_ensemble([core_of(network).state() for network in self._networks], path, self._made)

    def __repr__(self) -> str:
        return f"<cydrop.Ensemble of {len(self)} networks, loss {self._networks[0].loss.name!r}>"


def load(path: Any, *, n_threads: int | None = None) -> Any:
    """Reads what `Network.save`, `Ensemble.save` or `QuantizedNetwork.save` wrote.

    Whatever the file, it takes at most 100 MB of memory beyond its size (150 MB on a Python without the GIL,
    whose objects are larger).

    Parameters
    ----------
    path : str or path-like
    n_threads : int or None
        As for `Network`; a file does not say on how many threads it was trained.

    Returns
    -------
    Network, Ensemble or QuantizedNetwork
        By what the file holds. A Network or an Ensemble comes with the optimizer's state and random state: training
        goes on bit for bit.

    Raises
    ------
    ValueError
        For a file that is damaged, cut off or not cydrop's, or that holds numbers that no training produces: weights,
        statistics or moments that are NaN or infinite, variances and second moments below 0.
    OSError
        When it cannot be read.
    """
    from cydrop import saving

    if saving.is_quantized(path):
        from cydrop import quantization

        return quantization.load(path, n_threads)
    cores, several, made = saving.load(path, n_threads)
    networks = [of_core(core) for core in cores]
    if not several:
        return networks[0]
    try:
        ensemble = Ensemble(networks)
    except ValueError as error:
        raise ValueError(f"{path} is not a network that cydrop can load: {error}") from None
    ensemble._made = made
    return ensemble
