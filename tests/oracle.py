"""The judgement that a network trains as the plain network does."""

import numpy as np
import pytest
from plain_network import PlainNetwork


def assert_same_training(net, X, y, steps=6, sample_weight=None, rtol=2e-5):
    """`steps` steps in cydrop and in the plain network, with the masks that cydrop drew."""
    net.build(X.shape[1])
    plain = PlainNetwork(net)
    for _ in range(steps):
        loss = net.train_on_batch(X, y, sample_weight)
        assert loss == pytest.approx(plain.train(X, y, net.masks(), sample_weight), rel=rtol, abs=1e-6)
    for name, array in net.parameters().items():
        scale = np.abs(plain.parameters[name]).max() + 1e-3
        np.testing.assert_allclose(array, plain.parameters[name], rtol=0, atol=rtol * scale, err_msg=name)
