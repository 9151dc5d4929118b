"""Weights from and to PyTorch itself. Not collected by default, since PyTorch is no requirement of the tests:

python -m pytest tests/with_torch/check_torch.py
"""

import numpy as np
import pytest
import torch
from torch import nn

import cydrop as cd

ACTIVATIONS = {
    "ReLU": (cd.ReLU, nn.ReLU),
    "LeakyReLU": (lambda: cd.LeakyReLU(0.2), lambda: nn.LeakyReLU(0.2)),
    "ELU": (lambda: cd.ELU(0.7), lambda: nn.ELU(0.7)),
    "SELU": (cd.SELU, nn.SELU),
    "GELU": (cd.GELU, nn.GELU),
    "SiLU": (cd.SiLU, nn.SiLU),
    "Tanh": (cd.Tanh, nn.Tanh),
    "Sigmoid": (cd.Sigmoid, nn.Sigmoid),
    "Softplus": (cd.Softplus, nn.Softplus),
    "Mish": (cd.Mish, nn.Mish),
}


def randomise(module):
    """Weights and running statistics as no initialisation has them."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.dtype == torch.float32:
                tensor.copy_(torch.rand_like(tensor) + 0.3 if name.endswith("var") else 0.5 * torch.randn_like(tensor))
    return module


def outputs(module, X):
    with torch.no_grad():
        return module.eval()(torch.from_numpy(np.asarray(X, dtype=np.float32))).numpy()


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(7)


def modules():
    """All that from_torch knows, nested and named."""
    everything = [nn.Flatten(), nn.BatchNorm1d(6, eps=1e-3, momentum=0.3), nn.Linear(6, 9)]
    for _, make in ACTIVATIONS.values():
        everything += [make(), nn.Sequential(nn.Dropout(0.3), nn.Linear(9, 9, bias=False))]
    everything += [nn.Identity(), nn.AlphaDropout(0.2), nn.Sequential(nn.LayerNorm(9, eps=1e-4)), nn.Linear(9, 4)]
    return nn.Sequential(*everything)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse", "gaussian_nll"])
def test_a_network_of_any_sequential_has_its_outputs(loss, rng):
    X = rng.standard_normal((40, 6))
    module = randomise(modules())
    net = cd.exchange.from_torch(module, loss=loss)
    expected = outputs(module, X)
    assert_close(net.forward(X), expected)
    linked = {"cross_entropy": nn.Softmax(dim=1), "binary_cross_entropy": nn.Sigmoid()}.get(loss)
    if linked is not None:
        assert_close(net.predict(X), outputs(linked, expected))


def test_layers_have_the_options_of_the_modules():
    net = cd.exchange.from_torch(modules(), loss="mse")
    expected = [cd.BatchNorm(momentum=0.3, epsilon=1e-3), cd.Dense(9)]
    for make, _ in ACTIVATIONS.values():
        expected += [make(), cd.Dropout(0.3), cd.Dense(9, bias=False)]
    expected += [cd.AlphaDropout(0.2), cd.LayerNorm(epsilon=1e-4), cd.Dense(4)]
    assert [repr(layer) for layer in net.layers] == [repr(layer) for layer in expected]


def test_a_module_at_several_places_is_a_layer_at_each(rng):
    relu, linear = nn.ReLU(), nn.Linear(5, 5)
    module = nn.Sequential(linear, relu, linear, relu, nn.Linear(5, 2))
    net = cd.exchange.from_torch(module, loss="mse")
    X = rng.standard_normal((20, 5))
    assert len(net.layers) == 5
    assert_close(net.predict(X), outputs(module, X))


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        (nn.Softmax(dim=1), "cross_entropy"),
        (nn.Softmax(dim=-1), "cross_entropy"),
        (nn.Sequential(nn.Softmax(dim=1), nn.Identity()), "cross_entropy"),
        (nn.Sigmoid(), "binary_cross_entropy"),
        (nn.Sigmoid(), "mse"),
        (nn.Softplus(), "mse"),
    ],
)
def test_a_last_link_is_taken_for_the_losss(last, loss, rng):
    X = rng.standard_normal((20, 5))
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), last)
    assert_close(cd.exchange.from_torch(module, loss=loss).predict(X), outputs(module, X))


def test_a_last_log_softmax_becomes_probabilities(rng):
    X = rng.standard_normal((20, 5))
    module = nn.Sequential(nn.Linear(5, 4), nn.LogSoftmax(dim=1))
    assert_close(cd.exchange.from_torch(module, loss="cross_entropy").predict(X), np.exp(outputs(module, X)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_modules_of_other_precisions_are_taken_as_float32(dtype, rng):
    X = rng.standard_normal((20, 6))
    module = randomise(modules())
    rounded = module.to(dtype)
    net = cd.exchange.from_torch(rounded, loss="mse")
    assert_close(net.predict(X), outputs(rounded.float(), X))


@pytest.mark.parametrize(
    "bad",
    [
        nn.Conv1d(1, 1, 3), nn.RReLU(), nn.CELU(), nn.ReLU6(), nn.Hardtanh(), nn.GELU(approximate="tanh"),
        nn.Softplus(beta=2), nn.Softplus(threshold=1), nn.PReLU(), nn.BatchNorm1d(4, affine=False),
        nn.BatchNorm1d(4, track_running_stats=False), nn.BatchNorm1d(4, momentum=None), nn.BatchNorm2d(4),
        nn.LayerNorm(4, elementwise_affine=False), nn.LayerNorm(4, bias=False), nn.LayerNorm((2, 4)), nn.RMSNorm(4),
        nn.Flatten(), nn.Softmax(dim=1), nn.LogSoftmax(dim=1), nn.Dropout1d(), nn.Bilinear(1, 1, 4),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    ],
    ids=repr,
)  # fmt: skip
def test_what_cydrop_has_no_layer_for_is_refused_with_its_place(bad):
    with pytest.raises(ValueError, match=rf"module 1\.0 is {type(bad).__name__}: "):
        cd.exchange.from_torch(nn.Sequential(nn.Linear(3, 4), nn.Sequential(bad), nn.Linear(4, 2)), loss="mse")


def layers():
    """All that to_torch knows."""
    result = [cd.BatchNorm(epsilon=1e-3), cd.Dense(9, bias=False)]
    for make, _ in ACTIVATIONS.values():
        result += [make(), cd.Dropout(0.3), cd.Dense(9, activation=make())]
    return [*result, cd.AlphaDropout(0.2), cd.Dropout(cd.schedules.Linear(0.0, 0.7)), cd.LayerNorm(epsilon=1e-4),
            cd.Dense(4)]  # fmt: skip


def trained(rng, loss="cross_entropy"):
    X = rng.standard_normal((200, 6))
    y = rng.integers(0, 4, 200) if loss == "cross_entropy" else rng.standard_normal((200, 4))
    net = cd.Network(layers(), loss=loss, seed=0)
    net.fit(X, y, epochs=3, verbose=0)
    return net, X, y


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_sequential_of_a_trained_network_has_its_raw_outputs(loss, rng):
    net, X, _ = trained(rng, loss)
    before = torch.get_rng_state()
    module = cd.exchange.to_torch(net)
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert_close(outputs(module, X), net.forward(X))
    assert module[-3].p == 0.7
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert np.abs(net.forward(X)).max() > 0


def test_a_state_dict_has_the_names_shapes_and_types_of_the_sequentials(rng):
    net, X, _ = trained(rng)
    found, expected = cd.exchange.to_state_dict(net), cd.exchange.to_torch(net).state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(torch.from_numpy(found[name]), tensor)
        assert torch.from_numpy(found[name]).dtype == tensor.dtype
    other = cd.Network(layers(), seed=1)
    cd.exchange.load_state_dict(other, expected)
    assert other.predict(X).tobytes() == net.predict(X).tobytes()


def test_there_and_back_gives_the_same_bits(rng):
    net, X, _ = trained(rng)
    back = cd.exchange.from_torch(cd.exchange.to_torch(net), loss="cross_entropy")
    assert back.predict(X).tobytes() == net.predict(X).tobytes()
    module = randomise(modules())
    again = cd.exchange.to_torch(cd.exchange.from_torch(module, loss="mse"))
    assert [p.tolist() for p in again.parameters()] == [p.tolist() for p in module.parameters()]


def test_parameters_and_statistics_stay_together_over_training_steps(rng):
    X, y = rng.standard_normal((60, 6)).astype(np.float32), rng.integers(0, 3, 60)
    module = nn.Sequential(
        nn.BatchNorm1d(6), nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 8), nn.BatchNorm1d(8, momentum=0.3), nn.SiLU(),
        nn.LayerNorm(8), nn.Linear(8, 3),
    )  # fmt: skip
    randomise(module)
    net = cd.exchange.from_torch(module, loss="cross_entropy", optimizer=cd.SGD(0.05, momentum=0.9))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    module.train()
    for step in range(10):
        rows = slice(20 * (step % 3), 20 * (step % 3) + 20)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(torch.from_numpy(X[rows])), torch.from_numpy(y[rows]))
        loss.backward()
        optimizer.step()
        assert net.train_on_batch(X[rows], y[rows]) == pytest.approx(loss.item(), rel=1e-4)
    expected = module.state_dict()
    for name, array in cd.exchange.to_state_dict(net).items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(array, expected[name].numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(net.forward(X), outputs(module, X), atol=1e-3)


def test_weights_of_the_golden_file_load_into_pytorch():
    from pathlib import Path

    with np.load(Path(__file__).parent.parent / "golden" / "torch_sequential.npz") as stored:
        state_dict = {name[6:]: torch.from_numpy(stored[name]) for name in stored if name.startswith("plain/")}
        expected, X = state_dict.pop("output"), stored["X"]
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    module.load_state_dict(state_dict)
    assert_close(outputs(module, X), expected.numpy())


# Tensors as arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_tensors_of_every_type_are_taken(dtype, requires_grad, rng):
    X = torch.from_numpy(rng.integers(-3, 4, (40, 5)).astype(np.float32)).to(dtype)
    y, weight = torch.arange(40) % 2, torch.arange(40).to(torch.bfloat16) % 3
    nets = [cd.Network([cd.Dense(4), cd.ReLU(), cd.Dense(2)], seed=0) for _ in range(2)]
    expected = X.float().numpy()
    given = X.requires_grad_(requires_grad)
    nets[0].fit(given, y, epochs=1, sample_weight=weight, verbose=0)
    nets[1].fit(expected, y.numpy(), epochs=1, sample_weight=weight.float().numpy(), verbose=0)
    assert nets[0].predict(given).tobytes() == nets[1].predict(expected).tobytes()
    assert cd.functional.relu(given).tobytes() == cd.functional.relu(expected).tobytes()


def test_soft_labels_have_the_loss_and_the_gradient_of_pytorch(rng):
    z = torch.tensor(rng.standard_normal((30, 7)), requires_grad=True)
    q = rng.dirichlet(np.ones(7), 30)
    for smoothing in (0.0, 0.1):
        expected = nn.functional.cross_entropy(z, torch.from_numpy(q), label_smoothing=smoothing)
        (expected_grad,) = torch.autograd.grad(expected, z)
        loss, grad = cd.functional.cross_entropy(z, q, label_smoothing=smoothing, return_grad=True)
        assert loss == pytest.approx(expected.item(), rel=1e-6)
        np.testing.assert_allclose(grad, expected_grad.numpy(), atol=1e-8)
    y = rng.random((30, 7))
    expected = nn.functional.binary_cross_entropy_with_logits(z, torch.from_numpy(y))
    (expected_grad,) = torch.autograd.grad(expected, z)
    loss, grad = cd.functional.binary_cross_entropy(z, y, return_grad=True)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(grad, expected_grad.numpy(), atol=1e-8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.ones(2, 4).to_sparse(), "X cannot be made into an array.*to_dense"),
        (torch.ones(2, 4, device="meta"), "X cannot be made into an array.*meta tensor"),
    ],
    ids=["sparse", "meta"],
)
def test_tensors_without_numbers_in_memory_are_refused_in_a_sentence(given, message):
    with pytest.raises(ValueError, match=message):
        cd.Network([cd.Dense(2)], seed=0).predict(given)


# Many networks in one ------------------------------------------------------------------------------------------


def members_of(p, X, sharing, places):
    """Raw outputs of all members, (members, rows, units), as TabM's paper has them."""
    x = X[None]
    if sharing == "mini":
        x = x * p["input_scale"][:, None]
    for place in places:
        weight, bias = p[f"{place}.weight"], p[f"{place}.bias"]
        if f"{place}.input_scale" in p:
            x = (x * p[f"{place}.input_scale"][:, None]) @ weight * p[f"{place}.output_scale"][:, None]
        else:
            x = x @ weight
        x = x + (bias if bias.ndim == 1 else bias[:, None])
        if place != places[-1]:
            x = torch.relu(x)
    return x


