"""`fit_many`: checks what it is given, and hands it to what trains."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks, threads
from cydrop._core import cpu
from cydrop._run.core import Core, core_of
from cydrop._run.many import MONITORS, ManyJob, OneOfMany, Run, finish_all, rungs, train_halving
from cydrop._run.rows import Rows, checked_rows
from cydrop.callbacks import Callback, Notifier, checked
from cydrop.history import History
from cydrop.many._arguments import checked_networks, of_network, one_each, others, row_numbers
from cydrop.many._executors import checked_executor, running
from cydrop.many._progress import Progress, progress_for
from cydrop.network import Network

__all__ = ["fit_many"]


def fit_many(
    networks: Sequence[Network],
    X: ArrayLike,
    y: ArrayLike,
    *,
    rows: Any = None,
    validation_rows: Any = None,
    epochs: int | Sequence[int] = 10,
    batch_size: int | Sequence[int] = 128,
    patience: int | Sequence[int | None] | None = None,
    restore_best: bool = True,
    halving: int | None = None,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
    executor: Any = None,
    callbacks: Any = (),
    verbose: int | None = None,
    monitor: str | None = None,
    ties: str = "first",
) -> list[History]:
    """Trains many networks at once, one thread a network; each ends with the bits that `fit` alone would give.

    Any mix of networks will do: other widths, depths, layers, rates, optimizers, losses of the same kind of target. The
    threads walk through the list without Python between two networks or two epochs, and share X and y, of which no
    network has a copy. Sixteen networks of one narrow shape (dense layers, activations and dropout, up to about 1,000
    parameters) on as many rows go side by side through the vectors of a thread, in a half to a quarter of the time. The
    order of networks and the number of threads change no bits, nor does what becomes of others.

    Parameters
    ----------
    networks : sequence of Network
        Each of them once. What they have learned before is where they begin.
    X, y
        As for `Network.fit`; y for the losses of all networks. Rows of a memory-mapped file are shuffled as those in
        memory are: `fit(shuffle="rows")`.
    rows : sequence of index arrays, an index array, or None
        The rows of X that each network trains on, as numbers (a row may come several times: a bootstrap sample) or as a
        mask; an entry for each network, None for all rows. An array of numbers is for all networks. None: all rows, or
        all that are not among the `validation_rows`.
    validation_rows : sequence of index arrays, an index array, or None
        The rows of X by which each network is judged after every epoch.
    epochs, batch_size : int >= 1, or a sequence with one for each network
    patience : int >= 1 or None, or a sequence with one for each network
        Epochs without a better score after which a network has finished (Prechelt 1998). None: it never is.
    restore_best : bool
        Whether each network ends as after its best epoch, where there are `validation_rows`. A network that diverges or
        is interrupted does too.
    halving : int >= 2 or None
        Successive halving by epochs (Jamieson and Talwalkar 2016): with 3 the best third of the networks goes on to
        three times the epochs, the best third of those again, and so on, until those that are left have trained for all
        `epochs`. All train for a third, a ninth, a 27th, ... of the epochs, rounded up: by the largest power of three
        that is neither above the number of networks nor above that of the epochs. The others stay as they are then.
    sample_weight : array-like or None
        As for `fit`, of the rows of X; a network's validation rows are weighted by it as well.
    n_threads : int or None
        Threads for all networks together; None takes what the machine grants. The networks' own numbers stay. With an
        `executor` it is the threads of each worker; None: its share of the processors of its machine.
    executor : concurrent.futures.Executor or None
        Where the networks are trained, instead of in this process: a process pool,
        `mpi4py.futures.MPIPoolExecutor()`, Dask's `client.get_executor()`. X, y and `sample_weight` are sent to each
        worker and not with each task, networks there and back; what comes back has the bits of the local run. Layers,
        losses and optimizers must be what pickle can take, and `callbacks` must be empty.
    callbacks : sequence of callbacks, or callable
        Told of every network, in this thread. A callback that keeps something of one network (`EarlyStopping`,
        `Checkpoint`, ...) must not serve several: give a function that is called with each network and returns its own
        callbacks.
    verbose : int or None
        0 is silent, 1 prints how many networks are done and the best score so far (a tqdm bar where tqdm is installed
        and a terminal is attached), None is 1 where a terminal is attached.
    monitor : "val_loss", "val_accuracy", "val_rmse", "val_mae", "loss", or None
        The score: which epoch is the best, and which network is. None is "val_loss", and "loss" without
        `validation_rows`. Where the networks have several losses, which cannot be compared, `halving` needs another.
    ties : "first" or "last"
        Which of equally good epochs is the best one.

    Returns
    -------
    list of History
        One a network, of all its epochs. `History.diverged` is the `DivergedError` of a network whose loss or
        parameters stopped being finite: it is as after its last finished epoch, or its best one, and the others went
        on. With `halving` the longest histories are those of the networks that went on to the end.

    Raises
    ------
    ValueError, TypeError
        For unusable arguments, before anything is changed; what callbacks raise, when they are called.
    RuntimeError
        While another thread trains, changes or saves one of the networks.
    cydrop.many.WorkerError
        When the `executor` takes no task or one of its workers dies or fails. What has come back is kept, every other
        network is as before the call.
    KeyboardInterrupt
        After Ctrl-C, which is answered between two steps. Every network is as after its last step, or its best epoch,
        and can be used; its history has the epochs that it finished. With an `executor` no task is begun any more; the
        networks that have come back are kept, all others are as before.

    Examples
    --------
    >>> import cydrop as cd
    >>> X, y, X_test, y_test = cd.datasets.load_optdigits()
    >>> networks = [
    ...     cd.Network([cd.Dense(32, activation="relu"), cd.Dropout(rate), cd.Dense(10)], seed=0)
    ...     for rate in (0.0, 0.2, 0.4)
    ... ]
    >>> held_out = range(0, len(X), 5)
    >>> histories = cd.fit_many(networks, X, y, validation_rows=held_out, epochs=3, verbose=0)
    >>> [len(history) for history in histories]
    [3, 3, 3]
    """
    found = checked_networks(networks)
    checks.flag("restore_best", restore_best)
    checks.one_of("ties", ties, ("first", "last"))
    eta = None if halving is None else checks.integer("halving", halving, 2)
    count = threads.resolve(n_threads)
    counts = one_each("epochs", epochs, len(found), lambda name, value: checks.integer(name, value, 1))
    sizes = one_each("batch_size", batch_size, len(found), lambda name, value: checks.integer(name, value, 1))
    waits = one_each(
        "patience", patience, len(found),
        lambda name, value: None if value is None else checks.integer(name, value, 1),
    )  # fmt: skip
    elsewhere = checked_executor(executor)
    _refuse_misunderstood(callbacks)
    by_network = callable(callbacks) and not isinstance(callbacks, Callback)
    same = [] if by_network else checked(callbacks)
    if elsewhere is not None and (by_network or same):
        raise ValueError(
            "callbacks are functions of this process, which the workers of an executor do not share: leave them out, "
            "or train without executor"
        )
    told = [checked(callbacks(network)) for network in found] if by_network else [same] * len(found)
    _refuse_shared(told)
    if not found:
        return []
    with ExitStack() as turns:
        cores = [core_of(network) for network in found]
        for core in cores:
            turns.enter_context(core.turn)
        data = Shared(cores, X, y, sample_weight)
        chosen = row_numbers("rows", rows, len(found), data.n)
        held = row_numbers("validation_rows", validation_rows, len(found), data.n)
        scores = _monitors(monitor, held, waits, cores)
        if eta is not None and len(set(scores)) > 1:
            raise ValueError(
                "halving compares networks: give validation_rows for all of them or none, or monitor='loss'"
            )
        if eta is not None and monitor is None and any(core.loss != cores[0].loss for core in cores):
            raise ValueError(
                "halving compares networks, and these have several losses: give monitor='val_accuracy', 'val_rmse' or "
                "'val_mae'"
            )
        jobs = []
        for place, core in enumerate(cores):
            own = chosen[place]
            if rows is None and len(held[place]):
                own = others(held[place], data.n)
                if not len(own):
                    raise ValueError("validation_rows are all rows of X: none is left to train on; give rows= too")
            with of_network(place, len(cores)):
                some = data.of(core)
                some.check_weighed("the rows to train on", own)
                if len(held[place]):
                    some.check_weighed("the validation rows", held[place])
            judged = some if len(held[place]) else None
            keeps = restore_best and (judged is not None or monitor is not None)
            job = ManyJob(
                some, judged, own, held[place], counts[place], sizes[place], waits[place], keeps, scores[place], ties
            )  # fmt: skip
            with of_network(place, len(cores)):
                core.check_rates()
                core.check_batches(job.full_batch, data.X.shape[1])
            jobs.append(job)
        for core in cores:
            core.built_for(data.X.shape[1])
        members = [OneOfMany(core, job) for core, job in zip(cores, jobs, strict=True)]
        place_of_work = running(elsewhere, members, None if n_threads is None else count)
        _train(
            found, members, eta, count, told, progress_for(verbose, len(found), _comparable(scores, cores)),
            place_of_work,
        )  # fmt: skip
    return [network.history for network in found]


def _refuse_misunderstood(callbacks: Any) -> None:
    """Raises for a class of callbacks, and for lists of them for each network."""
    name = "EarlyStopping"
    if isinstance(callbacks, type):
        if not issubclass(callbacks, Callback):
            return
        name = callbacks.__name__
    elif not isinstance(callbacks, list | tuple) or not any(isinstance(own, list | tuple) for own in callbacks):
        return
    raise TypeError(
        "callbacks must be callbacks for all networks, or a function that is given each network and returns its own: "
        f"callbacks=lambda network: [{name}(...)]"
    )


def _refuse_shared(callbacks: Sequence[list[Callback]]) -> None:
    """Raises where a callback that keeps something of a network would be told of several."""
    seen: set[int] = set()
    for own in callbacks:
        for callback in own:
            if callback.of_one_network and id(callback) in seen:
                name = type(callback).__name__
                raise ValueError(
                    f"callbacks has one {name} for several networks, of which it would mix up what it keeps: give a "
                    f"function that makes each its own, callbacks=lambda network: [{name}(...)]"
                )
        seen.update(map(id, own))


class Shared:
    """X and y for networks that may have different losses: checked once for each kind of loss and number of units."""

    def __init__(self, cores: Sequence[Core], X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> None:
        self.X = cores[0].inputs(X)
        self.n = len(self.X)
        self._y, self._weight = y, sample_weight
        self._known: dict[tuple[Any, ...], Rows] = {}

    def of(self, core: Core) -> Rows:
        """The rows for a network."""
        core.inputs(self.X)
        units = core.plan_for(self.X.shape[1]).n_outputs
        key = type(core.loss), units
        if key not in self._known:
            self._known[key] = checked_rows(core.loss, units, self.X, self._y, self._weight, self.n)
        same = self._known[key]
        return replace(same, loss=core.loss)


def _monitors(
    monitor: Any, held: Sequence[NDArray[np.int64]], patience: Sequence[int | None], cores: Sequence[Core]
) -> list[str]:
    """By what an epoch of each network is the best."""
    if monitor is not None:
        checks.one_of("monitor", monitor, MONITORS)
    found = []
    for place, (core, rows, patient) in enumerate(zip(cores, held, patience, strict=True)):
        chosen = str(monitor or ("val_loss" if len(rows) else "loss"))
        if not len(rows) and chosen != "loss":
            raise ValueError(f"monitor={monitor!r} needs validation_rows, which networks[{place}] has none of")
        if not len(rows) and patient and monitor is None:
            raise ValueError(
                f"patience needs validation_rows, which networks[{place}] has none of; for that of the training loss "
                "give monitor='loss'"
            )
        counts = core.loss.hit_rate(0, 1, 1)
        if chosen == "val_accuracy" if not counts else chosen in ("val_rmse", "val_mae"):
            raise ValueError(f"monitor={monitor!r}: there is none with the loss {core.loss.name} of networks[{place}]")
        found.append(chosen)
    return found


def _comparable(scores: Sequence[str], cores: Sequence[Core]) -> str | None:
    """The score of all networks, None where there are several kinds of it."""
    same = len(set(scores)) == 1 and (
        not scores[0].endswith("loss") or all(core.loss == cores[0].loss for core in cores)
    )
    return scores[0] if same else None


def _train(
    networks: Sequence[Network], members: Sequence[OneOfMany], eta: int | None, n_threads: int,
    callbacks: Sequence[list[Callback]], progress: Progress, place_of_work: AbstractContextManager[Run],
) -> None:  # fmt: skip
    """All stretches, with what is told in between; at the end, whatever happened, every network is whole."""
    notifiers: dict[OneOfMany, tuple[Network, Notifier]] = {}

    def tell(going: Sequence[OneOfMany]) -> None:
        for member in going:
            if member in notifiers:
                _tell_callbacks(member, *notifiers[member])
        progress.show(members)

    try:
        with ExitStack() as open_ones:
            try:
                for network, member, own in zip(networks, members, callbacks, strict=True):
                    network.stop_training, network.training_rows = False, member.job.n_rows
                    member.by_epochs = bool(own)
                    if own:
                        notifier = open_ones.enter_context(Notifier(own, network, member.job.epochs))
                        notifiers[member] = network, notifier
                        member.stopped = network.stop_training
                        member.renew_if_changed()
                with place_of_work as run:
                    if eta is None:
                        run(members, n_threads, tell)
                    else:
                        ladder = rungs(len(members), max(member.job.epochs for member in members), eta)
                        train_halving([[member] for member in members], ladder, n_threads, tell, run)
            finally:
                finish_all(members)
    finally:
        progress.close(members)
        if n_threads > 1:
            cpu.rest_threads()


def _tell_callbacks(member: OneOfMany, network: Network, notifier: Notifier) -> None:
    """Of the epoch that has ended, if one has."""
    for metrics in member.tell():
        notifier.epoch_ended(member.core.epochs, metrics)
        member.stopped = network.stop_training
        member.renew_if_changed()
