"""Networks that an earlier cydrop saved or pickled are read, and go on bit for bit.

The files were written by tests/golden/make_earlier_networks.py.
"""

import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest

import cydrop as cd

GOLDEN = Path(__file__).parent / "golden"
MAKER = runpy.run_path(str(GOLDEN / "make_earlier_networks.py"))
NETWORKS = {name: y for name, y, _ in MAKER["networks"]()}


def from_file(name):
    return cd.load(GOLDEN / f"earlier_{name}.safetensors")


def from_pickle(name):
    return pickle.loads((GOLDEN / f"earlier_{name}.pkl").read_bytes())


@pytest.mark.parametrize("read", [from_file, from_pickle])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_earlier_network_goes_on_as_it_did_then(name, read):
    expected = np.load(GOLDEN / "earlier_networks.npz")
    found = MAKER["went_on"](read(name), NETWORKS[name])
    for key, array in found.items():
        then = expected[f"{name}.{key}"].astype(array.dtype)  # in this machine's order of bytes
        if cd.show_config()["fused_multiply_add"]:
            assert array.tobytes() == then.tobytes(), key
        else:  # without that instruction bits differ
            np.testing.assert_allclose(array, then, rtol=1e-3, atol=1e-3, err_msg=key)


def test_earlier_layers_schedules_and_callbacks_are_what_they_are_now():
    layers, (schedule, stopping, history, loss) = pickle.loads((GOLDEN / "earlier_parts.pkl").read_bytes())
    now = [layer for _, _, net in MAKER["networks"]() for layer in net.layers]
    assert [repr(layer) for layer in layers] == [repr(layer) for layer in now]
    assert {type(layer) for layer in layers} == {type(layer) for layer in now}
    assert schedule == cd.schedules.Step(0.5)
    assert loss == cd.losses.MSE()
    assert vars(stopping) | {"ties": stopping.ties} == vars(cd.callbacks.EarlyStopping())
    assert isinstance(history, cd.History)
    assert len(history) == 4
