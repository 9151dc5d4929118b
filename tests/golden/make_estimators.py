"""Writes pickles of fitted estimators and of callbacks, and what the estimators gave, for tests/test_old_pickles.py.

    python tests/golden/make_estimators.py          (with an older cydrop: what it wrote must load in a newer one)

pickles/NAME.pickle: the estimator CASES[NAME], fitted; callbacks.pickle: a list of callbacks and a history. In
estimators.npz: "X", (60, 4), and NAME + "/y"; "/before", what `answer` gives of the estimator as it was pickled;
"/after", the same after `more`; "/records", the numbers of `records`. All floats are little-endian.
"""

import pickle
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning

import cydrop as cd
from cydrop import callbacks, schedules
from cydrop.sklearn import MLPClassifier, MLPRegressor

FOLDER = Path(__file__).parent

rng = np.random.default_rng(20261126)
X = rng.standard_normal((60, 4)).astype("<f4")
scores = X @ rng.standard_normal((4, 3)).astype(np.float32)

TARGETS = {
    "early_stopping": np.array(["ant", "bee", "cat"])[scores.argmax(axis=1)],
    "scheduled": scores[:, :2].astype("<f4"),
    "huber": scores[:, 0].astype("<f4"),
    "labels": (scores > 0).astype("<i4"),
    "lbfgs": scores[:, 1].astype("<f4"),
    "partial_fit": np.where(scores[:, 2] > 0, 7, 3).astype("<i4"),
}
CASES = {
    "early_stopping": MLPClassifier((6,), dropout=[0.1, 0.3], early_stopping=True, max_iter=6),
    "scheduled": MLPRegressor(5, dropout=0.4, dropout_schedule=schedules.Linear(1, 0), max_norm=1.5, max_iter=4),
    "huber": MLPRegressor((5, 4), "softplus", loss="huber", batch_size=16, dropout=0.2, max_iter=4),
    "labels": MLPClassifier((6,), "logistic", dropout=0.2, dropout_mode="vanilla", alpha=0.01, max_iter=4),
    "lbfgs": MLPRegressor((4,), "tanh", solver="lbfgs", max_iter=5),
    "partial_fit": MLPClassifier((5,), "gelu", solver="sgd", learning_rate="invscaling", dropout=0.1),
}
RECORDS = ("loss_", "n_iter_", "t_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_")


def answer(model, X):
    """Probabilities or numbers, a column an output."""
    found = model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)
    return found.reshape(len(X), -1).astype("<f8")


def records(model):
    """What the estimator knows of its training, one number after the other."""
    found = [getattr(model, name, None) for name in RECORDS]
    return np.hstack([np.nan if value is None else value for value in found]).astype("<f8")


def more(name, model, X, y):
    """Training that goes on: by `partial_fit`, "lbfgs" as "adam"; with a schedule, which that refuses, by `fit`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if name == "scheduled":
            return model.set_params(warm_start=True, max_iter=1).fit(X, y)
        return (model.set_params(solver="adam") if name == "lbfgs" else model).partial_fit(X, y)


def main():
    arrays = {"X": X} | {f"{name}/y": y for name, y in TARGETS.items()}
    for name, model in CASES.items():
        y = TARGETS[name]
        model.set_params(random_state=3, n_threads=1)
        if name == "partial_fit":
            for _ in range(3):
                model.partial_fit(X, y, classes=[3, 7])
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(X, y)
        (FOLDER / "pickles" / f"{name}.pickle").write_bytes(pickle.dumps(model, protocol=4))
        arrays |= {f"{name}/before": answer(model, X), f"{name}/records": records(model)}
        arrays[f"{name}/after"] = answer(more(name, model, X, y), X)
    np.savez_compressed(FOLDER / "estimators.npz", **arrays)

    net = cd.Network([cd.Dense(3)], seed=0)
    told = [callbacks.EarlyStopping("loss", patience=2), callbacks.ReduceLROnPlateau("loss", 0.5, min_delta=0.25)]
    history = net.fit(X, scores.argmax(axis=1), epochs=4, callbacks=told, verbose=0)
    told += [callbacks.Checkpoint("net", "val_auc"), callbacks.CSVLogger("log.csv", append=True)]
    told += [callbacks.ProgressBar(), callbacks.LambdaCallback(print), callbacks.Callback(), history]
    (FOLDER / "pickles" / "callbacks.pickle").write_bytes(pickle.dumps(told, protocol=4))
    for path in sorted([*FOLDER.glob("pickles/*.pickle"), FOLDER / "estimators.npz"]):
        print(f"{path.stat().st_size:6} {path.name}")


if __name__ == "__main__":
    main()
