"""TabM beside the authors' own packages, `tabm` and `rtdl_num_embeddings`: with the same weights it has their outputs,
and the same weights after the same steps. Not collected by default, since neither is a requirement of the tests:

python -m pytest tests/with_torch/check_tabm.py
"""

import numpy as np
import pytest
import rtdl_num_embeddings
import tabm
import torch

import cydrop as cd
from cydrop._run.core import core_of

MEMBERS, UNITS, STEPS = 8, 32, 40
ARCHITECTURES = {"mini": "tabm-mini", "tabm": "tabm", "packed": "tabm-packed"}
NO_DECAY = {"decay_factor": {"bias": 0.0}}


@pytest.fixture
def table():
    """Numbers, one of them with few values; codes of two categories; targets and classes."""
    torch.manual_seed(0)
    x = torch.randn(300, 3)
    x[:, 2] = torch.randint(0, 5, (300,)) / 2.0
    codes = torch.stack([torch.randint(0, 3, (300,)), torch.randint(0, 2, (300,))], 1)
    y = torch.sin(3 * x[:, 0]) * x[:, 1] + (codes[:, 0] == 1)
    return x, codes, y, (x[:, 0] + codes[:, 0] > 0.5).long() + (x[:, 1] > 1).long()


def rows_of(x, codes):
    return np.hstack([x.numpy(), np.eye(3)[codes[:, 0]], np.eye(2)[codes[:, 1]]]).astype(np.float32)


def theirs(x, sharing, outputs):
    bins = rtdl_num_embeddings.compute_bins(x, n_bins=48)
    embeddings = rtdl_num_embeddings.PiecewiseLinearEmbeddings(bins, 16, activation=False, version="B")
    return tabm.TabM.make(
        n_num_features=3, cat_cardinalities=[3, 2], d_out=outputs, num_embeddings=embeddings, k=MEMBERS,
        arch_type=ARCHITECTURES[sharing], n_blocks=2, d_block=UNITS, dropout=0.0,
    )  # fmt: skip


def ours(rows, sharing, outputs, loss):
    embedding = cd.NumericEmbedding("piecewise_linear", columns=3, decay_factor={"slope": 0.0, "bias": 0.0})
    dense = [cd.Dense(units, **NO_DECAY) for units in (UNITS, UNITS, outputs)]
    layers = [dense[0], cd.ReLU(), dense[1], cd.ReLU(), dense[2]]
    network = cd.Network(
        [embedding, cd.Members(layers, MEMBERS, sharing=sharing, batches="shared")],
        loss=loss, optimizer=cd.AdamW(2e-3, weight_decay=0.3, clip_norm=1.0), seed=0,
    ).build(rows.shape[1])  # fmt: skip
    core_of(network).made("bins").arrays()["0.edges"][...] = embedding.quantile_edges(rows)
    return network


def arrays_of(model, network, sharing):
    """The package's parameters by our names."""
    given = {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
    edges = core_of(network).made("bins").arrays()["0.edges"]
    theirs_of_bins = given["num_module.linear.weight"]
    of_bins = np.zeros_like(theirs_of_bins)
    for own, other, used in zip(of_bins, theirs_of_bins, (np.diff(edges) > 0).sum(axis=1), strict=True):
        own[: used - 1], own[used - 1] = other[: used - 1], other[-1]  # theirs has the last bin at the end
    found = {
        "0.slope": given["num_module.linear0.weight"], "0.bias": given["num_module.linear0.bias"], "0.weight": of_bins,
        "1.4.weight": given["output.weight"], "1.4.bias": given["output.bias"],
    }  # fmt: skip
    for block, place in enumerate(("1.0", "1.2")):
        name = f"backbone.blocks.{block}.0"
        weight = given[f"{name}.weight"]
        found[f"{place}.weight"] = weight if sharing == "packed" else weight.T
        found[f"{place}.bias"] = given[f"{name}.bias"]
        if sharing == "tabm":
            found[f"{place}.input_scale"], found[f"{place}.output_scale"] = given[f"{name}.r"], given[f"{name}.s"]
    if sharing == "mini":
        found["1.input_scale"] = given["backbone.affine.weight"]
    assert found.keys() == network.parameters().keys()
    return found


@pytest.mark.parametrize("sharing", ARCHITECTURES)
def test_the_same_weights_give_the_same_outputs(sharing, table):
    x, codes, _, _ = table
    model = theirs(x, sharing, 4).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        expected = model(x, codes).softmax(-1).numpy()
    rows = rows_of(x, codes)
    network = ours(rows, sharing, 4, "cross_entropy")
    for name, array in arrays_of(model, network, sharing).items():
        network.parameters()[name][...] = array
    np.testing.assert_allclose(network.predict_members(rows).transpose(1, 0, 2), expected, atol=1e-6)
    np.testing.assert_allclose(network.predict(rows), expected.mean(axis=1), atol=1e-6)


def optimizer_of(model):
    """As the authors': no decay of biases, nor of the embeddings' lines."""
    left = [p for name, p in model.named_parameters() if name.endswith("bias") or ".linear0." in name]
    places = {id(parameter) for parameter in left}
    others = [parameter for parameter in model.parameters() if id(parameter) not in places]
    return torch.optim.AdamW([{"params": others}, {"params": left, "weight_decay": 0.0}], lr=2e-3, weight_decay=0.3)


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("sharing", ARCHITECTURES)
def test_the_same_steps_give_the_same_weights(sharing, classes, table):
    x, codes, *targets = table
    y = targets[classes]
    model, rows = theirs(x, sharing, 3 if classes else 1), rows_of(x, codes)
    network = ours(rows, sharing, 3 if classes else 1, "cross_entropy" if classes else "mse")
    for name, array in arrays_of(model, network, sharing).items():
        network.parameters()[name][...] = array
    loss_of = torch.nn.functional.cross_entropy if classes else torch.nn.functional.mse_loss
    optimizer, losses = optimizer_of(model), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        z = model(x, codes).flatten(0, 1)
        loss = loss_of(z if classes else z.squeeze(1), y.repeat_interleave(MEMBERS))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    history = network.fit(rows, y.numpy(), epochs=STEPS, batch_size=len(rows), shuffle=False, verbose=0)
    np.testing.assert_allclose(history.metrics["loss"], losses, rtol=1e-4)
    for name, array in arrays_of(model, network, sharing).items():
        np.testing.assert_allclose(network.parameters()[name], array, atol=2e-3, err_msg=name)
