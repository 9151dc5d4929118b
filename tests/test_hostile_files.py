"""Files that are damaged, forged or of another kind: ValueError, little memory, and never a crash.

Run as a script, `python test_hostile_files.py FOLDER` loads 10,000 mutations of good files (what the tests below start
as a process of its own, to measure its memory); `python test_hostile_files.py FOLDER SEED` shows what one of them does.
"""

# ruff: noqa: E501 - tables: a line a case

import contextlib
import copy
import json
import os
import pickle
import random
import subprocess
import sys
import sysconfig
import zipfile

import numpy as np
import pytest

import cydrop as cd
from cydrop import saving
from cydrop._run import files
from cydrop._run.core import core_of

MUTATIONS = 10_000
# bytes that loading may take beyond the size of the file; without the GIL every object is 16 bytes larger
MEMORY = 150_000_000 if sysconfig.get_config_var("Py_GIL_DISABLED") else 100_000_000
REFUSED = "is not a network that cydrop can load: "


# Making files -------------------------------------------------------------------------------------------------


def good_networks():
    """A network of every kind of layer and option, trained; one without moments and history; one that is not built; an
    ensemble."""
    rng = np.random.default_rng(0)
    rich = cd.Network(
        [cd.Dropout(cd.schedules.Cosine(0.3), mode="vanilla"), cd.Dense(9, activation=cd.ELU(0.5), max_norm=2.0),
         cd.Dropout(0.4, seed=5), cd.BatchNorm(), cd.Dense(4, drop_connect=cd.schedules.Step(0.1, 0.2)), cd.LayerNorm(),
         cd.GaussianNoise(0.1), cd.LeakyReLU(0.2), cd.AlphaDropout(0.1), cd.Dense(3, bias=False)],
        loss=cd.losses.CrossEntropy(0.1), optimizer=cd.AdamW(cd.schedules.OneCycle(0.01)), seed=1, n_threads=1,
    )  # fmt: skip
    rich.fit(rng.random((40, 6)), rng.integers(0, 3, 40), epochs=3, batch_size=16, validation_split=0.2, verbose=0)
    bare = cd.Network([cd.Dense(2)], loss="mse", optimizer="sgd", seed=2, n_threads=1).build(6)
    members = [
        cd.Network([cd.Dense(4), cd.BatchNorm(), cd.Dropout(0.4), cd.Dense(2)], loss=loss, seed=seed, n_threads=1)
        for seed, loss in enumerate(["gaussian_nll", cd.losses.GaussianNLL()])
    ]
    members.append(cd.Network([cd.Dense(2)], loss="gaussian_nll", optimizer="sgd", seed=2, n_threads=1))
    for member in members[:2]:
        member.fit(rng.random((20, 6)), rng.random(20), epochs=2, batch_size=8, verbose=0)
    return [rich, bare, cd.Network([cd.Dense(3), cd.Dropout(0.5)], seed=3, n_threads=1), cd.Ensemble(members)]


DESCRIPTIONS = {"cydrop", "cydrop_ensemble"}  # entries of the metadata that are JSON


