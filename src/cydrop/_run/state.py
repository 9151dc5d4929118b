"""What a network is, by name: the one list of what pickles and files hold, and what is kept to go back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cydrop._base.arrays import Floats
from cydrop._run.calibrated import Calibrated
from cydrop._run.plan import Plan
from cydrop.history import History
from cydrop.losses import Loss
from cydrop.optimizers import Optimizer


class Weights(NamedTuple):
    """What predictions depend on, as arenas: the beginning of a pass, the best epoch, the state to go back to."""

    parameters: Floats
    buffers: Floats

    def like(self) -> Weights:
        """Memory for as much."""
        return Weights(np.empty_like(self.parameters), np.empty_like(self.buffers))

    def copy(self) -> Weights:
        return Weights(self.parameters.copy(), self.buffers.copy())


class Built(NamedTuple):
    """What a network has once it is built."""

    n_features: int
    draws: int  # training forward passes so far: the random numbers of the next one
    updates: int  # of the optimizer
    tensors: Mapping[str, Floats] | None  # all that training changes, by name; None: not read yet
    plan: Plan | None = None  # that it was built by


@dataclass(eq=False, frozen=True, repr=False)
class State:
    """A whole network, with its random state: who goes on from it gets the same bits."""

    layers: tuple[Any, ...]
    loss: Loss
    optimizer: Optimizer
    root: tuple[int, ...]  # of all its seeds
    epochs: int  # finished, of all calls of fit: the branch of the next shuffle
    history: History
    n_threads: int
    threads_of_machine: bool  # and not a number that somebody chose
    built: Built | None
    calibrated: Calibrated | None = None
    precision: str = "float32"  # of products

    def pickled(self) -> dict[str, Any]:
        """As in a pickle: these names stay."""
        state: dict[str, Any] = {
            "layers": list(self.layers),
            "loss": self.loss,
            "_optimizer": self.optimizer,
            "n_threads": self.n_threads,
            "_threads_of_machine": self.threads_of_machine,
            "history": History({name: list(values) for name, values in self.history.metrics.items()}),
            "_root": self.root,
            "_epochs": self.epochs,
            "built": None,
        }
        if self.built is not None:
            state["built"] = {name: getattr(self.built, name) for name in ("n_features", "draws", "updates", "tensors")}
        if self.calibrated is not None:
            state["calibrated"] = self.calibrated
        if self.precision != "float32":
            state["precision"] = self.precision
        return state

    @classmethod
    def unpickled(cls, state: Mapping[str, Any]) -> State:
        """Of what `pickled` gave, now or in an earlier version."""
        return cls(
            tuple(state["layers"]), state["loss"], state["_optimizer"], state["_root"], state["_epochs"],
            state["history"], state["n_threads"], state["_threads_of_machine"],
            Built(**state["built"]) if state.get("built") is not None else None, state.get("calibrated"),
            state.get("precision", "float32"),
        )  # fmt: skip


PICKLED = frozenset({
    "layers", "loss", "_optimizer", "n_threads", "_threads_of_machine", "history", "_root", "_epochs", "built",
    "calibrated", "precision",
})  # fmt: skip
