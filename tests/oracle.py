"""The judgement that a network trains as the plain network does."""

import numpy as np
import pytest
from plain_network import PlainNetwork

import cydrop as cd


def assert_same_training(net, X, y, steps=6, sample_weight=None, rtol=2e-5, shards=0):
    """`steps` steps in cydrop and in the plain network, with the masks that cydrop drew; in shards, if any."""
    net.build(X.shape[1])
    plain = PlainNetwork(net)
    for _ in range(steps):
        if shards:
            parallel = cd.distributed.DataParallel(shards=shards)
            options = {"sample_weight": sample_weight, "parallel": parallel, "shuffle": False, "verbose": 0}
            loss = net.fit(X, y, epochs=1, batch_size=len(X), **options).metrics["loss"][-1]
            expected = plain.train_in_shards(X, y, net.masks(), shards, sample_weight)
        else:
            loss = net.train_on_batch(X, y, sample_weight)
            expected = plain.train(X, y, net.masks(), sample_weight)
        assert loss == pytest.approx(expected, rel=rtol, abs=1e-6)
    for found, twins in ((net.parameters(), plain.parameters), (net.buffers(), plain.buffers)):
        for name, array in found.items():
            scale = np.abs(twins[name]).max() + 1e-3
            np.testing.assert_allclose(array, twins[name], rtol=0, atol=rtol * scale, err_msg=name)
