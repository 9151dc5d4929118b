"""Saved networks: whole, resumable, and read by others. What damaged files do is in test_hostile_files.py."""

import copy
import io
import json
import os
import pickle
import stat
import subprocess
import sys

import joblib
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import cydrop as cd
from cydrop import files


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
    net = cd.Network([drawn, cd.Dense(2)], seed=0).build(4)
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
        ("", ValueError, "path is empty"), (3, TypeError, r"path must be a str or path-like, got 3 \(int\)"),
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
    old.history = cd.History({"loss": [0.1] * (files.LONGEST_HISTORY + 1)})
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
    net.history = cd.History({"loss": [0.1, 1 / 3, 5e-324], "zu früh \"ü\"": odd, "": []})
    net.save(tmp_path / "n")
    metrics = cd.load(tmp_path / "n").history.metrics
    assert list(metrics) == list(net.history.metrics)
    assert all(type(value) is float for values in metrics.values() for value in values)
    for name, values in net.history.metrics.items():
        assert np.array(metrics[name]).tobytes() == np.array(values).tobytes()


def test_running_statistics_and_weights_that_are_nan_are_kept(tmp_path, rng):
    net = cd.Network([cd.Dense(3), cd.BatchNorm(), cd.ReLU(), cd.LayerNorm(), cd.Dense(1)], loss="mse", seed=0)
    net.fit(rng.random((20, 4)), rng.random(20), epochs=2, verbose=0)
    net.parameters()["0.bias"][1] = np.nan
    net.save(tmp_path / "n")
    loaded = cd.load(tmp_path / "n")
    for name, array in {**net.parameters(), **net.buffers()}.items():
        assert {**loaded.parameters(), **loaded.buffers()}[name].tobytes() == array.tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc, which only Linux has")
def test_saving_and_loading_take_no_memory_beyond_the_arrays(tmp_path):
    script = """
import sys
import cydrop as cd
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
net = cd.Network([cd.Dense(8)], optimizer="adam", n_threads=1).build(9)
net.save(sys.argv[1])
cd.load(sys.argv[1])
net = cd.Network([cd.Dense(1024), cd.Dense(2048), cd.Dense(8)], optimizer="adam", n_threads=1).build(1024)
for tensor in net._tensors().values():
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
        assert json.loads(file.metadata()["cydrop"])["format"] == files.FORMAT


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
        data = arrays[name].tobytes()
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


def test_an_interrupt_right_behind_the_opening_leaves_no_file(tmp_path, monkeypatch):
    def opened(*arguments):
        open(*arguments).close()
        raise KeyboardInterrupt

    monkeypatch.setattr("cydrop.files.open", opened, raising=False)
    with pytest.raises(KeyboardInterrupt):
        cd.Network([cd.Dense(2)]).build(2).save(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []
