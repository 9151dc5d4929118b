"""What every callback is, and how `fit` tells them: of the beginning, of each epoch, and, come what may, of the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Self

from cydrop._run.team import ALONE, Team

__all__ = ["Callback", "Notifier", "checked"]


class Callback:
    """Base: does nothing. `epoch` counts from 1 and goes on over calls of `fit`.

    Attributes
    ----------
    every_rank : bool
        Whether each rank of a training over several processes calls it. False is for what shows or writes: rank 0
        alone calls it. All ranks must come to the same decisions: to stop, where one of them stops, or another
        learning rate, of which all must assign the same.
    of_one_network : bool
        Whether it keeps something of a network, so that `fit_many` must not give it to several.
    """

    every_rank: ClassVar[bool] = True
    of_one_network: ClassVar[bool] = False

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Before the first epoch of a call of `fit`."""

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        """After every epoch. What is put into `metrics` is in the history, and seen by the callbacks after this one."""

    def on_train_end(self, network: Any) -> None:
        """After the last epoch, and also when training was interrupted, diverged, or another callback failed."""


def checked(given: Any) -> list[Callback]:
    """What `fit` was given as callbacks.

    Parameters
    ----------
    given : callback or iterable of callbacks

    Returns
    -------
    list of Callback

    Raises
    ------
    TypeError
        For anything else.
    """
    result = list(given) if isinstance(given, Iterable) else [given]
    for callback in result:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks must be cydrop.callbacks.Callback objects, got {callback!r}")
    return result


class Notifier:
    """Tells callbacks of the beginning and, whatever happens in between, those that have begun of the end.

    The error that training or a callback raised first goes on as it is; what others raise after it becomes a note on
    it. Only an interrupt outranks an error.
    """

    def __init__(self, callbacks: Sequence[Callback], network: Any, epochs: int, team: Team = ALONE) -> None:
        self._callbacks = [callback for callback in callbacks if team.rank == 0 or callback.every_rank]
        self._network, self._epochs, self._team = network, epochs, team
        self._begun: list[Callback] = []

    def __enter__(self) -> Self:
        try:
            with self._team.together():
                for callback in self._callbacks:
                    callback.on_train_begin(self._network, self._epochs)
                    self._begun.append(callback)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def epoch_ended(self, epoch: int, metrics: dict[str, float]) -> None:
        """Tells all of an epoch; what one adds to its metrics belongs to the epoch, and the next one sees it."""
        with self._team.together():
            for callback in self._callbacks:
                recorded = dict(metrics)
                callback.on_epoch_end(self._network, epoch, metrics)
                if any(recorded.get(name, self) is not value for name, value in metrics.items()):
                    self._network.history.amend(metrics)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        given, left, done = error, iter(self._begun), False
        while not done:
            try:  # around the loop: an interrupt between two of them does not keep the others from their end
                for callback in left:
                    callback.on_train_end(self._network)
                done = True
            except BaseException as another:
                if error is None or (isinstance(error, Exception) and not isinstance(another, Exception)):
                    error = another
                else:
                    error.add_note(f"on_train_end of {type(callback).__name__} failed as well: {another!r}")
        # after an error nobody waits for the others: they all have it
        with self._team.together() if given is None else nullcontext():
            if error is not None and error is not given:
                try:
                    raise error
                finally:
                    del error, given  # their tracebacks hold this frame: no circle that keeps the data in memory
