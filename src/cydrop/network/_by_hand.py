"""Training by hand: one pass forward, one backward, one step; and the arrays that they read and write."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks
from cydrop._base.arrays import Floats
from cydrop._run.core import Cored, core_of
from cydrop._run.passes import checked_masks
from cydrop._run.prediction import predict


class ByHand(Cored):
    """What `fit` does in one, step by step."""

    def forward(
        self, X: ArrayLike, *, training: bool = False, masks: Sequence[ArrayLike | None] | None = None
    ) -> Floats:
        """Raw outputs, before the loss's link.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        training : bool
            Whether dropout drops; then `backward` may follow.
        masks : sequence or None
            One entry per dropout layer (`Dropout` and `AlphaDropout`): a boolean array (True keeps) of shape
            (n_samples, units), or (units,) for a layer with shared="batch", or None for a layer that draws. A
            `Residual` with drop_path has one of shape (n_samples,), after those of the layers inside.

        Returns
        -------
        ndarray of float32, shape (n_samples, units)
            Of a network that ends with `Members` in training those of each, (members, n_samples, units), where a mask
            has one more dimension in front too; else raw outputs whose link is what they predict together.
        """
        core = core_of(self)
        checks.flag("training", training)
        if not training:
            if masks is not None:
                raise ValueError("masks are for training=True: without it nothing is dropped")
            rows = core.inputs(X)
            return predict(core.built_for(rows.shape[1]), rows, False)
        with core.turn:
            rows = core.inputs(X)
            given = checked_masks(masks, core.plan_for(rows.shape[1]), len(rows))
            return core.passes.forward(core.built_for(rows.shape[1]), rows, given, core.first_rates().drawing)

    def backward(self, grad: ArrayLike) -> Floats:
        """Backpropagates through the last training `forward` and fills the gradients.

        Parameters
        ----------
        grad : array-like, of the shape that `forward` returned
            d loss / d raw outputs.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_features)
            d loss / d X.

        Raises
        ------
        RuntimeError
            Without a `forward(X, training=True)` before it.
        """
        with core_of(self).turn:
            return core_of(self).passes.backward(grad)

    def step(self) -> None:
        """Applies the optimizer to the gradients that `backward` left.

        Unlike `fit` and `train_on_batch` it does not check whether the parameters stay finite.
        """
        with core_of(self).turn:
            rates = core_of(self).first_rates()
            core_of(self).made("step").ready().train_on(0)
            core_of(self).made("step").ready().apply_update(float(rates.learning[0]), float(rates.decay[0]))

    def parameters(self) -> OrderedDict[str, Floats]:
        """Views of the parameters: `"1.weight"` (inputs, units), `"1.bias"` (units,), numbered by the layer's place."""
        model = core_of(self).made("parameters")
        return model.views(model.parameters)

    def learned_rates(self) -> OrderedDict[str, float]:
        """The rates that `Dropout("learn")` has learned so far, by their layers' places, as `"2.rate"`; empty where no
        layer learns its rate. RuntimeError before the network is built."""
        return OrderedDict(core_of(self).made("learned_rates").learned_rates())

    def gradients(self) -> OrderedDict[str, Floats]:
        """Views of the gradients of the last `backward`, under the names of `parameters`. `fit` and the other training
        calls need not write them here: a large network's go straight to the optimizer."""
        model = core_of(self).made("gradients")
        return model.views(model.gradients)

    def buffers(self) -> OrderedDict[str, Floats]:
        """Views of what is kept but not trained: `"2.running_mean"`, `"2.running_variance"` of batch normalisation."""
        return core_of(self).made("buffers").running()

    def masks(self) -> list[NDArray[np.bool_]]:
        """The masks of the last training forward pass: one boolean array per dropout layer, True keeps, of shape
        (n_samples, units), (units,) for a layer with shared="batch", or (n_samples,) for a `Residual` with drop_path,
        whose mask comes after those of the layers inside. With `Members` those of each member come one after another,
        in one more dimension in front. With R-Drop the rows of the first pass are followed by those of the second, of
        each shard where the batch was cut into shards.

        They are not kept but drawn again, from the seed and the number of the step.

        Raises
        ------
        RuntimeError
            Before the first training forward pass.
        """
        return core_of(self).passes.masks()
