"""What happens after each epoch: records, scikit-learn's rule of when to stop, SGD's learning rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cydrop import layers
from cydrop._run.core import core_of
from cydrop._run.state import Weights
from cydrop.callbacks import Callback
from cydrop.network import Network
from cydrop.sklearn._data import Data
from cydrop.sklearn._parameters import Estimator, Settings
from cydrop.sklearn._solver import inversely_scaled_rate, scales_inversely, set_rate
from cydrop.sklearn._task import Task

WATCHED_ROWS = 10_000  # training rows at most whose loss without dropout decides whether training goes on


class Watch(Callback):
    """Keeps the estimator's records, stops by scikit-learn's rule and adapts SGD's learning rate."""

    def __init__(
        self,
        estimator: Estimator,
        task: Task,
        settings: Settings,
        data: Data,
        validation: Data | None,
        incremental: bool,
        fresh: bool,
    ) -> None:
        self.estimator, self.task, self.settings, self.rows = estimator, task, settings, len(data.X)
        self.validation, self.incremental, self.fresh = validation, incremental, fresh
        self.by_validation = validation is not None and estimator.early_stopping
        # scikit-learn's loss of a regression is the mean over the outputs, its gradient the sum's
        loss = estimator.network_.loss
        self.outputs = loss.columns(estimator.n_outputs_) if task.numeric else 1
        # of quantiles, or means and variances, R^2 sees the centre alone
        self.by_loss = task.numeric and self.outputs < estimator.n_outputs_
        self.waited = 0
        self.best_gain = self.best_score = self.gain_of_best = -math.inf
        self.best: Weights | None = None
        self.best_clean_loss = math.inf
        self.clean: Data | None = None  # training rows to look at with dropout off, where the trained loss is noisy
        noisy = any(isinstance(layer, layers.Dropout) for layer in settings.hidden)
        if noisy and not self.by_validation and not incremental:
            some = data.take(np.arange(0, len(data.X), -(-len(data.X) // WATCHED_ROWS)))
            self.clean = Data(some.X, some.target, some.scaled_weight(task.loss()[1]))

    def on_train_begin(self, network: Network, epochs: int) -> None:
        self.estimator.n_iter_ = 0
        self._clean_loss_fell(network)  # since now
        if self.by_validation and not self.fresh:  # a warm start may be as good as it gets
            self._keep_better(network, *self._judge(network)[1:])

    def on_epoch_end(self, network: Network, epoch: int, metrics: dict[str, float]) -> None:
        estimator = self.estimator
        estimator.loss_ = metrics["loss"] / self.outputs
        estimator.loss_curve_.append(estimator.loss_)
        estimator.n_iter_ += 1
        estimator.t_ += self.rows
        better = self._better_score(network, metrics) if self.validation is not None else False
        if not self.by_validation:
            better = self._smaller_loss()
        self.waited = 0 if better else self.waited + 1
        if scales_inversely(estimator):
            set_rate(network, inversely_scaled_rate(estimator))
        if self.waited > self.settings.n_iter_no_change and not self.incremental:
            rate: Any = network.optimizer.learning_rate
            if self._clean_loss_fell(network):
                self.waited = 0
            elif estimator.solver == "sgd" and estimator.learning_rate == "adaptive" and rate > 1e-6:
                set_rate(network, rate / 5.0)
                self.waited = 0
            else:
                network.stop_training = True

    def _smaller_loss(self) -> bool:
        estimator = self.estimator
        best = math.inf if estimator.best_loss_ is None else estimator.best_loss_
        estimator.best_loss_ = min(best, estimator.loss_)
        return bool(estimator.loss_ <= best - self.settings.tol)

    def _clean_loss_fell(self, network: Network) -> bool:
        """Whether the training rows' loss without dropout fell since it was last looked at: dropout's noise may hide
        that training goes on. It is only looked at where training would otherwise stop, so that it costs little."""
        rows = self.clean
        if rows is None:
            return False
        loss = network.evaluate(rows.X, rows.target, rows.weight)["loss"] / self.outputs
        fell = loss <= self.best_clean_loss - self.settings.tol
        self.best_clean_loss = min(self.best_clean_loss, loss)
        return fell

    def _judge(self, network: Network) -> tuple[float, float, float]:
        """The score of the held-out rows; and what better is decided by: a score, and where it is equal a loss with the
        sign turned. Of a regression the loss alone, which is R^2 too but where that says nothing, or not enough."""
        assert self.validation is not None
        held = self.validation
        score, gain = self.task.judge(network.predict(held.X), held)
        if self.by_loss:
            gain = -network.evaluate(held.X, held.target, held.scaled_weight(1.0))["loss"]
        return score, gain if self.task.numeric else score, gain

    def _better_score(self, network: Network, metrics: dict[str, float]) -> bool:
        """Whether the score or the loss of the held-out rows improved: accuracy alone stands still for many epochs."""
        estimator, tol = self.estimator, self.settings.tol
        recorded, score, gain = self._judge(network)
        estimator.validation_scores_.append(recorded)
        estimator.best_validation_score_ = max(estimator.best_validation_score_, recorded)
        estimator.validation_loss_curve_.append(metrics["val_loss"] / self.outputs)
        better = score >= self.best_score + tol or gain >= self.best_gain + tol
        if self.by_validation:
            self._keep_better(network, score, gain)
        return better

    def _keep_better(self, network: Network, score: float, gain: float) -> None:
        if (score, gain) > (self.best_score, self.gain_of_best):
            self.best_score, self.gain_of_best = score, gain
            self.best = core_of(network).made("the best epoch").weights.copy()
        self.best_gain = max(self.best_gain, gain)

    def on_train_end(self, network: Network) -> None:
        if self.best is not None:
            core_of(network).put_back(self.best)
