"""Saved networks: whole, resumable, and read by others. What damaged files do is in test_hostile_files.py."""

import copy
import decimal
import errno
import fractions
import io
import json
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tracemalloc

import joblib
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from digests import bytes_of
from interrupting import interrupted

import cydrop as cd
from cydrop import callbacks, saving
from cydrop._run import files
from cydrop._run.core import core_of

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has neither these permissions nor these limits")


@pytest.fixture
def trained(rng):
    X, y = rng.random((60, 6)), rng.integers(0, 3, 60)
    net = cd.Network(
        [cd.Dropout(cd.schedules.Cosine(0.3)), cd.Dense(9, activation=cd.ELU(0.5), max_norm=2.0),
         cd.Dropout(0.4, seed=5),
         cd.Dense(3)],
        loss=cd.losses.CrossEntropy(label_smoothing=0.1), optimizer=cd.AdamW(cd.schedules.Linear(0.01)), seed=1,
    )  # fmt: skip
    net.fit(X, y, epochs=3, batch_size=16, verbose=0)
    return net, X, y


def test_training_goes_on_bit_for_bit(trained, tmp_path):
    net, X, y = trained
    net.save(tmp_path / "net.safetensors")
    loaded = cd.load(tmp_path / "net.safetensors")
    assert loaded.predict(X).tobytes() == net.predict(X).tobytes()
    assert loaded.history.metrics == net.history.metrics
    assert repr(loaded.layers) == repr(net.layers)
    assert (loaded.loss, loaded.optimizer) == (net.loss, net.optimizer)
    for one in (net, loaded):
        one.fit(X, y, epochs=2, batch_size=16, verbose=0)
    assert loaded.predict(X).tobytes() == net.predict(X).tobytes()
    for one, other in zip(net.masks(), loaded.masks(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_how_biases_began_is_saved_and_need_not_be_there(tmp_path):
    drawn = cd.Dense(3, bias_init="torch_uniform", weight_init="torch_uniform")
    net = cd.Network([drawn, cd.Dense(2, bias_init="zeros")], seed=0).build(4)
    net.save(tmp_path / "net")
    for twin in (cd.load(tmp_path / "net"), pickle.loads(pickle.dumps(net))):
        assert [layer.bias_init for layer in twin.layers] == ["torch_uniform", "zeros"]
        assert twin.predict(np.eye(4)).tobytes() == net.predict(np.eye(4)).tobytes()
    # of a version without the option
    raw = (tmp_path / "net").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    description = json.loads(header["__metadata__"]["cydrop"])
    assert [layer.pop("bias_init") for layer in description["layers"]] == ["torch_uniform", "zeros"]
    header["__metadata__"]["cydrop"] = json.dumps(description)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (tmp_path / "old").write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    old = cd.Dense(2)
    del vars(old)["bias_init"]
    old = pickle.loads(pickle.dumps(old))
    assert cd.load(tmp_path / "old").layers[0].bias_init == old.bias_init == old.options()["bias_init"] == "zeros"


def test_every_optimizer_resumes(rng, tmp_path):
    X, y = rng.random((20, 4)), rng.random(20)
    for optimizer in (
        cd.SGD(0.1),
        cd.SGD(0.1, momentum=0.9),
        cd.RMSprop(),
        cd.Adagrad(),
        cd.Adam(clip_norm=1.0),
        cd.AdamW(),
    ):
        net = cd.Network([cd.Dense(1)], loss="huber", optimizer=optimizer, seed=0)
        net.fit(X, y, epochs=2, verbose=0)
        net.save(tmp_path / "n")
        loaded = cd.load(tmp_path / "n")
        for one in (net, loaded):
            one.fit(X, y, epochs=2, verbose=0)
        assert loaded.predict(X).tobytes() == net.predict(X).tobytes()


def test_an_unbuilt_network_is_saved_with_its_seed(tmp_path, rng):
    net = cd.Network([cd.Dense(3)], seed=7)
    net.save(tmp_path / "n")
    X = rng.random((4, 5))
    np.testing.assert_array_equal(cd.load(tmp_path / "n").predict(X), net.predict(X))


def test_the_file_is_safetensors_by_its_definition(trained, tmp_path):
    net, _, _ = trained
    path = tmp_path / "net.safetensors"
    net.save(path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    header = json.loads(raw[8 : 8 + length])
    assert all(isinstance(value, str) for value in header.pop("__metadata__").values())
    for name, values in net.history.metrics.items():
        entry = header[f"history.{name}"]
        start, stop = entry["data_offsets"]
        assert (entry["dtype"], entry["shape"]) == ("F64", [3])
        assert np.frombuffer(raw[8 + length + start : 8 + length + stop], "<f8").tolist() == values
    for name, array in net.parameters().items():
        entry = header[name]
        start, stop = entry["data_offsets"]
        assert entry["dtype"] == "F32"
        found = np.frombuffer(raw[8 + length + start : 8 + length + stop], "<f4").reshape(entry["shape"])
        np.testing.assert_array_equal(found, array)
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(raw) - 8 - length


def test_saving_replaces_the_file_at_once_and_leaves_nothing_behind(trained, tmp_path, monkeypatch):
    net, X, y = trained
    path = tmp_path / "net.safetensors"
    net.save(path)
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) & 0o444
    net.fit(X, y, epochs=1, verbose=0)

    def fail(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            net.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.safetensors"]
    net.save(path)
    assert path.read_bytes() != before


def test_a_missing_folder_is_named_and_not_the_temporary_file(trained, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        trained[0].save(tmp_path / "no such folder" / "net.safetensors")
    assert caught.value.filename == str(tmp_path / "no such folder")


def test_what_cannot_be_the_path_of_a_file_is_refused(trained, tmp_path):
    net = trained[0]
    for path, error, message in (
        ("", ValueError, "path is empty"), ("a\0b", ValueError, "path has a null character"),
        (3, TypeError, r"path must be a str or path-like, got 3 \(int\)"),
        (None, TypeError, "got None"), (tmp_path, IsADirectoryError, "path is a folder"),
        (f"{tmp_path}/new/", IsADirectoryError, "path is a folder"),
        (os.devnull, ValueError, "a device or pipe"),
    ):  # fmt: skip
        for use in (net.save, cd.load):
            with pytest.raises(error, match=message):
                use(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="Windows has no permission bits for group and others")
def test_permissions_are_those_that_open_would_give(trained, tmp_path):
    net, path = trained[0], tmp_path / "net.safetensors"
    before = os.umask(0o027)
    try:
        net.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    net.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="making a link needs special rights on Windows")
def test_a_link_is_followed_and_stays_a_link(trained, tmp_path):
    net = trained[0]
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "latest", tmp_path / "elsewhere" / "net.safetensors"
    link.symlink_to(target)
    net.save(link)
    assert link.is_symlink()
    assert [entry.name for entry in target.parent.iterdir()] == ["net.safetensors"]
    assert cd.load(link).predict(trained[1]).tobytes() == net.predict(trained[1]).tobytes()


def test_names_may_be_long_and_foreign(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("n" * 255, "Ж" * 100 + "{}%s\n", os.fsencode("bytes"), "./a b"):
        trained[0].save(name)
        assert len(cd.load(name).history) == 3
    assert len(list(tmp_path.iterdir())) == 4


def test_a_rate_that_is_a_function_of_ones_own_cannot_be_saved(tmp_path):
    net = cd.Network([cd.Dense(2), cd.Dropout(lambda progress: 0.5)])
    with pytest.raises(ValueError, match="a function of your own"):
        net.save(tmp_path / "n")
    assert not list(tmp_path.iterdir())


def test_what_a_file_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    long = cd.Network([cd.Dense(1), cd.BatchNorm()] * 1500, loss="mse").build(1)
    outside = cd.Network([cd.Dense(2), cd.Dropout(cd.schedules.Linear(0.5, -0.1))])
    old = cd.Network([cd.Dense(2)])
    old.history = cd.History({"loss": [0.1] * (saving.LONGEST_HISTORY + 1)})
    digits = cd.Network([cd.Dense(2), cd.Dropout(0.5, seed=10**5000)])
    for net, message in (
        (long, r"the description of this network of 3000 layers takes [\d,]+ bytes, a file holds 1,000,000"),
        (outside, "rate at progress 0.84 must be in"),
        (old, "the history has 1,500,001 values"), (digits, "4300 digits"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            net.save(tmp_path / "n")
        assert not list(tmp_path.iterdir())


def test_the_history_comes_back_exactly_with_nan_and_odd_names(tmp_path):
    net = cd.Network([cd.Dense(2)], seed=0)
    odd = [float("nan"), -0.0, float("inf")]
    net.history = cd.History({"loss": [0.1, 1 / 3, 5e-324], 'zu früh "ü"': odd, "": []})
    net.save(tmp_path / "n")
    metrics = cd.load(tmp_path / "n").history.metrics
    assert list(metrics) == list(net.history.metrics)
    assert all(type(value) is float for values in metrics.values() for value in values)
    for name, values in net.history.metrics.items():
        assert np.array(metrics[name]).tobytes() == np.array(values).tobytes()


def test_running_statistics_are_kept(tmp_path, rng):
    net = cd.Network([cd.Dense(3), cd.BatchNorm(), cd.ReLU(), cd.LayerNorm(), cd.Dense(1)], loss="mse", seed=0)
    net.fit(rng.random((20, 4)), rng.random(20), epochs=2, verbose=0)
    net.save(tmp_path / "n")
    loaded = cd.load(tmp_path / "n")
    for name, array in {**net.parameters(), **net.buffers()}.items():
        assert {**loaded.parameters(), **loaded.buffers()}[name].tobytes() == array.tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc, which only Linux has")
def test_saving_and_loading_take_no_memory_beyond_the_arrays(tmp_path):
    script = """
import sys
import cydrop as cd
from cydrop._run.core import core_of
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
net = cd.Network([cd.Dense(8)], optimizer="adam", n_threads=1).build(9)
net.save(sys.argv[1])
cd.load(sys.argv[1])
net = cd.Network([cd.Dense(1024), cd.Dense(2048), cd.Dense(8)], optimizer="adam", n_threads=1).build(1024)
for tensor in core_of(net).model.tensors().values():
    tensor += 1.0
before = peak()
net.save(sys.argv[1])
saving = peak() - before
before = peak()
net = cd.load(sys.argv[1]), net
print(saving, peak() - before)
"""
    path = str(tmp_path / "n")
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True, timeout=60)
    saving, loading = map(int, done.stdout.split())
    size = os.path.getsize(path)
    assert size > 36_000_000
    assert saving < 4_000_000
    assert 0.9 * size < loading < size + 4_000_000


# What is refused ----------------------------------------------------------------------------------------------


class Cyclic(cd.schedules.Schedule):
    """Of the user's own, with no options."""

    def __call__(self, progress):
        return 1e-3 * (1 + progress)


class Linear(cd.schedules.Linear):
    """Called as cydrop's."""


class Adam(cd.Adam):
    """Called as cydrop's."""


class MyAdam(cd.Adam):
    pass


class Dropout(cd.Dropout):
    """Called as cydrop's."""


class MyReLU(cd.ReLU):
    pass


class Squared(cd.losses.MSE):
    """Keeps the name "mse"."""


class BatchNorm(cd.BatchNorm):
    def config(self):
        return {"layer": "BatchNorm", "momentum": 0.5, "epsilon": 1e-5}


OF_ONES_OWN = {  # layers, loss, optimizer, and what the error names
    "optimizer": ([], "mse", MyAdam(), r"optimizer is of the class \S*\.MyAdam"),
    "optimizer of the same name": ([], "mse", Adam(), r"optimizer is of the class \S*\.Adam"),
    "learning rate": ([], "mse", cd.SGD(Cyclic()), r"optimizer.learning_rate is of the class \S*\.Cyclic"),
    "scaled": ([], "mse", cd.SGD(cd.schedules.Scaled(Linear(0.5), 0.1)), r"optimizer.learning_rate.base is of"),
    "rate": ([cd.Dropout(Linear(0.5, 0.1))], "mse", "sgd", r"layers\[0\].rate is of the class \S*\.Linear"),
    "drop_connect": ([cd.Dense(2, drop_connect=Linear(0.5))], "mse", "sgd", r"layers\[0\].drop_connect is of"),
    "std": ([cd.GaussianNoise(cd.schedules.Scaled(Cyclic(), 1))], "mse", "sgd", r"layers\[0\].std.base is of"),
    "layer": ([cd.Dense(2), Dropout()], "mse", "sgd", r"layers\[1\] is of the class \S*\.Dropout"),
    "layer that lies": ([BatchNorm()], "mse", "sgd", r"layers\[0\] is of the class \S*\.BatchNorm"),
    "activation": ([MyReLU()], "mse", "sgd", r"layers\[0\] is of the class \S*\.MyReLU"),
    "activation inside": ([cd.Dense(2, activation=MyReLU())], "mse", "sgd", r"layers\[0\].activation is of"),
    "loss": ([], Squared(), "sgd", r"loss is of the class \S*\.Squared"),
}


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("name", OF_ONES_OWN)
def test_classes_of_ones_own_are_refused_before_anything_is_written(name, built, tmp_path, rng):
    before, loss, optimizer, message = OF_ONES_OWN[name]
    net = cd.Network([*before, cd.Dense(2)], loss=loss, optimizer=optimizer, seed=0)
    if built:
        net.build(4)
    message = f"cannot be saved: {message}.*cydrop's own .* pickle the network"
    with pytest.raises(ValueError, match=message):
        net.save(tmp_path / "n")
    checkpoint = callbacks.Checkpoint(tmp_path / "n")
    with pytest.raises(ValueError, match=message):
        net.fit(rng.random((6, 4)), rng.random((6, 2)), epochs=1, callbacks=[checkpoint], verbose=0)
    assert len(net.history) == 0
    assert not list(tmp_path.iterdir())


def changed_behind_its_back(change):
    net = cd.Network([cd.Dense(16), cd.ReLU(), cd.Dropout(0.5), cd.Dense(3)], seed=0).build(4)
    change(net)
    return net


def with_layers(change):
    def apply(net):
        layers = list(net.layers)
        change(layers)
        core_of(net).layers = tuple(layers)

    return apply


CHANGED = {  # a built network in ways in which nobody should change it
    "another last layer": (with_layers(lambda layers: layers.__setitem__(-1, cd.Dense(5))), "'3.weight' is 'F32' of"),
    "one less": (with_layers(lambda layers: layers.pop()), "tensors are not those of its layers"),
    "one more": (with_layers(lambda layers: layers.insert(1, cd.Dense(16))), "tensors are not those of its layers"),
    "another function": (with_layers(lambda layers: layers.__setitem__(1, cd.Tanh())), "not those that it was built"),
    "another slope": (with_layers(lambda layers: layers.__setitem__(1, cd.ELU(0.3))), "not those that it was built"),
    "one more without weights": (with_layers(lambda layers: layers.append(cd.Tanh())), "not those that it was built"),
    "units": (lambda net: vars(net.layers[0]).update(units=64), "tensor '0.weight' is 'F32' of shape"),
    "bias": (lambda net: vars(net.layers[0]).update(bias=False), "tensors are not those of its layers"),
    "rate": (lambda net: vars(net.layers[2]).update(rate=1.5), r"rate must be in \[0, 1\], got 1.5"),
    "rate as a text": (lambda net: vars(net.layers[2]).update(rate="0.5"), "rate must be a number, got '0.5'"),
    "an array": (lambda net: vars(net.layers[2]).update(rate=np.ones(2)), "not JSON serializable"),
    "mode": (lambda net: vars(net.layers[2]).update(mode="vanilla"), "not those that it was built"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_network_that_is_not_what_it_was_built_as_does_not_replace_a_good_file(name, tmp_path):
    change, message = CHANGED[name]
    good = changed_behind_its_back(lambda net: None)
    good.save(tmp_path / "n")
    raw = (tmp_path / "n").read_bytes()
    with pytest.raises(ValueError, match=f"cannot be saved: .*{message}"):
        changed_behind_its_back(change).save(tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == raw
    assert [entry.name for entry in tmp_path.iterdir()] == ["n"]


def test_an_option_that_is_read_as_another_is_named(monkeypatch, tmp_path):
    """Whatever way a reader had to misunderstand: it is asked."""
    rate = cd.schedules.Scaled(cd.schedules.Linear(0.1), 2)
    net = cd.Network([cd.Dense(2, activation="elu"), cd.Dropout(0.5)], loss="huber", optimizer=cd.Adam(rate))
    understood = saving._understood

    for old, new, message in (
        ('"rate":0.5', '"rate":0.25', r"layers\[1\].rate is 0.5, which would be read as 0.25"),
        ('"alpha":1.0', '"alpha":2.0', "layers.0..activation.alpha is 1.0, which would be read as 2.0"),
        ('"factor":2.0', '"factor":3.0', "optimizer.learning_rate.factor is 2.0, which would be read as 3.0"),
        ('"start":0.1', '"start":0.2', "optimizer.learning_rate.base.start is 0.1, which would be read as 0.2"),
        ('"Linear","start":0.1,"end":0.0,"until":1.0', '"Cosine","start":0.1,"end":0.0', "rate.base is Linear"),
        ('"optimizer":"Adam"', '"optimizer":"AdamW"', "optimizer is Adam.* which would be read as AdamW"),
        ('"delta":1.0', '"delta":2.0', "loss.delta is 1.0, which would be read as 2.0"),
        ('"epochs":0', '"epochs":1', "the number of epochs is 0, which would be read as 1"),
        ('"rate":0.5', '"rate":0.5', None),
    ):  # fmt: skip

        def read(text, *rest, old=old, new=new):
            old, new = (json.dumps(part)[1:-1].encode() for part in (old, new))
            assert old in text
            return understood(text.replace(old, new), *rest)

        monkeypatch.setattr(saving, "_understood", read)
        if message is None:
            net.save(tmp_path / "n")
        else:
            with pytest.raises(ValueError, match=message):
                net.save(tmp_path / "n")
            assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"lr": [[0.1, 0.2]]}, r"history.metrics\['lr'\] must be numbers .*, got \[0.1, 0.2\]"),
        ({"lr": ["0.1"]}, "must be numbers that a float can hold, one per epoch, got '0.1'"),
        ({"lr": [None]}, "got None"),
        ({"lr": [0.5, 1j]}, "got 1j"),
        ({"lr": [2**53 + 1]}, "got 9007199254740993"),
        ({"lr": [10**400]}, "got 1000"),
        ({"lr": [decimal.Decimal("0.5")]}, r"got Decimal\('0.5'\)"),
        ({"lr": np.ones((2, 1))}, r"got array\(\[1.\]\)"),
        ({"lr": 0.1}, r"history.metrics\['lr'\] must be a list of numbers, one per epoch, got 0.1"),
        ({"lr": "0.1"}, "must be a list of numbers, one per epoch, got '0.1'"),
        ({3: [0.1]}, r"the history's names must be texts, got 3 \(int\)"),
        (None, "its history must be a cydrop.History of a dict, got {}"),
    ],
)
def test_a_history_of_other_than_numbers_is_refused(metrics, message, tmp_path):
    net = cd.Network([cd.Dense(2)]).build(3)
    core_of(net).history = {} if metrics is None else cd.History(metrics)  # assigning {} is refused
    with pytest.raises(ValueError, match=f"cannot be saved: .*{message}"):
        net.save(tmp_path / "n")
    with pytest.raises(ValueError, match=message):
        callbacks.Checkpoint(tmp_path / "n").on_train_begin(net, 1)
    assert not list(tmp_path.iterdir())


def test_a_history_of_numbers_of_any_type_comes_back(tmp_path):
    net = cd.Network([cd.Dense(2)])
    values = [1, 2**60, True, np.float32(0.1), np.int8(-3), np.bool_(False), fractions.Fraction(1, 2), -0.5]
    net.history = cd.History({np.str_("mixed"): values, "array": np.arange(2), "tuple": (0.5,)})
    net.save(tmp_path / "n")
    metrics = cd.load(tmp_path / "n").history.metrics
    assert metrics == {"mixed": values, "array": [0, 1], "tuple": [0.5]}


def test_the_check_of_a_checkpoint_takes_no_memory(tmp_path):
    net = cd.Network([cd.Dense(1000), cd.BatchNorm(), cd.Dense(1000)], loss="mse").build(1000)
    save = callbacks.Checkpoint(tmp_path / "n")
    save.on_train_begin(net, 1)
    tracemalloc.start()
    save.on_train_begin(net, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
    assert not list(tmp_path.iterdir())


def overwritten(path, name, value):
    """All numbers of a tensor of a file set to one."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    start, stop = (8 + length + offset for offset in json.loads(raw[8 : 8 + length])[name]["data_offsets"])
    path.write_bytes(raw[:start] + np.full((stop - start) // 4, value, "<f4").tobytes() + raw[stop:])


IMPOSSIBLE = [  # optimizer, tensor, number
    ("adam", "0.weight", np.nan), ("sgd", "0.bias", np.inf), ("adam", "2.weight", -np.inf),
    ("adam", "1.running_mean", np.nan), ("sgd", "1.running_variance", -1.0), ("sgd", "1.running_variance", np.inf),
    ("adam", "moment1.0.weight", np.nan), ("adamw", "moment2.2.bias", np.inf), ("adam", "moment2.0.weight", -1.0),
    ("adamw", "moment2.0.weight", -1e-30), ("rmsprop", "moment2.1.weight", -1.0),
    ("adagrad", "moment2.1.bias", -1.0),
    (cd.SGD(0.1, momentum=0.9), "moment2.0.weight", np.nan),
]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "name", "value"), IMPOSSIBLE)
def test_numbers_that_no_training_leaves_are_neither_read_nor_written(optimizer, name, value, tmp_path, rng):
    net = cd.Network([cd.Dense(3), cd.BatchNorm(), cd.Dense(1)], loss="mse", optimizer=optimizer, seed=0)
    net.fit(rng.random((20, 4)), rng.random(20), epochs=1, verbose=0)
    path = tmp_path / "n"
    net.save(path)
    good = path.read_bytes()
    overwritten(path, name, value)
    what = "must not be negative, got -" if value > -np.inf and value < 0 else "has values that are NaN or infinite"
    message = f"tensor '{re.escape(name)}' {what}"
    with pytest.raises(ValueError, match=f"is not a network that cydrop can load: {message}"):
        cd.load(path)
    path.write_bytes(good)
    core_of(net).model.tensors()[name].reshape(-1)[-1] = value
    with pytest.raises(ValueError, match=f"cannot be saved: {message}.*diverged"):
        net.save(path)
    assert path.read_bytes() == good


def test_the_velocity_of_sgd_may_be_negative_and_the_history_nan(tmp_path, rng):
    net = cd.Network([cd.Dense(3), cd.Dense(1)], loss="mse", optimizer=cd.SGD(0.1, momentum=0.9), seed=0)
    net.fit(rng.random((20, 4)), rng.random(20), epochs=1, verbose=0)
    net.history.metrics["late"] = [float("nan")]
    assert min(array.min() for name, array in core_of(net).model.tensors().items() if name.startswith("moment2.")) < 0
    net.save(tmp_path / "n")
    loaded = cd.load(tmp_path / "n")
    assert np.isnan(loaded.history.metrics["late"])
    for name, array in core_of(net).model.tensors().items():
        assert core_of(loaded).model.tensors()[name].tobytes() == array.tobytes()


# Files that are there -----------------------------------------------------------------------------------------


@pytest.fixture
def two():
    """Two networks that tell themselves by their bias."""
    nets = [cd.Network([cd.Dense(3)], seed=0).build(4) for _ in range(2)]
    for number, net in enumerate(nets):
        net.parameters()["0.bias"][...] = number
    return nets


def number_in(path):
    return cd.load(path).parameters()["0.bias"][0]


PROTECTED = """
import errno, json, os, sys
import cydrop as cd, cydrop._run.files
folder, root = sys.argv[1], os.getuid() == 0
net = cd.Network([cd.Dense(3)], seed=0, n_threads=1).build(4)
def make(name, mode, owner=65534):
    path = os.path.join(folder, name)
    net.save(path)
    if root:
        os.chown(path, owner, owner)
    os.chmod(path, mode)
    return path
protected = make("protected", 0o444)
others, theirs = (make("others", 0o644, 1), make("theirs", 0o666, 1)) if root else (protected, None)
before = {path: open(path, "rb").read() for path in (protected, others)}
if root:
    os.chown(folder, 65534, 65534)
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
net.parameters()["0.bias"][...] = 1
for path in before:
    for use in (net.save, lambda path: cd.callbacks.Checkpoint(path).on_train_begin(net, 1)):
        try:
            use(path)
            raise SystemExit(f"{path} may be written")
        except PermissionError as error:
            assert (error.errno, error.filename) == (errno.EACCES, path), error
    assert open(path, "rb").read() == before[path]
if theirs:
    number = os.stat(theirs).st_ino
    cd.callbacks.Checkpoint(theirs).on_train_begin(net, 1)
    net.save(theirs)
    there = os.stat(theirs)
    assert (there.st_ino, there.st_uid, there.st_gid, there.st_mode & 0o777) == (number, 1, 1, 0o666)
    assert cd.load(theirs, n_threads=1).parameters()["0.bias"][0] == 1
closed = os.path.join(folder, "closed")
os.mkdir(closed, 0o555)
try:
    cd.callbacks.Checkpoint(closed + "/n").on_train_begin(net, 1)
    raise SystemExit("a folder that is closed")
except PermissionError as error:
    assert error.filename == closed + "/n", error
os.rmdir(closed)
print(json.dumps(sorted(os.listdir(folder))))
"""


@posix
def test_what_open_would_refuse_to_write_stays_as_it_is():
    """A write-protected file and, where the tests may make them, files of somebody else with and without permission."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        done = subprocess.run([sys.executable, "-c", PROTECTED, folder], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == (["others", "protected", "theirs"] if os.getuid() == 0 else ["protected"])


@posix
def test_owner_and_group_stay_where_this_user_may_give_them(two, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(os, "chown", lambda path, *owner: given.append(owner))
    path = tmp_path / "n"
    two[0].save(path)
    number, there = path.stat().st_ino, files.writable_at
    monkeypatch.setattr(files, "writable_at", lambda *a: os.stat_result((*there(*a)[:4], 12345, 54321, *there(*a)[6:])))
    two[1].save(path)
    assert given == [(12345, 54321)]
    assert path.stat().st_ino != number, "it is renamed where that loses nothing"


@posix
def test_a_file_of_somebody_else_is_written_in_place(two, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    path = tmp_path / "n"
    two[0].save(path)
    path.chmod(0o640)
    number, there = path.stat().st_ino, files.writable_at
    monkeypatch.setattr(files, "writable_at", lambda *a: os.stat_result((*there(*a)[:4], 12345, *there(*a)[5:])))
    two[1].save(path)
    assert (path.stat().st_ino, stat.S_IMODE(path.stat().st_mode)) == (number, 0o640)
    assert number_in(path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["n"]


def test_all_names_of_a_file_see_the_new_network(two, tmp_path):
    two[0].history = cd.History({"loss": [0.5] * 1000})  # longer than the next
    two[0].save(tmp_path / "n")
    os.link(tmp_path / "n", tmp_path / "latest")
    two[1].save(tmp_path / "latest")
    assert os.path.samefile(tmp_path / "n", tmp_path / "latest")
    assert number_in(tmp_path / "n") == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "n"]


def mounted(error=errno.EBUSY):
    def replace(*arguments):
        raise OSError(error, os.strerror(error), *arguments)

    return replace


@pytest.mark.parametrize("error", [errno.EBUSY, errno.EXDEV])
def test_a_mount_point_is_written_in_place(error, two, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", mounted(error))
    path = tmp_path / "n"
    with pytest.raises(OSError, match=re.escape(os.strerror(error))) as caught:
        two[0].save(path)  # of a new file it is an error
    assert caught.value.filename == str(path)
    path.write_bytes(b"of before")
    two[1].save(path)
    assert number_in(path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["n"]


class Broken:
    """shutil.copyfileobj that fails half-way, so often."""

    def __init__(self, error, times):
        self.error, self.times = error, times

    def __call__(self, source, target):
        if self.times == 0:
            return copyfileobj(source, target)
        self.times -= 1
        target.write(source.read(100))
        raise self.error


copyfileobj = shutil.copyfileobj


def test_a_copy_that_fails_half_way_leaves_the_finished_file_and_names_it(two, tmp_path, monkeypatch):
    path = tmp_path / "n"
    two[0].save(path)
    os.link(path, tmp_path / "latest")
    for error in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()):
        monkeypatch.setattr(shutil, "copyfileobj", Broken(error, 2))
        with pytest.raises(type(error)) as caught:
            two[1].save(path)
        (kept,) = {str(entry) for entry in tmp_path.iterdir()} - {str(path), str(tmp_path / "latest")}
        assert number_in(kept) == 1
        (text,) = getattr(caught.value, "__notes__", [str(caught.value)])
        assert str(path) in text
        assert "may be damaged now" in text
        assert kept in text
        os.unlink(kept)


def test_a_copy_is_finished_before_an_interrupt_is_answered(two, tmp_path, monkeypatch):
    path = tmp_path / "n"
    two[0].save(path)
    os.link(path, tmp_path / "latest")
    monkeypatch.setattr(shutil, "copyfileobj", Broken(KeyboardInterrupt(), 1))
    with pytest.raises(KeyboardInterrupt) as caught:
        two[1].save(path)
    assert not hasattr(caught.value, "__notes__")
    assert number_in(path) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "n"]


@posix
def test_a_disk_that_is_full_is_an_error_that_names_the_file(two, tmp_path, monkeypatch):
    import resource

    net, path = two[0], tmp_path / "n"
    uses = {"save": lambda: net.save(path), "onnx": lambda: cd.onnx.export(net, path)}
    for use in uses.values():
        use()
        before = path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with pytest.raises(OSError, match=re.escape(os.strerror(errno.EFBIG))) as caught:
                use()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
        for place, number in (("fsync", errno.ENOSPC), ("replace", errno.EDQUOT)):
            with monkeypatch.context() as patch:
                patch.setattr(os, place, mounted(number))
                with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
                    use()
            assert (caught.value.errno, caught.value.filename) == (number, str(path))
            assert caught.value.filename2 is None
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["n"]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("linked", [False, True])
def test_an_interrupt_at_any_instruction_of_saving_loses_no_file(linked, two, tmp_path):
    path, step = tmp_path / "n", 0
    two[0].save(path)
    if linked:
        os.link(path, tmp_path / "latest")
    names = sorted(entry.name for entry in tmp_path.iterdir())
    save = callbacks.Checkpoint(path, "loss")
    writing = {"save", "replaced", "writable_at", "_made_like", "_overwrite", "_sync_folder"}

    def chosen(code):
        return code.co_filename in (saving.__file__, files.__file__) and code.co_name in writing

    kept, seen = 0, set()
    while True:
        net = two[step % 2]
        was = number_in(path)
        value = -float(step + 1)
        if not interrupted(lambda net=net, value=value: save.on_epoch_end(net, 1, {"loss": value}), step, chosen):
            break
        found = number_in(path)
        assert found in (was, step % 2)
        if found != was and not linked:
            assert save._kept[0] == value, "a file that was replaced is that of the best value"
        for entry in tmp_path.iterdir():
            if entry.name not in names:
                assert number_in(entry) == step % 2
                kept += 1
                entry.unlink()
        seen.add(found != was)
        step += 1
    assert step > 80
    assert True in seen
    assert kept <= 5, "finished files are left behind only between two instructions"


# Other readers ------------------------------------------------------------------------------------------------


def test_the_safetensors_library_reads_the_same_arrays(trained, tmp_path):
    net, _, _ = trained
    path = tmp_path / "net.safetensors"
    net.save(path)
    arrays = safetensors.numpy.load_file(path)
    for name, array in net.parameters().items():
        np.testing.assert_array_equal(arrays.pop(name), array)
    for name, values in net.history.metrics.items():
        np.testing.assert_array_equal(arrays.pop(f"history.{name}"), values)
    expected = {f"moment{i}.{name}" for i in (1, 2) for name in net.parameters()}
    assert set(arrays) == expected
    assert all(np.any(array) for array in arrays.values())
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata()["version"] == cd.__version__
        assert json.loads(file.metadata()["cydrop"])["format"] == saving.FORMAT


def test_a_file_that_the_safetensors_library_wrote_anew_goes_on_bit_for_bit(trained, tmp_path):
    net, X, y = trained
    path, again = tmp_path / "net.safetensors", tmp_path / "again.safetensors"
    net.save(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata() | {"note": "of the user's own"}
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), again, metadata=metadata)
    assert again.read_bytes() != path.read_bytes()
    loaded = cd.load(again)
    assert loaded.history.metrics == net.history.metrics
    assert list(loaded.history.metrics) == list(net.history.metrics)
    for one in (net, loaded):
        one.fit(X, y, epochs=1, batch_size=16, verbose=0)
    assert loaded.predict(X).tobytes() == net.predict(X).tobytes()


def test_tensors_may_lie_in_any_order(trained, tmp_path, rng):
    net, X, _ = trained
    path = tmp_path / "net.safetensors"
    net.save(path)
    arrays = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        header = {"__metadata__": file.metadata()}
    body = b""
    for name in rng.permutation(list(arrays)):
        data = bytes_of(arrays[name])
        dtype = {4: "F32", 8: "F64"}[arrays[name].itemsize]
        offsets = [len(body), len(body) + len(data)]
        header[str(name)] = {"dtype": dtype, "shape": arrays[name].shape, "data_offsets": offsets}
        body += data
    text = json.dumps(dict(reversed(header.items()))).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    loaded = cd.load(path)
    assert loaded.predict(X).tobytes() == net.predict(X).tobytes()
    assert loaded.history.metrics == net.history.metrics


# Pickles ------------------------------------------------------------------------------------------------------


def falling(progress):
    return 0.5 - 0.25 * progress


def through_joblib(net):
    stream = io.BytesIO()
    joblib.dump(net, stream)
    stream.seek(0)
    return joblib.load(stream)


TWINS = {
    **{f"pickle {protocol}": lambda net, protocol=protocol: pickle.loads(pickle.dumps(net, protocol))
       for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)},
    "deepcopy": copy.deepcopy, "copy": copy.copy, "joblib": through_joblib,
}  # fmt: skip


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_a_pickled_or_copied_network_goes_on_bit_for_bit(twin, rng):
    X, y = rng.random((50, 6)), rng.integers(0, 3, 50)
    net = cd.Network(
        [cd.Dropout(falling), cd.Dense(9), cd.BatchNorm(), cd.GELU(), cd.Dropout(0.4, shared="batch"), cd.Dense(3)],
        loss=cd.losses.CrossEntropy(0.1), optimizer=cd.AdamW(falling), seed=1, n_threads=1,
    )  # fmt: skip
    net.fit(X, y, epochs=2, batch_size=16, verbose=0)
    net.stop_training = True
    other = twin(net)
    assert other.history.metrics == net.history.metrics
    assert (other.n_threads, other.stop_training) == (1, False)
    metrics = copy.deepcopy(net.history.metrics)
    other.fit(X, y, epochs=2, batch_size=16, verbose=0)
    assert net.history.metrics == metrics, "the twin wrote into the first one's history"
    net.fit(X, y, epochs=2, batch_size=16, verbose=0)
    assert other.predict(X).tobytes() == net.predict(X).tobytes()
    assert other.history.metrics["loss"] == net.history.metrics["loss"]
    for one, two in zip(net.masks(), other.masks(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_an_unbuilt_network_is_copied_with_its_seed(twin, rng):
    net = cd.Network([cd.Dense(3), cd.Dropout(0.5)])
    other, X = twin(net), rng.random((4, 5))
    np.testing.assert_array_equal(other.predict(X), net.predict(X))
    np.testing.assert_array_equal(other.forward(X, training=True), net.forward(X, training=True))


def test_a_network_with_a_lambda_is_copied_deeply(rng):
    X, y = rng.random((30, 4)), rng.integers(0, 2, 30)
    layers = [cd.Dense(8), cd.Dropout(lambda progress: 0.3), cd.Dense(2)]
    net = cd.Network(layers, optimizer=cd.SGD(lambda progress: 0.1 - progress / 20))
    net.fit(X, y, epochs=1, verbose=0)
    other = copy.deepcopy(net)
    for one in (net, other):
        one.fit(X, y, epochs=1, verbose=0)
    assert other.predict(X).tobytes() == net.predict(X).tobytes()
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(net)


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_a_layer_at_two_places_stays_one_layer(twin, rng):
    drop = cd.Dropout(0.5)
    net = cd.Network([cd.Dense(4), drop, cd.Dense(4), drop, cd.Dense(2)], seed=0).build(3)
    other = twin(net)
    assert other.layers[1] is other.layers[3]
    other.forward(rng.random((5, 3)), training=True)
    np.testing.assert_array_equal(other.layers[1].mask, other.masks()[1])


def test_a_network_of_all_threads_takes_those_of_the_machine_where_it_is_unpickled(monkeypatch):
    monkeypatch.setenv("CYDROP_NUM_THREADS", "5")
    everything, three = cd.Network([cd.Dense(2)]), cd.Network([cd.Dense(2)], n_threads=3)
    monkeypatch.setenv("CYDROP_NUM_THREADS", "1")
    openmp = everything.n_threads > 1  # a serial build has one thread always
    assert everything.n_threads == (5 if openmp else 1)
    assert pickle.loads(pickle.dumps(everything)).n_threads == 1
    assert pickle.loads(pickle.dumps(three)).n_threads == three.n_threads == (3 if openmp else 1)


def test_a_pickle_of_many_threads_has_the_same_bits_on_one(rng, monkeypatch):
    X, y = rng.random((40, 30)), rng.integers(0, 3, 40)
    net = cd.Network([cd.Dense(70, activation="relu"), cd.Dropout(0.5), cd.Dense(3)], seed=0)
    net.fit(X, y, epochs=1, verbose=0)
    data = pickle.dumps(net)
    monkeypatch.setenv("CYDROP_NUM_THREADS", "1")
    other = pickle.loads(data)
    for one in (net, other):
        one.fit(X, y, epochs=1, verbose=0)
    assert other.predict(X).tobytes() == net.predict(X).tobytes()


class Labelled(cd.Network):
    """A network with an attribute of the user's own."""


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_a_subclass_keeps_its_class_and_attributes(twin):
    net = Labelled([cd.Dense(2)], seed=0).build(3)
    net.names = ["a", "b"]
    other = twin(net)
    assert type(other) is Labelled
    assert other.names == ["a", "b"]


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_everything_that_a_network_is_made_of_is_copied(twin, rng):
    declared = [cls() for cls in (cd.SGD, cd.RMSprop, cd.Adagrad, cd.Adam, cd.AdamW)]
    declared += [cls() for cls in cd.losses.KNOWN.values()]
    declared += [
        cd.schedules.Constant(0.1), cd.schedules.Linear(0.1), cd.schedules.Step(0.1),
        cd.schedules.Exponential(0.1, 0.2), cd.schedules.Cosine(0.1), cd.schedules.FlatCos(0.1),
        cd.schedules.CosLog4(0.1),
        cd.schedules.Curriculum(0.1), cd.schedules.OneCycle(0.1),
    ]  # fmt: skip
    for one in declared:
        assert twin(one) == one
    for layer in (
        cd.Dense(3, activation="elu", max_norm=1.0), cd.ReLU(), cd.LeakyReLU(0.3), cd.Dropout(0.2, seed=3),
        cd.LayerNorm(), cd.BatchNorm(), cd.AlphaDropout(), cd.GaussianDropout(),
        cd.GaussianNoise(cd.schedules.Linear(0.1)),
    ):  # fmt: skip
        layer.forward(rng.random((2, 4)))
        assert repr(twin(layer)) == repr(layer)
    X = rng.random((5, 4))
    net = cd.Network([cd.Dense(3), cd.Dropout(0.5), cd.Dense(2)], seed=0)
    mc = net.predict_mc(X, 5, seed=0, return_samples=True, quantiles=[0.5])
    for name, array in vars(twin(mc)).items():
        np.testing.assert_array_equal(array, getattr(mc, name))
    history = net.fit(X, [0, 1, 0, 1, 0], epochs=2, verbose=0)
    assert twin(history).metrics == history.metrics


def test_an_interrupt_right_after_the_opening_leaves_no_file(tmp_path, monkeypatch):
    def opened(*arguments):
        open(*arguments).close()
        raise KeyboardInterrupt

    monkeypatch.setattr("cydrop._run.files.open", opened, raising=False)
    with pytest.raises(KeyboardInterrupt):
        cd.Network([cd.Dense(2)]).build(2).save(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []
