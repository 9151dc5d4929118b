"""Saved networks: whole, resumable, and never trusted."""

import json
import stat

import numpy as np
import pytest

import cydrop as cd


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


def test_a_rate_that_is_a_function_of_ones_own_cannot_be_saved(tmp_path):
    net = cd.Network([cd.Dense(2), cd.Dropout(lambda progress: 0.5)])
    with pytest.raises(ValueError, match="a function of your own"):
        net.save(tmp_path / "n")
    assert not list(tmp_path.iterdir())


def test_damaged_and_hostile_files_raise_value_errors(trained, tmp_path, rng):
    net, _, _ = trained
    path = tmp_path / "net.safetensors"
    net.save(path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])

    def rewritten(change):
        changed = json.loads(json.dumps(header))
        change(changed)
        text = json.dumps(changed).encode()
        return len(text).to_bytes(8, "little") + text + raw[8 + length :]

    def described(change):
        def apply(h):
            description = json.loads(h["__metadata__"]["cydrop"])
            change(description)
            h["__metadata__"]["cydrop"] = json.dumps(description)

        return rewritten(apply)

    cases = [
        b"", b"abc", raw[:20], raw[:-1], raw + b"x", b"\xff" * 8 + raw[8:], bytes(8) + raw[8:], raw[: 8 + length],
        rewritten(lambda h: h.pop("1.weight")),
        rewritten(lambda h: h["1.weight"].update(shape=[9, 6])),
        rewritten(lambda h: h["1.weight"].update(dtype="F64")),
        rewritten(lambda h: h["1.weight"].update(data_offsets=[4, 220])),
        rewritten(lambda h: h["1.weight"].update(data_offsets=[-4, 212])),
        rewritten(lambda h: h["1.bias"].update(data_offsets=h["1.weight"]["data_offsets"])),
        rewritten(lambda h: h["1.weight"].update(shape=[10**18, 10**18])),
        rewritten(lambda h: h.pop("__metadata__")),
        described(lambda d: d.update(format=99)),
        described(lambda d: d["layers"][1].update(units=10**12)),
        described(lambda d: d["layers"][1].update(layer="__import__")),
        described(lambda d: d["layers"][0].update(rate=7)),
        described(lambda d: d.update(n_features=0)),
        described(lambda d: d.update(draws=-1)),
        described(lambda d: d.update(root=["1", "2"])),
        described(lambda d: d.pop("loss")),
        described(lambda d: d["optimizer"].update(beta1=3)),
    ]  # fmt: skip
    for number, case in enumerate(cases):
        path.write_bytes(case)
        with pytest.raises(ValueError, match="is not a network that cydrop can load"):
            print(f"case {number} was loaded:", cd.load(path))
    for _ in range(500):
        mutated = bytearray(raw)
        for place in rng.integers(0, len(raw), 3):
            mutated[place] = rng.integers(0, 256)
        path.write_bytes(mutated)
        try:
            cd.load(path)
        except ValueError as error:
            assert "is not a network that cydrop can load" in str(error)  # noqa: PT017 - loading is fine too
    with pytest.raises(FileNotFoundError):
        cd.load(tmp_path / "nothing")
