"""The network: its face. Arguments are checked here and in `_run.core`; what runs is in `_run`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from cydrop import distributed, losses, optimizers
from cydrop._base import checks, seeding, threads
from cydrop._base.arrays import Floats
from cydrop._base.naming import named_after_class
from cydrop._core import cpu
from cydrop._run.chunks import checked_shuffle
from cydrop._run.core import Core
from cydrop._run.prediction import evaluate, predict, predict_members
from cydrop._run.rows import NO_ORDER
from cydrop._run.state import PICKLED, State
from cydrop._run.training import Job, Trainer
from cydrop.callbacks import Callback, Notifier, checked, for_verbose
from cydrop.distributed import DataParallel
from cydrop.history import History
from cydrop.layers import Layer
from cydrop.network._by_hand import ByHand
from cydrop.network._calibrated import Calibrates
from cydrop.network._parts import Parts
from cydrop.network._quantizing import Quantizes
from cydrop.network._sampling import Sampling

__all__ = ["Network", "check_network", "load", "of_core"]


@named_after_class
class Network(Parts, Sampling, Calibrates, Quantizes, ByHand):
    """A feed-forward network with dropout.

    Parameters
    ----------
    layers : sequence of layers
        From the input to the raw output; the loss includes the last link (softmax, sigmoid).
    loss : str or loss object
        By name, such as "cross_entropy" or "mse": any of `cydrop.losses`.
    optimizer : str or optimizer object
        By name, such as "sgd" or "adam": any of `cydrop.optimizers`.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        Source of the weights, shuffles and masks. Two networks with the same seed, data and batch size have the
        same bits, on any number of threads.
    n_threads : int or None
        None takes what the machine grants this process.
    precision : {"float32", "bfloat16"}
        What the factors of the products of dense layers are rounded to, forward and backward: bfloat16 has float32's
        range and 8 binary digits, 2 to 3 decimal ones. Products are summed in float32, and everything else is float32
        in both. A processor with the instruction (AVX-512 BF16) can multiply bfloat16 twice as fast as float32, which
        pays from some hundred units a layer on; any other computes the same bits, slower than float32.

    Attributes
    ----------
    history : History
        The epochs of all calls of `fit` so far.
    stop_training : bool
        Set by a callback, it ends `fit` after the epoch.
    training_rows : int
        Rows in an epoch of the last call of `fit`, without those kept for validation; 0 before.

    Examples
    --------
    >>> import cydrop as cd
    >>> X, y, X_test, y_test = cd.datasets.load_optdigits()
    >>> layers = [cd.Dense(64), cd.ReLU(), cd.Dropout(0.5), cd.Dense(10)]
    >>> net = cd.Network(layers, seed=0)
    >>> history = net.fit(X, y, epochs=2, verbose=0)
    >>> net.predict(X_test).shape
    (1797, 10)
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        loss: str | losses.Loss = "cross_entropy",
        optimizer: str | optimizers.Optimizer = "adam",
        seed: seeding.Seed = None,
        n_threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        if isinstance(layers, Layer | Set | Mapping) or not isinstance(layers, Iterable):
            raise TypeError(f"layers must be a list of layers, got {layers!r} ({type(layers).__name__})")
        given = tuple(layers)
        if not given:
            raise ValueError("layers is empty: a network needs at least one layer")
        chosen = losses.resolve(loss), optimizers.resolve(optimizer)
        count, root = threads.resolve(n_threads), tuple(int(word) for word in seeding.words(seed, 4))
        precision = checks.precision(precision)
        self._begin(Core(State(given, *chosen, root, 0, History(), count, n_threads is None, None, None, precision)))

    _trainer = Trainer()  # the seam for other ways of training; it keeps nothing of a network

    def _begin(self, core: Core) -> None:
        self._core = core
        self.stop_training = False
        self.training_rows = 0

    # Training ---------------------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        validation_data: tuple[Any, ...] | None = None,
        validation_split: float = 0.0,
        shuffle: bool | str = True,
        sample_weight: ArrayLike | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: int | None = None,
        clean_metrics: bool = False,
        drop_last: bool = False,
        parallel: DataParallel | None = None,
    ) -> History:
        """Trains; a further call goes on from where the last ended.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            C-contiguous float32 is read in place, without a copy, in all epochs: what a callback or another thread
            writes into it meanwhile is trained on as it is found. Everything else is copied first. A memory-mapped file
            of float32 in C order (`np.load(path, mmap_mode="r")`) may be larger than the memory.
        y : array-like
            Labels 0..k-1, (n,), or class probabilities, (n, k), rows summing to 1, for "cross_entropy"; 0, 1 or
            probabilities between, (n,) or (n, k), for "binary_cross_entropy"; numbers, (n,) or (n, k), for the others.
            Copied first, unless it is a memory-mapped file of float32 for any loss but "cross_entropy".
        epochs : int >= 1
        batch_size : int >= 1
            The last batch of an epoch may be smaller; a number above that of the rows means all of them.
        validation_data : (X, y) or (X, y, sample_weight), or None
        validation_split : float in [0, 1)
            The share of rows, from the end, that is kept for validation instead.
        shuffle : bool, "rows" or "chunks"
            Whether each epoch visits the rows in a new order. "rows": in any. "chunks": in one that is good for a file:
            rows that follow one another (4 MiB of them, at most 32,768) are a chunk; the chunks are put in random order
            and then, 64 of them at a time, all their rows. True is "chunks" for a memory-mapped X, else "rows"; for at
            most 64 chunks (256 MiB) they are the same.
        sample_weight : array-like, shape (n_samples,) or the shape of y, or None
            Multiplies each row's loss, or, for losses with targets of k columns, (n_samples, k), each target's; the
            mean stays over all rows or targets. A target that weighs 0 plays no part, whatever it is (a number, not
            NaN), and the metrics leave it out.
        callbacks : sequence of callbacks
        verbose : int or None
            0 is silent, 1 prints a line per epoch (a tqdm bar where tqdm is installed and a terminal is attached; with
            more than 100 epochs at most ten lines a second), None is 1 where a terminal is attached.
        clean_metrics : bool
            Whether the history also gets the loss and the metrics of the training rows after each epoch with dropout
            off, as "clean_loss", "clean_accuracy", ...: what validation values may be compared with.
        drop_last : bool
            Whether an epoch leaves out the rows that would make a last batch smaller than `batch_size`: with `shuffle`
            others in each epoch. Rows fewer than `batch_size` are one batch.
        parallel : DataParallel or None
            Cuts each batch into shards, whose gradients are added in an order that does not depend on who computes
            them: this process, or all ranks of an MPI communicator. These all call `fit` with the same arguments; what
            one raises, all raise. None: batches are not cut.

        Returns
        -------
        History
            of all calls so far, also kept as `history`. "loss" is the loss as trained: dropout on, averaged while
            the weights moved. `clean_metrics` or `evaluate` gives the clean one.

        Raises
        ------
        ValueError, TypeError
            For unusable arguments, before anything is changed.
        DivergedError
            When the loss or a parameter stops being finite; the network is as after the last finished epoch, the
            optimizer's moments start afresh.
        RankError
            With `parallel`, for what another rank has raised.
        RuntimeError
            While another thread trains, changes or saves this network.
        KeyboardInterrupt
            After Ctrl-C, which is answered between two steps. The network is as after the last finished step and can
            be used, saved and trained further (with a new epoch); the history has the finished epochs. As after every
            error, the callbacks are told of the end first, so that `EarlyStopping` puts the best epoch back.
        """
        core, shared_out = self._core, distributed.checked(parallel)
        trainer = distributed.trainer_of(shared_out) or self._trainer
        team = trainer.team
        with team.session(), core.turn:
            with team.together():
                # check
                epochs = checks.integer("epochs", epochs, 1)
                data = core.rows(X, y, sample_weight, batch_size, team.part(X))
                shuffles, by_chunks = checked_shuffle(shuffle, data.X)
                checks.flag("clean_metrics", clean_metrics)
                checks.flag("drop_last", drop_last)
                shown = [*checked(callbacks), *for_verbose(verbose)]
                core.check_rates()
                share = checks.number("validation_split", validation_split, 0.0, 1.0, high_open=True)
                validation = None
                if validation_data is not None:
                    if share:
                        raise ValueError("give validation_data or validation_split, not both")
                    validation = core.validation_rows(validation_data, data.X.shape[1])
                elif share:
                    validation, data = data.split(share)
                if parallel is None:  # of ranks' own rows some may have none that count
                    data.check_weighed("the rows to train on")
                    if validation is not None:
                        validation.check_weighed("the validation rows")
                shards = 0 if shared_out is None else shared_out.shards
                core.check_batches(data.batch_size, data.X.shape[1], shards)
                # build
                core.built_for(data.X.shape[1])
            # train
            job = Job(
                data, validation, epochs, shuffles, clean_metrics, drop_last, shards, int(batch_size), by_chunks
            )  # fmt: skip
            trainer.begin(core, job)
            self.stop_training = False
            self.training_rows = trainer.rows_of(job)
            try:
                with Notifier(shown, self, epochs, team) as notifier:
                    for epoch in range(epochs):
                        if self.stop_training:  # set before the first epoch, or after the last
                            break
                        metrics = trainer.epoch(core, job, epoch)
                        notifier.epoch_ended(core.epochs, metrics)
                        self.stop_training = trainer.stops(core, self.stop_training)
            finally:
                if core.n_threads > 1:
                    cpu.rest_threads()
            return core.history

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, *, batch_size: int = 128, sample_weight: ArrayLike | None = None
    ) -> Network:
        """One pass over the rows, in order. Schedules stay at their start.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        batch_size : int >= 1

        Returns
        -------
        Network
            itself

        Raises
        ------
        DivergedError
            When the loss or the parameters stop being finite; the network is as before the call, the optimizer's
            moments start afresh.
        """
        self._pass_over(X, y, sample_weight, batch_size)
        return self

    def train_on_batch(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """One step on all rows of X.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        float
            The mean loss before the step, dropout on.

        Raises
        ------
        DivergedError
            When the loss, or the parameters after the step, are not finite; the network is as before the call, the
            optimizer's moments start afresh.
        """
        return self._pass_over(X, y, sample_weight, None)

    def _pass_over(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, batch_size: int | None) -> float:
        """One pass over the rows, in order: the mean loss."""
        core = self._core
        with core.turn:
            data = core.rows(X, y, sample_weight, batch_size)
            core.check_batches(data.batch_size, data.X.shape[1])
            core.check_learning(data.X.shape[1])
            core.built_for(data.X.shape[1])
            total, _ = self._trainer.train_pass(core, data, NO_ORDER, core.first_rates(), core.epochs + 1)
            return total / len(data.X)

    # Prediction -------------------------------------------------------------------------------------------

    def predict(
        self,
        X: ArrayLike,
        *,
        batch_size: int | None = None,
        parallel: DataParallel | None = None,
    ) -> Floats:
        """The outputs after the loss's link, dropout off.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        batch_size : int >= 1 or None
            Rows at a time; the result does not depend on it.
        parallel : cydrop.distributed.DataParallel or None
            Divides the rows among the ranks of its communicator, which all make the call; each gets all
            outputs, or, of partitioned rows, those of its own.

        Returns
        -------
        ndarray of float32, shape (n_samples, units)
            Probabilities for "cross_entropy" (rows sum to 1) and "binary_cross_entropy", means then variances for
            "gaussian_nll", the regression values otherwise.
        """
        core = self._core
        if parallel is None:
            rows = core.inputs(X)
            size = None if batch_size is None else checks.integer("batch_size", batch_size, 1)
            return predict(core.built_for(rows.shape[1]), rows, True, size)
        team = distributed.team_of(parallel)
        with team.session():
            with team.together():
                rows = core.inputs(X, team.part(X))
                size = None if batch_size is None else checks.integer("batch_size", batch_size, 1)
                core.built_for(rows.shape[1])
            team.prepare(core)
            team.check_prediction(core, rows, {"method": "predict"})
            return predict(core.made("predict"), rows, True, size, team)

    def predict_members(self, X: ArrayLike) -> Floats:
        """The outputs of each of the `Members` that a network ends with, or with each mask of its `Masksembles`, after
        the loss's link, dropout off.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float32, shape (members, n_samples, units)
            Of each what `predict` gives of one network.

        Raises
        ------
        ValueError
            For a network without `Members` and `Masksembles`.
        """
        core = self._core
        rows = core.inputs(X)
        model = core.built_for(rows.shape[1])
        if not model.plan.members:
            raise ValueError("predict_members is for a network with Members or Masksembles, which this one has not")
        return predict_members(model, rows)

    def evaluate(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        parallel: DataParallel | None = None,
    ) -> dict[str, float]:
        """The loss and the metrics with dropout off.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        parallel : cydrop.distributed.DataParallel or None
            Divides the rows among the ranks of its communicator, which all make the call; each gets
            the same values, of the rows of all.

        Returns
        -------
        dict of str to float
            "loss"; "accuracy" for classifiers; "rmse" and "mae" for regression.
        """
        core, team = self._core, distributed.team_of(parallel)
        with team.session():
            with team.together():
                data = core.rows(X, y, sample_weight, None, team.part(X))
                core.built_for(data.X.shape[1])
            team.prepare(core)
            team.check_prediction(core, data.X, {"method": "evaluate"})
            return evaluate(core.made("evaluate"), data, core.n_threads, team)

    # Around it --------------------------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Writes weights, architecture, optimizer state, random state and history to a safetensors file.

        The file is written under a temporary name and renamed: whenever the process or the machine stops, there is the
        old file or the new one, complete. A process that is killed meanwhile leaves a `.NAME.PID-….tmp` behind, which
        nothing needs. `cydrop.load(path)` gives the network back, and training goes on bit for bit. A link is followed;
        an existing file's owner, group and permissions are kept, and one that this user may not write to stays as it
        is. A file that has several names (hard links), that belongs to somebody else or that is a mount point is
        written in place when the new one is finished: there a crash in the middle can leave a damaged file; an error
        names the finished one, which is then kept.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        ValueError
            For what a file cannot hold, before anything is written: layers, losses, optimizers and schedules of the
            user's own classes, rates and learning rates that are the user's own functions or leave their range, layers
            other than those that the network was built with, a history that does not consist of numbers or has more
            than 1,500,000 values, a description beyond 1 MB (thousands of layers); and for numbers that `load` refuses,
            such as weights that are NaN.
        OSError
            When the file cannot be written; it is named.
        """
        from cydrop import saving  # what not every program needs is imported when it is first used

        with self._core.turn:
            saving.save(self._core.state(), path)

    def __getstate__(self) -> dict[str, Any]:
        with self._core.turn:
            of_subclass = {name: value for name, value in vars(self).items() if name not in _OWN}
            state = self._core.state().pickled()
            if state["built"] is not None:  # copies: it is written when the turn is over, and others may train then
                state["built"]["tensors"] = {name: view.copy() for name, view in state["built"]["tensors"].items()}
            return of_subclass | state

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        state = State.unpickled(pickled)
        count = threads.resolve(None if state.threads_of_machine else state.n_threads)
        self._begin(Core(replace(state, n_threads=count)))
        vars(self).update({name: value for name, value in pickled.items() if name not in _OWN | PICKLED | _ONCE})


def check_network(net: Any) -> None:
    """Raises for anything but a network; the argument's name is `net` wherever one is taken."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a cydrop.Network, got {net!r} ({type(net).__name__})")


def load(path: Any, *, n_threads: int | None = None) -> Network:
    """Reads a network that `Network.save` wrote.

    Whatever the file, it takes at most 100 MB of memory beyond its size (150 MB on a Python without the GIL,
    whose objects are larger).

    Parameters
    ----------
    path : str or path-like
    n_threads : int or None
        As for `Network`; a file does not say on how many threads it was trained.

    Returns
    -------
    Network
        With the optimizer's state and random state: training goes on bit for bit.

    Raises
    ------
    ValueError
        For a file that is damaged, cut off or not cydrop's, or that holds numbers that no training produces: weights,
        statistics or moments that are NaN or infinite, variances and second moments below 0.
    OSError
        When it cannot be read.
    """
    from cydrop import saving

    cores, several, _ = saving.load(path, n_threads)
    if several:
        raise ValueError(f"{path} holds an ensemble of {len(cores)} networks, which cydrop.load reads")
    return of_core(cores[0])


def of_core(core: Core) -> Network:
    """The face of a core."""
    network = Network.__new__(Network)
    network._begin(core)
    return network


_OWN = {"_core", "stop_training", "training_rows"}  # attributes of an instance; others are a subclass's
_ONCE = {"_tape_rows"}  # of earlier pickles
