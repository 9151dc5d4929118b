"""The same seed gives the same bits: on any number of threads, with any instruction set, alone or in company."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from digests import digest, fused, trained

import cydrop as cd


@pytest.mark.parametrize(
    ("activation", "optimizer", "rate"),
    [("relu", "adam", 0.5), ("gelu", "sgd", 0.3), ("tanh", cd.AdamW(clip_norm=0.5), 0.1), ("elu", "rmsprop", 0.9)],
)
def test_trained_weights_are_the_same_bits_on_1_2_3_and_5_threads(activation, optimizer, rate):
    digests = {digest(trained(n, activation, optimizer, rate)[0]) for n in (1, 2, 3, 5)}
    assert len(digests) == 1


def test_predictions_are_the_same_bits_on_any_number_of_threads_and_any_batch_size():
    (one, X), (three, _) = trained(1), trained(3)
    expected = one.predict(X)
    for net in (one, three):
        for batch_size in (None, 1, 7, 128, 1000):
            np.testing.assert_array_equal(net.predict(X, batch_size=batch_size), expected)
    mc = one.predict_mc(X, 5, seed=1, return_samples=True)
    np.testing.assert_array_equal(mc.samples, three.predict_mc(X, 5, seed=1, return_samples=True).samples)


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from digests import digest, trained
for activation, optimizer in (("relu", "adam"), ("gelu", "sgd"), ("tanh", "adagrad"), ("softplus", "adamw")):
    print(digest(trained(2, activation, optimizer)[0]))
"""

# Of SCRIPT, with any instruction set that has the fused multiply-add (True) and with any that has not. A change here is
# a change of every user's results: it needs a new version and a line in CHANGELOG.md.
GOLDEN = {
    True: [
        "2031376385d1810d427b89310d2155b7b776fdb32801068653ac790c71bf4f0a",
        "9d2c2a47b1e2ad97fa6e8ff471ddfd809721bd014acab2c8caab1ac28aa33213",
        "932868cf6cd4b7923581006da8aa830189ab3cdde00e14d2cd60eba91f150cf6",
        "b3c156ef9f9b21daee010d02962231e22652fff696547c8aa7e430e5e7111a57",
    ],
    False: [
        "575b412a432970fd374a6ec5ac1d116877764a0c83a74828a9e92437ebe058c4",
        "544939c1318e117b923a3f67536adaf1b31196940c66fab29e36a6c2201a084c",
        "7a934a39730ced64260eddd3d14ffd9c783afef1df9072f8c24c2f6262d89979",
        "2adb895f546aa453ef01ec4c96048e805fa4dbd6eb8aa4b768b900de61a682ea",
    ],
}


def run(simd, script=SCRIPT):
    environment = {**os.environ, "CYDROP_SIMD": simd}
    script = script.format(tests=os.path.dirname(__file__))
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_trained_weights_are_the_golden_bits_with_every_instruction_set(simd):
    assert run(simd).stdout.split() == GOLDEN[fused(simd)]


BEGIN_SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import cydrop as cd
from digests import digest
print(digest(cd.Network([cd.Dense(300, activation="relu"), cd.Dense(200), cd.Dense(10)], seed=11).build(90)))
"""

BEGIN_GOLDEN = "605e95651f81ead0036f43ba94d94c7358c4162fd225a9ee10b4599a82f3b293"


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_first_weights_and_biases_are_the_golden_bits(simd):
    assert run(simd, BEGIN_SCRIPT).stdout.split() == [BEGIN_GOLDEN]


FROM_DATA_SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import cydrop as cd, numpy as np
from digests import digest
X = np.random.default_rng(0).random((3000, 90), dtype=np.float32)
hidden = [cd.Dense(300, activation="selu"), cd.Dropout(0.3), cd.LayerNorm(), cd.Dense(200, activation="gelu")]
for n_threads in (1, 2, 3):
    print(digest(cd.Network([*hidden, cd.Dense(1)], loss="mse", seed=11, n_threads=n_threads).initialize(X)))
"""

