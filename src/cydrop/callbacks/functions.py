"""The user's own functions as a callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cydrop.callbacks.base import Callback

__all__ = ["LambdaCallback"]


class LambdaCallback(Callback):
    """Functions as a callback.

    Parameters
    ----------
    on_train_begin : callable (network, epochs) or None
    on_epoch_end : callable (network, epoch, metrics) or None
    on_train_end : callable (network) or None
    """

    def __init__(
        self,
        on_epoch_end: Callable[[Any, int, dict[str, float]], Any] | None = None,
        on_train_begin: Callable[[Any, int], Any] | None = None,
        on_train_end: Callable[[Any], Any] | None = None,
    ) -> None:
        self._begin, self._epoch, self._end = on_train_begin, on_epoch_end, on_train_end

    def on_train_begin(self, network: Any, epochs: int) -> None:
        if self._begin is not None:
            self._begin(network, epochs)

    def on_epoch_end(self, network: Any, epoch: int, metrics: dict[str, float]) -> None:
        if self._epoch is not None:
            self._epoch(network, epoch, metrics)

    def on_train_end(self, network: Any) -> None:
        if self._end is not None:
            self._end(network)
