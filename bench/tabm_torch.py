"""TabM as its authors' packages have it, `tabm` and `rtdl_num_embeddings`, trained by a plain PyTorch loop.

What `cydrop.tabular` trains is the same recipe: the authors' preparation of the columns, piecewise-linear embeddings of
16 numbers with 48 bins, "mini" sharing with 32 members, 2 x 512 units, dropout 0.1, rows of each member in an order of
its own, AdamW (2e-3, decay 3e-4 but of biases and the embeddings' lines), gradients of norm 1 at most, and an end after
16 epochs in which the held-out fifth's error was not less. Even its rows are the same: the split is that of
`cydrop.tabular`, of the same seed.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rtdl_num_embeddings
import tabm
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.preprocessing import QuantileTransformer

Array = NDArray[Any]

MEMBERS, BINS, EMBEDDED = 32, 48, 16
PATIENCE, EPOCHS = 16, 1000
RATE, DECAY, CLIP = 2e-3, 3e-4, 1.0
NOISE = 1e-5
PREDICTED = 1024  # rows at a time
BATCHES = (2_800, 32), (4_500, 64), (6_400, 128), (32_000, 256)  # below so many rows to train on


class TabM(BaseEstimator):  # type: ignore[misc]
    """An estimator for frames without missing numbers, whose categories have dtype category.

    Parameters
    ----------
    classes : bool
        Whether the targets are classes.
    seed : int
    """

    def __init__(self, classes: bool, seed: int) -> None:
        self.classes, self.seed = classes, seed

    def fit(self, X: pd.DataFrame, y: Array) -> Any:
        torch.manual_seed(self.seed)
        y, outputs = self._targets(y)
        train, held = holdout(np.random.RandomState(self.seed), len(X), 0.2, y if self.classes else None)
        self._learn_columns(X.iloc[train])
        numbers, codes = self._columns(X)
        if not self.classes:
            self.shift_, self.scale_ = y[train].mean(), y[train].std() or 1.0
            y = (y - self.shift_) / self.scale_
        target = torch.as_tensor(y, dtype=torch.long if self.classes else torch.float32)
        self.model_ = self._network(numbers[train], outputs)
        self._train(numbers, codes, target, torch.as_tensor(train), torch.as_tensor(held))
        return self

    def _targets(self, y: Array) -> tuple[Array, int]:
        if not self.classes:
            return np.asarray(y, dtype=np.float64), 1
        self.classes_, codes = np.unique(y, return_inverse=True)
        return codes.astype(np.int64), max(2, len(self.classes_))

    # Columns --------------------------------------------------------------------------------------------------

    def _learn_columns(self, X: pd.DataFrame) -> None:
        numbers = X.select_dtypes("number")
        self.numbers_ = [name for name in numbers if numbers[name].nunique() > 1]
        self.categories_ = {
            name: pd.Index(X[name].dropna().unique()).sort_values() for name in X.select_dtypes("category")
        }
        count = max(min(len(X) // 30, 1000), 10)
        self.quantiles_ = QuantileTransformer(n_quantiles=count, output_distribution="normal", subsample=10**9)
        if self.numbers_:
            given = X[self.numbers_].to_numpy(np.float64)
            self.quantiles_.fit(given + np.random.default_rng(self.seed).normal(0.0, NOISE, given.shape))

    def _columns(self, X: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers, and codes of categories; the code after the last is that of a missing or unseen one."""
        numbers = np.empty((len(X), 0))
        if self.numbers_:
            numbers = self.quantiles_.transform(X[self.numbers_].to_numpy(np.float64))
        codes = [
            np.where((found := known.get_indexer(X[name])) < 0, len(known), found)
            for name, known in self.categories_.items()
        ]
        together = np.stack(codes, axis=1) if codes else np.empty((len(X), 0))
        return torch.as_tensor(numbers, dtype=torch.float32), torch.as_tensor(together, dtype=torch.long)

    # The network ----------------------------------------------------------------------------------------------

    def _network(self, numbers: torch.Tensor, outputs: int) -> Any:
        embeddings = None
        if self.numbers_:
            bins = rtdl_num_embeddings.compute_bins(numbers, n_bins=min(BINS, len(numbers) - 1))
            embeddings = rtdl_num_embeddings.PiecewiseLinearEmbeddings(bins, EMBEDDED, activation=False, version="B")
        return tabm.TabM.make(
            n_num_features=len(self.numbers_),
            cat_cardinalities=[len(known) + 1 for known in self.categories_.values()],
            d_out=outputs,
            num_embeddings=embeddings,
            arch_type="tabm-mini",
            k=MEMBERS,
            n_blocks=2,
            d_block=512,
            dropout=0.1,
        )

    def _optimizer(self) -> torch.optim.Optimizer:
        lines = [
            parameter
            for module in self.model_.modules()
            if isinstance(module, rtdl_num_embeddings.LinearEmbeddings)
            for parameter in module.parameters()
        ]
        left = {id(parameter) for parameter in lines}
        left |= {id(parameter) for name, parameter in self.model_.named_parameters() if name.endswith("bias")}
        groups: list[dict[str, Any]] = [{"params": []}, {"params": [], "weight_decay": 0.0}]
        for parameter in self.model_.parameters():
            groups[id(parameter) in left]["params"].append(parameter)
        return torch.optim.AdamW(groups, lr=RATE, weight_decay=DECAY)

    def _output(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """(rows, members, outputs)"""
        found: torch.Tensor = self.model_(numbers if self.numbers_ else None, codes if self.categories_ else None)
        return found

    # Training -------------------------------------------------------------------------------------------------

    def _train(
        self, numbers: torch.Tensor, codes: torch.Tensor, y: torch.Tensor, train: torch.Tensor, held: torch.Tensor
    ) -> None:
        n = len(train)
        size = next((size for below, size in BATCHES if n < below), 512)
        loss_of = torch.nn.functional.cross_entropy if self.classes else torch.nn.functional.mse_loss
        optimizer = self._optimizer()
        best, kept, waited = np.inf, self.model_.state_dict(), 0
        for epoch in range(EPOCHS):
            self.model_.train()
            for places in torch.rand((MEMBERS, n)).argsort(dim=1).T.split(size):  # (rows, members)
                rows = train[places]
                optimizer.zero_grad()
                z = self._output(numbers[rows], codes[rows]).flatten(0, 1)
                loss = loss_of(z if self.classes else z.squeeze(1), y[rows].flatten())
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.model_.parameters(), CLIP)
                optimizer.step()
            error = self._error(self._mean(numbers[held], codes[held]), y[held].numpy())
            if error < best:
                best, waited = error, 0
                kept = {name: value.clone() for name, value in self.model_.state_dict().items()}
                self.best_epoch_ = epoch + 1
            else:
                waited += 1
            if waited >= PATIENCE:
                break
        self.n_iter_ = epoch + 1
        self.model_.load_state_dict(kept)

    def _error(self, predicted: Array, y: Array) -> float:
        if self.classes:
            return float(np.mean(predicted.argmax(axis=1) != y))
        return float(np.sqrt(np.mean((predicted[:, 0] - y) ** 2)))

    def _mean(self, numbers: torch.Tensor, codes: torch.Tensor) -> Array:
        """The mean of the members' probabilities or values."""
        self.model_.eval()
        found = []
        with torch.inference_mode():
            for start in range(0, len(numbers), PREDICTED):
                z = self._output(numbers[start : start + PREDICTED], codes[start : start + PREDICTED])
                found.append((z.softmax(dim=-1) if self.classes else z).mean(dim=1))
        return np.asarray(torch.cat(found).numpy().astype(np.float64))

    def predict_proba(self, X: pd.DataFrame) -> Array:
        return self._mean(*self._columns(X))[:, : len(self.classes_)]

    def predict(self, X: pd.DataFrame) -> Array:
        if self.classes:
            return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
        return np.asarray(self._mean(*self._columns(X))[:, 0] * self.scale_ + self.shift_)


def holdout(*arguments: Any) -> tuple[Array, Array]:
    """Training and held-out rows, as the estimators of cydrop draw them; cydrop need not be installed here."""
    place = Path(__file__).resolve().parent.parent / "src" / "cydrop" / "tabular" / "_splits.py"
    spec = importlib.util.spec_from_file_location("cydrop_splits", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: tuple[Array, Array] = module.holdout(*arguments)
    return found