FROM_DATA_GOLDEN = {
    True: "6849e1b1a95c031d56235504c10479faf3a8b38fa8831841b8582ecf69dbb6f5",
    False: "8d897ec645c76a48073dcd19fa0e9f4ea018ce5f5e2ae06046c9d03089751878",
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_parameters_initialized_from_data_are_the_golden_bits(simd):
    assert run(simd, FROM_DATA_SCRIPT).stdout.split() == 3 * [FROM_DATA_GOLDEN[fused(simd)]]


LARGE_SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import cydrop as cd, numpy as np
from digests import HE, digest
rng = np.random.default_rng(0)
X, y = rng.random((1280, 784), dtype=np.float32), rng.integers(0, 10, 1280)
for n_threads in (1, 2, 3, 4, 7):
    layers = [layer for _ in range(2) for layer in (cd.Dense(512, **HE), cd.ReLU(), cd.Dropout(0.5))]
    net = cd.Network([*layers, cd.Dense(10, **HE)], optimizer=cd.Adam(1e-3), seed=0, n_threads=n_threads)
    net.fit(X, y, epochs=20, batch_size=128, verbose=0)
    print(digest(net))
"""

LARGE_GOLDEN = {
    True: "edd621309a9777c0b13b5811ae7d0198b2b660667e7dd9e622220c3376bbfcd5",
    False: "fdc922f78d7d143a5ed2e4376d055b1a55ff057c92c39720e02aeea13abb05f0",
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_200_steps_of_784_512_512_10_are_the_golden_bits_on_1_2_3_4_and_7_threads(simd):
    assert run(simd, LARGE_SCRIPT).stdout.split() == 5 * [LARGE_GOLDEN[fused(simd)]]


KINDS_SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import cydrop as cd, numpy as np, hashlib
from digests import HE, bytes_of, digest
rng = np.random.default_rng(0)
X, y = rng.standard_normal((300, 90)).astype("f"), rng.integers(0, 10, 300)
for n_threads in (1, 3):
    layers = [
        cd.GaussianNoise(0.1), cd.Dense(150, **HE), cd.BatchNorm(), cd.ReLU(), cd.Dropout(0.5, shared="batch"),
        cd.Dense(130, activation="selu", **HE), cd.AlphaDropout(0.1), cd.Dense(120, drop_connect=0.3, **HE),
        cd.LayerNorm(), cd.Tanh(), cd.GaussianDropout(0.2), cd.Dense(110, **HE), cd.ReLU(),
        cd.Dropout(0.3, shared="batch"), cd.Dense(10, **HE),
    ]
    loss = cd.losses.CrossEntropy(label_smoothing=0.05, r_drop=0.5)
    net = cd.Network(layers, loss=loss, optimizer=cd.Adam(1e-3), seed=0, n_threads=n_threads)
    net.fit(X, y, epochs=3, batch_size=64, verbose=0)
    print(digest(net))
    for how in ("masks", "moments"):
        mc = net.predict_mc(X, 9, seed=1, drop_connect=how, return_samples=True)
        print(hashlib.sha256(bytes_of(mc.samples) + bytes_of(mc.std)).hexdigest())
"""

KINDS_GOLDEN = {
    True: [
        "97c5eb63ab9617a39c379a327bdd9adea4bdce21dacee0c77c743ef3d42e6ef7",  # the weights
        "bd3b4cbc76d5ece139ae71613703dc0376dbd9bd81c1cdf2fcbfb71a1aeaa942",  # samples by masks
        "1fe384620b1d27c00f61d630f1e076810681827aa2c1addf165dbfa27bd57199",  # samples by moments
    ],
    False: [
        "8f43fee2fae73b865769743b35335925fc317cc09c0fc6de0726ce09207676b5",
        "34496a008e5656ea3abc42904ea9790bef711f004cbd4f334bf60626201a3f69",
        "2e8aaaebd0d191f82ec1e4fc08224378cfe84cd946e422b7ff642b5140ec4be2",
    ],
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_every_kind_of_dropout_and_norm_has_its_golden_bits(simd):
    assert run(simd, KINDS_SCRIPT).stdout.split() == 2 * KINDS_GOLDEN[fused(simd)]


BLOCKS_SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import cydrop as cd, numpy as np, hashlib
from digests import HE, bytes_of, digest
rng = np.random.default_rng(0)
X, y = rng.standard_normal((300, 90)).astype("f"), rng.integers(0, 10, 300)
for n_threads in (1, 2, 3):
    layers = [
        cd.Scale(), cd.Dense(150, **HE), cd.Parametric("mish"), cd.Dropout(0.15),
        cd.Residual([cd.Dense(130, activation="mish", **HE), cd.Dropout(0.3), cd.Dense(150, **HE)], drop_path=0.2),
        cd.Parametric("selu"), cd.Dropout(0.15), cd.Dense(120, **HE), cd.Parametric("silu"), cd.Dense(10, **HE),
    ]
    net = cd.Network(layers, optimizer=cd.Adam(1e-3), seed=0, n_threads=n_threads)
    net.fit(X, y, epochs=3, batch_size=64, verbose=0)
    print(digest(net))
    print(hashlib.sha256(bytes_of(net.predict_mc(X, 9, seed=1, return_samples=True).samples)).hexdigest())
"""

BLOCKS_GOLDEN = {
    True: [
        "9fc7b61ef3e422e63c7576db2d5e75b8e28dc0d297b16f1c803047faa5814dfb",  # the weights
        "9505ab7f21a4d552527ba68c3570f2f21e1e619e06ff69f04b508eccccf2670b",  # samples
    ],
    False: [
        "688ac32edef4f68f37fe54f56ca4f8ee107bc6117b2adc89f8e917418eae9e2c",
        "8beae82b267c7237ee3e4c9003d171025c2f72f44da6e7cf915487fb700c5d54",
    ],
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_learned_numbers_and_blocks_have_their_golden_bits_on_1_2_and_3_threads(simd):
    assert run(simd, BLOCKS_SCRIPT).stdout.split() == 3 * BLOCKS_GOLDEN[fused(simd)]


EMBEDDINGS_SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import cydrop as cd, numpy as np
from digests import digest
rng = np.random.default_rng(0)
X, y = rng.standard_normal((700, 23)).astype("f"), rng.integers(0, 10, 700)
X[:, -2:] = rng.integers(0, 40, (700, 2))
for n_threads in (1, 3):
    for kind in ("pbld", "plr", "piecewise_linear"):
        embeddings = [cd.NumericEmbedding(kind, columns=20), cd.Embedding([40, 50], 7)]
        net = cd.Network([*embeddings, cd.Dense(60), cd.ReLU(), cd.Dense(10)], seed=0, n_threads=n_threads)
        net.fit(X, y, epochs=3, batch_size=300, verbose=0)
        print(digest(net))
"""

EMBEDDINGS_GOLDEN = {
    True: [
        "aab529ca085eb6e4d6d03486eeac5a78610ffe989b6bd75ca76c079e8d90f6c9",
        "9c7500f655c947bf577970ff0e08f39c5e8aec2846500b0448129550925b0379",
        "9cfb97464962ac238c1190896765c352b216c68092e7ba102eb7ce83c54c592f",
    ],
    False: [
        "2bb258ba45c22562e02e92bb3ae570d6f15a73a5d50691f2d728f5b90d25a675",
        "0dc256e8d51e3ebe58a07ce2c51c0f372de6897c3bc18fa2991b01e25fb32bc2",
        "356f985dfd8832815299ea7329f253456ab20c697d3604c364f01cdef3c471aa",
    ],
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_every_kind_of_embedding_has_its_golden_bits(simd):
    assert run(simd, EMBEDDINGS_SCRIPT).stdout.split() == 2 * EMBEDDINGS_GOLDEN[fused(simd)]


ENSEMBLE_SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import cydrop as cd, numpy as np, hashlib
from digests import bytes_of
rng = np.random.default_rng(0)
X, y = rng.standard_normal((700, 20)).astype("f"), rng.standard_normal(700)
for n_threads in (1, 3):
    layers = [cd.Dense(60), cd.ReLU(), cd.Dropout(0.3), cd.Dense(2)]
    ensemble = cd.Ensemble([cd.Network(layers, loss="gaussian_nll", seed=seed) for seed in range(5)])
    ensemble.n_threads = n_threads
    for how in (dict(bootstrap=True), dict(folds=5)):
        ensemble.fit(X, y, seed=1, epochs=2, patience=5, n_threads=n_threads, verbose=0, **how)
        mc = ensemble.predict_mc(X, 9, seed=1)
        for array in (ensemble.oof_predictions, ensemble.predict(X), mc.total, mc.aleatoric, mc.epistemic):
            print(hashlib.sha256(bytes_of(array)).hexdigest()[:16])
"""

ENSEMBLE_GOLDEN = {
    True: [
        "74ab8fcc060c2ed0",  # out-of-bag
        "c0c38f206dba080f",  # predictions
        "a501b4cfdd1abe93",  # total
        "bc1b554199d1fe22",  # aleatoric
        "4808da71e356a58e",  # epistemic
        "647f456ebd6d3972",  # the same of folds
        "5b14a2590eaa0740",
        "10136b7fadbe0451",
        "0452268f16fa21c0",
        "d904bb07383c259d",
    ],
    False: [
        "08740c0dc95516ff",
        "ab32eeec8f966846",
        "34dd7bae7f3aa970",
        "d23ca3c112658a53",
        "d25c6cb616a2d877",
        "c3a062b30c43145e",
        "56073fcc45d65589",
        "ed4be48f7911ea34",
        "ad3effb57249d135",
        "5aca90147666c33f",
    ],
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_ensembles_have_their_golden_bits(simd):
    assert run(simd, ENSEMBLE_SCRIPT).stdout.split() == 2 * ENSEMBLE_GOLDEN[fused(simd)]


def test_both_kinds_of_bits_are_the_same_weights_up_to_rounding():
    """Without the fused instruction a step rounds differently: the same in kind, not in bits."""
    kinds = {fused(simd): simd for simd in cd.show_config()["simd_available"]}
    if len(kinds) == 1:
        pytest.skip("all instruction sets of this machine and build have the same kind of bits")
    script = SCRIPT.split("for ")[0] + "net, X = trained(1, 'tanh', 'sgd'); print(*net.predict(X).ravel())"
    outputs = [np.array(run(simd, script).stdout.split(), dtype=float) for simd in kinds.values()]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=2e-5)


def test_an_unknown_instruction_set_is_refused_by_name():
    environment = {**os.environ, "CYDROP_SIMD": "avx1024"}
    done = subprocess.run([sys.executable, "-c", "import cydrop"], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "CYDROP_SIMD='avx1024'" in done.stderr


def test_two_networks_trained_in_two_python_threads_get_the_bits_that_they_get_alone():
    expected = digest(trained(2)[0])
    results = []
    workers = [threading.Thread(target=lambda: results.append(digest(trained(2)[0]))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [expected, expected]


def test_many_python_threads_predict_with_one_network_at_once():
    net, X = trained(2)
    expected, results = net.predict(X), []
    workers = [
        threading.Thread(target=lambda: results.append(all((net.predict(X) == expected).all() for _ in range(20))))
        for _ in range(6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [True] * 6


# What LLVM's OpenMP does in a child; scikit-learn sets FALSE when it is imported. Others' do not read it.
CARE_FOR_FORKS = pytest.mark.parametrize("care", [None, "FALSE", "off", "TRUE"])


def run_forking(script, care):
    environment = {name: value for name, value in os.environ.items() if name != "KMP_INIT_AT_FORK"}
    environment |= {} if care is None else {"KMP_INIT_AT_FORK": care}
    begin = f"import os, sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
    command = [sys.executable, "-W", "ignore", "-c", begin + script]
    subprocess.run(command, check=True, timeout=120, env=environment)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@CARE_FOR_FORKS
def test_a_child_forked_after_training_and_prediction_can_train_and_predict(care):
    script = """
import threading
from digests import digest, trained
net, X = trained(2)
net.predict(X)
def good():
    net.predict(X)
    return digest(trained(2)[0]) == digest(net)
child = os.fork()
if child == 0:
    found = [good()]
    thread = threading.Thread(target=lambda: found.append(good()))
    thread.start()
    thread.join()
    os._exit(0 if found == [True, True] else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not good())
"""
    run_forking(script, care)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@CARE_FOR_FORKS
def test_children_forked_while_another_thread_trains_can_train(care):
    script = """
import signal, threading
from digests import digest, trained
wanted, stop, found = digest(trained(2)[0]), threading.Event(), []
def go_on():
    while not stop.is_set():
        found.append(digest(trained(2)[0]) == wanted)
thread = threading.Thread(target=go_on)
thread.start()
for _ in range(8):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if digest(trained(2)[0]) == wanted else 1)
    found.append(os.waitpid(child, 0)[1] == 0)
stop.set()
thread.join()
sys.exit(not all(found))
"""
    run_forking(script, care)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads from Linux how many threads there are")
def test_where_the_pool_cannot_be_put_to_rest_a_child_trains_on_one_thread_with_the_same_bits():
    script = """
from digests import digest, trained
from cydrop._core import cpu
cpu.before_fork = lambda: False  # as where OpenMP's library is too old
wanted = digest(trained(2)[0])
child = os.fork()
if child == 0:
    same = digest(trained(2)[0]) == wanted
    os._exit(0 if same and len(os.listdir("/proc/self/task")) == 1 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or digest(trained(2)[0]) != wanted)
"""
    run_forking(script, None)


def test_a_rate_of_0_is_bit_identical_to_no_layer_and_shifts_nobody_else():
    def make(extra):
        net = cd.Network(
            [*extra, cd.Dense(30), *extra, cd.ReLU(), *extra, cd.Dropout(0.4), cd.Dense(20), cd.Tanh(), cd.Dropout(0.3),
             cd.Dense(3)], seed=5,
        )  # fmt: skip
        rng = np.random.default_rng(3)
        net.fit(rng.random((200, 8)), rng.integers(0, 3, 200), epochs=2, verbose=0)
        return [array.tobytes() for array in net.parameters().values()]

    assert make([]) == make([cd.Dropout(0.0)])


MEMBERS_SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import cydrop as cd, numpy as np
from digests import digest
rng = np.random.default_rng(0)
X, y = rng.random((500, 90), dtype=np.float32), rng.integers(0, 10, 500)
for sharing in ("mini", "tabm", "packed"):
    for n_threads in (1, 3):
        inside = [cd.Dense(100, activation="relu"), cd.Dropout(0.3), cd.Dense(70, activation="mish"), {drop}]
        layers = [cd.NumericEmbedding("plr", columns=4), cd.Members([*inside, cd.Dense(10)], 8, sharing=sharing)]
        net = cd.Network(layers, optimizer="adamw", seed=11, n_threads=n_threads)
        net.fit(X, y, epochs=3, batch_size=100, verbose=0)
        print(digest(net))
"""
MEMBERS_GOLDEN = {
    True: [
        "d9a38f67bacfe4ea5aa34e32f6f125a9a70fcef0fed5bead174c34299bde21da",
        "e26bb66568adda18aac35d994ecd6498947a31549518d24448b7e3562d2e9e75",
        "68066b954d9d6cf19cc87b7098fab34efb71a83be4401df9fd1858a505893571",
    ],
    False: [
        "31d8b29c050a6df6745ee3a93d97dd04a3b0d7764c248b13592a7af457400fd6",
        "8c6ff7bda8069cc0b725334a53c5ad2108788bc3117071f12b6d2c1a3d688c52",
        "707b77b48764109d457b5715909795e6a894110f0791d698110018b5b2b771ab",
    ],
}
MEMBERS_SHARED_GOLDEN = {
    True: [
        "2f2594a1e09c8a4aebba7f1571a3b1b86ec022a972c4d1480402d1b712f7d52e",
        "9eaac47d391c80a7f640bb86e2850bcd7763903dc8854548ff1980bdebd8ad8e",
        "1d04daad6c7589abe3347cc8a9cba92ff768d99f876912d4c2b46a96a8e1a0b5",
    ],
    False: [
        "a4d3109c477f9054d37601d2230463069e73ca0460b7384d9075fa99f7b4d2ee",
        "5a6600d195e4c5ac58d297803a0059d55d8e361e86e2f415d1a13a62a26a784d",
        "f25d612497e0af872cce902d3ebcbc3fd00f8c3a6c260c145dd59c7c1a957934",
    ],
}


@pytest.mark.parametrize("simd", cd.show_config()["simd_available"])
def test_trained_members_are_the_golden_bits_with_every_instruction_set(simd):
    for drop, golden in (
        ("cd.Dropout(0.1)", MEMBERS_GOLDEN),
        ('cd.Dropout(0.5, shared="batch")', MEMBERS_SHARED_GOLDEN),
    ):
        assert (
            run(simd, MEMBERS_SCRIPT.replace("{drop}", drop)).stdout.split()
            == np.repeat(golden[fused(simd)], 2).tolist()
        )