@pytest.mark.parametrize("sharing", ["mini", "tabm", "packed"])
def test_members_have_the_outputs_and_gradients_of_autograd(sharing, rng):
    X, y = rng.standard_normal((19, 11)).astype(np.float32), rng.integers(0, 3, 19)
    inside = [cd.Dense(20, activation="relu"), cd.Dense(17, activation="relu"), cd.Dense(3)]
    net = cd.Network([cd.Members(inside, 5, sharing=sharing)], seed=1).build(11)
    p = {}
    for name, array in net.parameters().items():
        array += 0.1 * rng.standard_normal(array.shape)
        p[name.removeprefix("0.")] = torch.tensor(array, requires_grad=True)
    inputs = torch.tensor(X, requires_grad=True)
    z = members_of(p, inputs, sharing, "012")
    loss = torch.stack([nn.functional.cross_entropy(own, torch.from_numpy(y)) for own in z]).mean()
    loss.backward()
    assert_close(net.forward(X, training=True), z.detach().numpy())
    assert_close(net.predict(X), z.softmax(dim=2).mean(dim=0).detach().numpy())
    grad = (z.softmax(dim=2) - nn.functional.one_hot(torch.from_numpy(y), 3)).detach().numpy() / (5 * 19)
    assert_close(net.backward(grad), inputs.grad.numpy())
    for name, gradient in net.gradients().items():
        assert_close(gradient, p[name.removeprefix("0.")].grad.numpy())