def taken_apart(raw):
    """Header with its description as an object, and what follows."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    metadata = header["__metadata__"]
    metadata |= {key: json.loads(metadata[key]) for key in DESCRIPTIONS & metadata.keys()}
    return header, raw[8 + length :]


def put_together(header, body):
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict):
        texts = {key: json.dumps(metadata[key]) for key in DESCRIPTIONS & metadata.keys()}
        header = header | {"__metadata__": metadata | texts}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


# Mutations ----------------------------------------------------------------------------------------------------

HOSTILE = [  # values where others belong
    0, 1, -1, 2, 3, 7, 2**31, 2**32, 10**12, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400, 10**4000, 0.0, -0.0, 0.5, 1.0,
    1.5, -3.7, 1e-320, 1e300, 1e308, float("nan"), float("inf"), -float("inf"), True, False, None, "", "0", "5", "-1", "1e3",
    "nan", "relu", "ReLU", "Dense", "__import__", "mse", "F32", "F64", "F16", "I8", "\ud800", "\x00", "ü" * 50, "x" * 5000,
    [], {}, [[]], [{}], {"": 0}, [1, 2], [0, 0], ["0", "0", "0", "0"], [None] * 4, [10**9] * 30, [0] * 1000,
    {"layer": "ReLU"}, {"layer": "Dense", "units": 10**12}, {"layer": "Dense", "units": 2, "activation": {"layer": "Dense"}},
    {"schedule": "Constant", "value": 0.5}, {"schedule": "Linear", "start": 5.0, "end": -5.0, "until": 0.0},
    {"schedule": "OneCycle", "peak": 1.0, "divide": 0.0, "final_divide": 0.0, "warm_up": 2.0},
    {"schedule": "Exponential", "start": 1e-300, "end": 1e300}, {"schedule": "Curriculum", "end": 0.3, "gamma": 1e308},
    {"optimizer": "sgd", "learning_rate": 0.1}, {"loss": "gaussian_nll"},
]  # fmt: skip


def places(value, found=None):
    """All (container, key) of a tree of JSON."""
    found = [] if found is None else found
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            places(value[key], found)
    return found


def nested(rng):
    """A value inside many others."""
    value = copy.deepcopy(rng.choice(HOSTILE))
    for _ in range(rng.choice([2, 50, 400])):
        value = [value] if rng.random() < 0.5 else {"layer": "Dense", "units": 1, "activation": value}
    return value


def bytes_mutated(rng, raw):
    """Flipped, cut off, inserted, doubled, moved."""
    raw = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        end = len(raw) if rng.random() < 0.5 else min(len(raw), 8 + int.from_bytes(raw[:8], "little"))
        first, second = sorted(rng.randrange(end + 1) for _ in range(2))
        second = min(second, first + rng.choice([1, 4, 16, 64, 1000]))
        kind = rng.randrange(7)
        if kind == 0 and first < len(raw):
            raw[first] ^= 1 << rng.randrange(8)
        elif kind == 1 and first < len(raw):
            raw[first] = rng.randrange(256)
        elif kind == 2:
            del raw[first : len(raw) if rng.random() < 0.3 else second]
        elif kind == 3:
            raw[first:first] = rng.randbytes(rng.choice([1, 4, 8, 100]))
        elif kind == 4:
            raw[first:first] = raw[first:second] * rng.choice([1, 2, 10])
        elif kind == 5:
            raw[first:second] = rng.choice([b"[" * 1000, b'{"a":' * 1000, b"NaN", b"1e999", b"9" * 5000, b"\xff\xfe"])
        else:
            length = rng.choice([0, 1, 7, len(raw) - 8, len(raw), 2**20, 2**40, 2**63, 2**64 - 1])
            raw[:8] = length.to_bytes(8, "little")
    return bytes(raw)


def tree_mutated(rng, raw):
    """Values of the header and of the description replaced, removed, doubled and swapped; the rest is sound."""
    header, body = taken_apart(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if not header:
            break
        container, key = rng.choice(places(header))
        other, place = rng.choice(places(header))
        kind = rng.randrange(8)
        try:
            if kind <= 2:
                container[key] = copy.deepcopy(rng.choice(HOSTILE))
            elif kind == 3:
                container[key] = nested(rng)
            elif kind == 4:
                container[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(container[key])
            elif kind == 5:
                del container[key]
            elif kind == 6 and isinstance(container, dict):
                name = rng.choice(["rate", "units", "x", "seed", "\ud800", "0.weight", "history.loss"])
                container[name] = container.pop(key)
            elif isinstance(container[key], list | str):
                container[key] = container[key] * rng.choice([0, 2, 3, 200])
            else:
                container[key] = container[key] * rng.choice([-1, 2, 10**6])
        except (TypeError, OverflowError):
            container[key] = None  # no such product of these two
    return put_together(header, body)


def layout_mutated(rng, raw):
    """Offsets and shapes that lie: swapped, shifted, beyond the end, multiplied; bodies too long and too short."""
    header, body = taken_apart(raw)
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    metadata = header["__metadata__"]
    described = [metadata["cydrop"]] if "cydrop" in metadata else metadata["cydrop_ensemble"]["members"]
    built = rng.choice(described)["built"]
    for _ in range(rng.choice([1, 1, 2])):
        kind = rng.randrange(8 if entries else 1)
        if kind == 0:
            cut = rng.randrange(len(body) + 1)
            body = rng.choice([body[:cut], body + bytes(rng.choice([1, 4, 4096])), body[cut:] + body[:cut]])
            continue
        one, two = rng.choice(entries), rng.choice(entries)
        amount = rng.choice([-8, -4, -1, 1, 4, 8, 10**6, 2**62])
        if kind == 1:
            one["data_offsets"], two["data_offsets"] = two["data_offsets"], one["data_offsets"]
        elif kind == 2:
            one["data_offsets"] = [offset + amount for offset in one["data_offsets"]]
        elif kind == 3:
            one["data_offsets"] = [one["data_offsets"][0], one["data_offsets"][1] + amount]
        elif kind == 4:
            one["shape"] = [length * rng.choice([0, -1, 2, 10**6, 2**40]) for length in one["shape"]]
        elif kind == 5:
            one["shape"], two["shape"] = two["shape"], one["shape"]
        elif kind == 6:
            border = one["data_offsets"][1]
            for entry in entries:
                entry["data_offsets"] = [offset + amount * (offset == border) for offset in entry["data_offsets"]]
        elif built is not None:
            built[rng.choice(list(built))] = rng.choice([0, 1, 6, 10**9, 2**62, 2**63 - 1])
    return put_together(header, body)


def mutation(seed, good):
    rng = random.Random(seed)
    raw = rng.choice([good[0], good[0], *good[1:], good[3]])
    return rng.choice([bytes_mutated, tree_mutated, tree_mutated, layout_mutated])(rng, raw)


def outcome(path):
    """What loading does: "loaded" or "refused"; any other error comes through. What was loaded must predict."""
    try:
        net = cd.load(path, n_threads=1)
    except ValueError as error:
        if REFUSED not in str(error) or len(str(error)) > 1000:
            raise AssertionError(f"a ValueError that does not explain itself: {error}") from error
        return "refused"
    if isinstance(net, cd.Ensemble):
        plans = [core_of(member).plan for member in net]
        if None not in plans:  # others may be of any width
            X = np.zeros((3, plans[0].n_features), dtype=np.float32)
            assert net.predict(X).shape == (3, plans[0].n_outputs)
        return "loaded"
    if core_of(net).plan is not None:  # one that was not built yet may be of any size, as one that is made by hand
        X = np.zeros((3, core_of(net).plan.n_features), dtype=np.float32)
        assert net.predict(X).shape == (3, core_of(net).plan.n_outputs)
    net.summary()
    return "loaded"


def peak_memory():
    if sys.platform == "linux":  # its ru_maxrss begins with what the parent process had
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run_mutations(folder, seeds):
    path = os.path.join(folder, "net")
    good = []
    for net in good_networks():
        net.save(path)
        assert outcome(path) == "loaded"
        with open(path, "rb") as file:
            good.append(file.read())
    counts = {"loaded": 0, "refused": 0}
    before = peak_memory()
    for seed in seeds:
        with open(path, "wb") as file:
            file.write(mutation(seed, good))
        try:
            counts[outcome(path)] += 1
        except BaseException as error:
            error.add_note(f"mutation {seed}")
            raise
    return counts | {"memory": peak_memory() - before}


def in_a_process(*arguments):
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module that tells the peak of memory")
def test_ten_thousand_mutated_files_load_or_raise_a_value_error_in_little_memory(tmp_path):
    counts = in_a_process(tmp_path)
    assert counts["loaded"] + counts["refused"] == MUTATIONS
    assert counts["loaded"] > MUTATIONS // 50, "mutations that are all refused at the door test little"
    assert counts["refused"] > MUTATIONS // 2
    assert counts["memory"] < MEMORY


# The dearest files --------------------------------------------------------------------------------------------


def filled(net, layer):
    """The header of `net` with as many of these layers as fit."""
    header, _ = taken_apart(net)
    header["__metadata__"]["cydrop"]["layers"] = []
    room = files.LONGEST_HEADER - len(put_together(header, b"")) - 100
    count = room // (len(json.dumps(json.dumps(layer))))
    header["__metadata__"]["cydrop"]["layers"] = [layer] * count
    return header


def dear_files(tmp_path):
    """Files that take the most memory to load, for what they weigh."""
    net = cd.Network([cd.ReLU()], loss="mse", seed=0).build(3)
    net.save(tmp_path / "relu")
    relu = (tmp_path / "relu").read_bytes()
    net.history = cd.History({"loss": [0.1] * saving.LONGEST_HISTORY})
    net.save(tmp_path / "history")
    history = (tmp_path / "history").read_bytes()
    (tmp_path / "history").unlink()
    (tmp_path / "relu").unlink()
    lists = "[" + ",".join(["[" * 900 + "]" * 900] * (files.LONGEST_HEADER // 1802)) + "]"
    yield "lists in lists", len(lists).to_bytes(8, "little") + b'{"a":' + lists.encode()[:-6] + b"}"
    description = "[" + ",".join(["[" * 100 + "]" * 100] * (files.LONGEST_HEADER // 202)) + "]"
    text = json.dumps({"__metadata__": {"cydrop": description}}).encode()
    yield "lists in the description", len(text).to_bytes(8, "little") + text
    for name in ("ReLU", "GaussianDropout"):
        yield f"many {name}", put_together(filled(relu, {"layer": name}), b"")
    header = filled(history, {"layer": "GaussianDropout"})
    yield "many layers and a long history", put_together(header, taken_apart(history)[1])
    yield "a long history", history
    header, _ = taken_apart(relu)
    header["__metadata__"]["cydrop"]["layers"] = [{"layer": "Dense", "units": 2**40}]
    header["__metadata__"]["cydrop"]["built"]["n_features"] = 2**40
    header["0.weight"] = {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**82]}
    yield "huge weights", put_together(header, bytes(64))
    members = cd.Ensemble([cd.Network([cd.ReLU()], loss="mse", seed=0).build(3) for _ in range(2200)])
    members.save(tmp_path / "ensemble")
    yield "many members", (tmp_path / "ensemble").read_bytes()
    (tmp_path / "ensemble").unlink()
    members = cd.Ensemble([cd.Network([cd.ReLU()], loss="mse", seed=0).build(3) for _ in range(2)])
    members.save(tmp_path / "ensemble")
    header, _ = taken_apart((tmp_path / "ensemble").read_bytes())
    room = files.LONGEST_HEADER - len(put_together(header, b"")) - 100
    for member in header["__metadata__"]["cydrop_ensemble"]["members"]:
        member["layers"] = [{"layer": "GaussianDropout"}] * (
            room // 2 // len(json.dumps('{"layer": "GaussianDropout"}, '))
        )
    yield "members of many layers", put_together(header, b"")
    (tmp_path / "ensemble").unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module that tells the peak of memory")
def test_no_file_takes_100_mb_beyond_its_size(tmp_path):
    small = tmp_path / "small"
    good_networks()[1].save(small)
    dearest = 0
    for name, data in dear_files(tmp_path):
        path = tmp_path / name
        path.write_bytes(data)
        memory = in_a_process("peak", path, small)["memory"]
        assert memory < len(data) + MEMORY, name
        dearest = max(dearest, memory - len(data))
    assert dearest > MEMORY // 3, "these are not the dearest files any more"


# Single cases -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "net"
    good_networks()[0].save(path)
    return path.read_bytes()


def described(change):
    """A mutation of the description alone."""

    def apply(header):
        change(header["__metadata__"]["cydrop"])

    return apply


def move_a_border(header):
    """Two neighbours that lie one after the other, but with other lengths than they have."""
    first, second = list(header)[1:3]
    header[first]["data_offsets"][1] += 4
    header[second]["data_offsets"][0] += 4


CASES = {
    "no description": (lambda h: h["__metadata__"].pop("cydrop"), "holds tensors but no description.*cydrop.exchange"),
    "no metadata": (lambda h: h.pop("__metadata__"), "holds tensors but no description of a network; cydrop.exchange"),
    "metadata null": (lambda h: h.update(__metadata__=None), "holds tensors but no description"),
    "metadata a number": (lambda h: h["__metadata__"].update(note=3), "metadata are not texts"),
    "format 1": (described(lambda d: d.update(format=1)), r"it has format 1, this cydrop [\d.]+ reads format 2: load it with"),
    "format 99": (described(lambda d: d.update(format=99)), "it has format 99, .* reads format 2: .* cydrop 0.1.0"),
    "format True": (described(lambda d: d.update(format=True)), "it has format True"),
    "no loss": (described(lambda d: d.pop("loss")), r"its description has \['built', .*, not \('format'"),
    "more than known": (described(lambda d: d.update(extra=1)), "its description has"),
    "layers not a list": (described(lambda d: d.update(layers={})), "its layers is not a list, but {}"),
    "no layers": (described(lambda d: d.update(layers=[])), "layers is empty"),
    "a layer of pairs": (described(lambda d: d.update(layers=[[["layer", "ReLU"]]])), "its layer is not an object"),
    "unknown layer": (described(lambda d: d["layers"][1].update(layer="__import__")), "layer='__import__' is not known"),
    "many units": (described(lambda d: d["layers"][1].update(units=10**9)), "tensor '1.weight' is 'F32' of shape"),
    "huge units": (described(lambda d: d["layers"][1].update(units=10**12)), "units must be at most 2147483647"),
    "units as text": (described(lambda d: d["layers"][1].update(units="9")), "units must be an integer, got '9'"),
    "units True": (described(lambda d: d["layers"][1].update(units=True)), "units must be an integer, got True"),
    "rate out of range": (described(lambda d: d["layers"][2].update(rate=7)), r"rate must be in \[0, 1\], got 7"),
    "rate too large": (described(lambda d: d["layers"][2].update(rate=10**400)), r"rate must be in \[0, 1\], got 1000"),
    "schedule out of range": (described(lambda d: d["layers"][0]["rate"].update(start=7)), "rate at progress 0 must be in"),
    "schedule by zero": (described(lambda d: d["optimizer"]["learning_rate"].update(divide=0)), "divide must be a finite number above 0"),
    "endless seed": (described(lambda d: d["layers"][2].update(seed=-5)), "seed must not be negative"),
    "option unknown": (described(lambda d: d["optimizer"].update(gamma=1)), "unexpected keyword argument 'gamma'"),
    "beta out of range": (described(lambda d: d["optimizer"].update(beta1=3)), "beta1 must be in"),
    "n_features 0": (described(lambda d: d["built"].update(n_features=0)), "n_features must be at least 1, got 0"),
    "n_features huge": (described(lambda d: d["built"].update(n_features=2**62)), "tensor '1.weight' is 'F32' of shape"),
    "not built": (described(lambda d: d.update(built=None)), "its tensors are not those of its layers"),
    "draws negative": (described(lambda d: d["built"].update(draws=-1)), "-1 is not a count"),
    "updates huge": (described(lambda d: d["built"].update(updates=2**64)), "18446744073709551616 is not a count"),
    "epochs a float": (described(lambda d: d.update(epochs=3.0)), "3.0 is not a count"),
    "two words": (described(lambda d: d.update(root=["1", "2"])), r"its seed is not a list of 4, but \['1', '2'\]"),
    "words as numbers": (described(lambda d: d.update(root=[1, 2, 3, 4])), "1 is not a 64-bit word"),
    "words too large": (described(lambda d: d.update(root=[str(2**64)] * 4)), "'18446744073709551616' is not a 64-bit"),
    "history of numbers": (described(lambda d: d.update(history=[1, 2])), "its history is not a list of names"),
    "history unnamed": (described(lambda d: d["history"].pop()), "lacking or too many: .'history."),
    "tensor missing": (lambda h: h.pop("1.weight"), r"lacking or too many: \['1.weight'\]"),
    "tensor too many": (lambda h: h.update(x=h["1.bias"]), r"lacking or too many: \['x'\]"),
    "shape turned": (lambda h: h["1.weight"].update(shape=[9, 6]), r"'F32' of shape \(9, 6\), not F32 of \(6, 9\)"),
    "shape huge": (lambda h: h["1.weight"].update(shape=[10**18, 10**18]), "not F32 of"),
    "shape of a number": (lambda h: h["1.weight"].update(shape=54), "its shape is not a list, but 54"),
    "history in two dimensions": (lambda h: h["history.loss"].update(shape=[3, 1]), "is 'F64' of shape"),
    "history in none": (lambda h: h["history.loss"].update(shape=[]), "is 'F64' of shape"),
    "dtype": (lambda h: h["1.weight"].update(dtype="F16"), "tensor '1.weight' is 'F16' of shape"),
    "offset shifted": (lambda h: h["1.weight"].update(data_offsets=[4, 220]), "overlap or leave gaps"),
    "border moved": (move_a_border, r"of shape \(\d+,\) cannot lie at bytes 0 to \d+"),
    "offset negative": (lambda h: h["1.weight"].update(data_offsets=[-4, 212]), "-4 is not a count"),
    "offsets three": (lambda h: h["1.weight"].update(data_offsets=[0, 4, 8]), "its data_offsets is not a list of 2"),
    "overlapping": (lambda h: h["3.weight"].update(data_offsets=h["1.bias"]["data_offsets"]), "overlap"),
    "entry null": (lambda h: h.update({"1.weight": None}), "its tensor '1.weight' is not an object of JSON, but None"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_lie_in_the_header_is_named(name, raw, tmp_path):
    change, message = CASES[name]
    header, body = taken_apart(raw)
    change(header)
    path = tmp_path / "net"
    path.write_bytes(put_together(header, body))
    with pytest.raises(ValueError, match=f"net {REFUSED}.*{message}"):
        cd.load(path)


@pytest.fixture(scope="module")
def raw_ensemble(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "net"
    good_networks()[3].save(path)
    return path.read_bytes()


def of_ensemble(change):
    """A mutation of the description alone."""

    def apply(header):
        change(header["__metadata__"]["cydrop_ensemble"])

    return apply


def swapped(ensemble):
    ensemble["members"].reverse()


CASES_OF_ENSEMBLES = {
    "format of tomorrow": (of_ensemble(lambda d: d.update(format=2)), "has format 2, this cydrop .* reads format 1"),
    "format of a member": (
        of_ensemble(lambda d: d["members"][1].update(format=1)),
        "format 1, this cydrop .* format 2",
    ),
    "no members": (of_ensemble(lambda d: d.update(members=[])), "its list of members is empty"),
    "members no list": (of_ensemble(lambda d: d.update(members={})), "its members is not a list, but {}"),
    "a member null": (of_ensemble(lambda d: d["members"].append(None)), "has format None"),
    "a member too few": (of_ensemble(lambda d: d["members"].pop(0)), "lacking or too many"),
    "members swapped": (of_ensemble(swapped), "lacking or too many"),
    "something else": (of_ensemble(lambda d: d.update(weights=[])), r"\['format', 'members', 'weights'\], not"),
    "no object": (lambda h: h["__metadata__"].update(cydrop_ensemble=[]), "has format None"),
    "a network as well": (lambda h: h["__metadata__"].update(cydrop={}), "describe both a network and an ensemble"),
    "a member's tensor missing": (lambda h: h.pop("1.0.weight"), r"lacking or too many: \['1.0.weight'\]"),
    "a tensor of nobody": (lambda h: h.update({"0.weight": h["0.0.weight"]}), r"lacking or too many: \['0.weight'\]"),
    "overlapping": (lambda h: h["1.0.bias"].update(data_offsets=h["0.0.bias"]["data_offsets"]), "overlap"),
    "losses that differ": (
        of_ensemble(lambda d: d["members"][2].update(loss={"loss": "mse"})),
        r"networks\[2\] has the loss 'mse', networks\[0\] 'gaussian_nll'",
    ),
}


@pytest.mark.parametrize("name", CASES_OF_ENSEMBLES)
def test_a_lie_about_an_ensemble_is_named(name, raw_ensemble, tmp_path):
    change, message = CASES_OF_ENSEMBLES[name]
    header, body = taken_apart(raw_ensemble)
    change(header)
    path = tmp_path / "net"
    path.write_bytes(put_together(header, body))
    with pytest.raises(ValueError, match=f"net {REFUSED}.*{message}"):
        cd.load(path)


def test_numbers_that_no_training_produces_name_the_member(raw_ensemble, tmp_path):
    header, body = taken_apart(raw_ensemble)
    for name, number, message in (
        ("1.0.weight", np.nan, "'1.0.weight' has values that are NaN or infinite"),
        ("0.1.running_variance", -1.0, "'0.1.running_variance' must not be negative"),
        ("1.moment2.3.bias", -1.0, "'1.moment2.3.bias' must not be negative"),
    ):
        start = header[name]["data_offsets"][0]
        changed = body[:start] + np.array(number, "<f4").tobytes() + body[start + 4 :]
        (tmp_path / "net").write_bytes(put_together(header, changed))
        with pytest.raises(ValueError, match=f"{REFUSED}tensor {message}"):
            cd.load(tmp_path / "net")


def test_every_cut_of_an_ensemble_is_noticed(raw_ensemble, tmp_path):
    path = tmp_path / "net"
    for length in range(0, len(raw_ensemble), 37):
        path.write_bytes(raw_ensemble[:length])
        with pytest.raises(ValueError, match=REFUSED):
            cd.load(path)


def with_header(text):
    return len(text).to_bytes(8, "little") + text


OTHERS = {
    "an empty file": (b"", "it is empty"),
    "three bytes": (b"abc", "it has only 3 bytes"),
    "text": (b"a model, in words\n" * 9, "it is cut off, or not of safetensors"),
    "length beyond the end": (with_header(b"{}")[:-1], "it would have a header of 2 bytes: it is cut off"),
    "header longer than any": (
        with_header(b"{" + b" " * files.LONGEST_HEADER + b"}"),
        "reads headers of up to 1,000,000",
    ),
    "no object": (with_header(b"[]"), "does not begin with '{'"),
    "space before": (with_header(b" {}"), "does not begin with '{'"),
    "empty header": (with_header(b""), "does not begin with '{'"),
    "no description": (with_header(b"{}"), "it holds tensors but no description"),
    "a name twice": (with_header(b'{"a": 1, "a": 2}'), "a name stands twice"),
    "NaN": (with_header(b'{"a": NaN}'), "has NaN, which JSON does not know"),
    "too deep": (with_header(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "it is nested too deeply"),
    "not UTF-8": (with_header(b'{"\xff": 1}'), "utf-8"),
    "not JSON": (with_header(b"{'a': 1}"), "property name enclosed in double quotes"),
    "endless number": (with_header(b'{"a": ' + b"9" * 5000 + b"}"), "4300 digits"),
    "a pickle": (pickle.dumps(list(range(1000))), "it seems to be a pickle"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5 file, as Keras"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_kinds_are_refused_with_a_sentence(name, tmp_path):
    data, message = OTHERS[name]
    path = tmp_path / "net"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"net {REFUSED}.*{message}"):
        cd.load(path)


def test_archives_and_arrays_are_refused_with_a_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"0.weight": 1}))
    np.savez(tmp_path / "weights.npz", weight=np.ones(3))
    np.save(tmp_path / "weights.npy", np.ones(3))
    for name, message in (("model.pt", "zip archive, as torch.save"), ("weights.npz", "zip"), ("weights.npy", "numpy")):
        with pytest.raises(ValueError, match=f"{REFUSED}it is .*{message}"):
            cd.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        cd.load(tmp_path / "nothing")


def test_every_cut_and_every_byte_too_many_is_noticed(raw, tmp_path):
    path = tmp_path / "net"
    for data in (*(raw[:length] for length in range(0, len(raw), 37)), raw[:-1], raw + b"\0", raw + raw):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=REFUSED):
            cd.load(path)


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "net"
    cd.Network([cd.Dense(200)], loss="mse").build(200).save(path)
    checked = files.checked_tensors

    def cut(*arguments):
        os.truncate(path, 100_000)
        return checked(*arguments)

    monkeypatch.setattr(files, "checked_tensors", cut)
    with pytest.raises(ValueError, match=f"{REFUSED}it was cut off while it was read"):
        cd.load(path)


if __name__ == "__main__":
    if sys.argv[1] == "peak":
        cd.load(sys.argv[3])
        before = peak_memory()
        with contextlib.suppress(ValueError):
            cd.load(sys.argv[2])
        print(json.dumps({"memory": peak_memory() - before}))
    else:
        print(json.dumps(run_mutations(sys.argv[1], map(int, sys.argv[2:]) if sys.argv[2:] else range(MUTATIONS))))
