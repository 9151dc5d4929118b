"""Whole fits of the estimators for tables end in the same bits: on any number of threads, with any instruction set."""

import pytest
from digests import fused
from test_same_bits import run

import cydrop as cd

# A table with numbers of all sizes, missing cells, few and many categories; and all that is drawn or chosen by it.
SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import hashlib
import numpy as np
from digests import bytes_of
from cydrop.tabular import RealMLPClassifier, RealMLPRegressor, TabMClassifier, TabMRegressor

rng = np.random.default_rng(0)
n = 700
numbers = rng.standard_normal((n, 5)) * [1e-6, 1.0, 1e3, 1e12, 1.0] + [0, 0, 0, 1e12, 0]
y = numbers[:, 1] + np.floor(3 * numbers[:, 4]) * (numbers[:, 2] > 500)
numbers[rng.random((n, 5)) < 0.1] = np.nan
X = np.empty((n, 8), dtype=object)
X[:, :5] = numbers
X[:, 5] = rng.choice(["a", "b", "c", None], n)
X[:, 6] = [f"v{{number}}" for number in rng.integers(0, 50, n)]
X[:, 7] = rng.random(n) < 0.5
weight = rng.random(n)

for n_threads in (1, 2, 3):
    common = dict(hidden_layer_sizes=(64, 48), random_state=0, n_threads=n_threads, batch_size=100)
    members = [
        RealMLPClassifier(max_iter=8, n_ensemble=2, **common),
        RealMLPClassifier(max_iter=8, metric="log_loss", numeric_embedding="plr", class_weight="balanced", **common),
        RealMLPRegressor(max_iter=8, n_folds=2, **common),
        RealMLPRegressor(max_iter=8, numeric_embedding="piecewise_linear", **common),
        RealMLPRegressor(max_iter=8, small=True, **common),
        TabMClassifier(max_iter=4, n_members=5, n_ensemble=2, **common),
        TabMClassifier(max_iter=4, n_members=5, metric="log_loss", sharing="tabm", shared_masks=True, **common),
        TabMRegressor(max_iter=4, n_members=5, n_folds=2, max_onehot=10, **common),
        TabMRegressor(max_iter=4, n_members=5, sharing="packed", batches="shared", **common),
    ]
    for model in members:
        classes = hasattr(model, "predict_proba")
        model.fit(X, np.digitize(y, [-1, 1]) if classes else y, sample_weight=weight)
        found = hashlib.sha256(bytes_of(model.predict_proba(X) if classes else model.predict(X)))
        for network in model.networks_:
            for array in network.parameters().values():
                found.update(bytes_of(array))
        if not getattr(model, "small", False):
            found.update(bytes_of(model.predict_mc(X, 4).mean))
        print(found.hexdigest())
"""

# A change here is a change of every user's results: it needs a new version and a line in CHANGELOG.md.
GOLDEN = {
    True: [
        "f66eb2352b9fbfc29fb56fe39a5d538e9dfe12d8ce8cdbf3df5a9bd4e974710e",  # two networks
        "98ba006a7ecd34cd3eb66e80ed70db6992e731bc9ed3ad95633c3bc5dd5bb333",  # by log-loss, plr, balanced
        "89c5dcd0806d80ae171ac1320ad5499e204d98e6eb78b1c57dbe0d82b6494889",  # two folds
        "6a0fc52dfdf3b907fa94ca92dd0deb56889be741ed79ced7f221e642d6874a85",  # piecewise linear
        "bd23052aecd81985552e90a4f0ea6388e7a68444bd63dd40e6cfc80e0e3fa551",  # small
        "bd01d49917e48c7a2939c9243bbbb584bfd3a62cbb6a52951ce46c87fb39bbbd",  # TabM, two networks
        "8dcacbd711d0508124f1581bf3f39ac76728301413dac2390d59022848c1f88e",  # TabM by log-loss, shared masks
        "4d236843e5e753b0dc49038ee589230a37885ad2693b2d51bcfe799ba62fee64",  # TabM, two folds
        "b35c9792df1ddf4d9af7e8035a5ab4fadb3abf53408696548903a97f367d90a7",  # TabM, nothing shared
    ],
    False: [
        "320b2cdb7e5b73689714c15e789ad64eee461b544df5dbda96c18daf5f84d98e",
        "a9565a11d67290aec621ee60322eb3ae25d0ffdceffd0acc28191879a81c090c",
        "22d6b57f9c34d38369ef95ca9f2471db4350f1d38e411dd1e6d8693be2600ed2",
        "fc44d48938e4f69eb79d5aeb44c7891dba284cfab914f3ba4c3e069a9c9dbba7",
        "f2875d8ad7172687d0a300631948894d99f51ee153d38c7d8b1e93d15aaed81b",
        "6b7926f509cecf0980727ccf3de126f271d72a4d98c77f191901139c4373ad63",
        "d43d2247a680549a7a08d86a31e598f87aaee93073ca2705f09341c955c8024d",
        "3b35656907c1ca4437c575f3297d22a69672c75c4e0968c5b6d84fe577c2b5aa",
        "69d50658dc446ccc3baad7acf17e890d313069ad5369a475fe470ca080ea21d0",
    ],
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_estimators_for_tables_have_their_golden_bits_on_1_2_and_3_threads(simd):
    assert run(simd, SCRIPT).stdout.split() == 3 * GOLDEN[fused(simd)]
