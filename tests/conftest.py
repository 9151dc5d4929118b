"""What all test files share: one way to make data, and hypothesis settings that repeat the same examples."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # before SciPy's import: without it scikit-learn skips a check

settings.register_profile("cydrop", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("cydrop")

CORE = {
    f"test_{line}.py"
    for line in Path(__file__).with_name("core.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
}


def pytest_addoption(parser):
    parser.addoption("--core", action="store_true", help="of folders the files of tests/core.txt, no `extras`")
    parser.addoption("--every", type=int, default=1, metavar="N", help="each N-th test alone, where all take too long")


def pytest_ignore_collect(collection_path, config):
    named = {Path(argument.partition("::")[0]).absolute() for argument in config.args}
    left_out = collection_path.suffix == ".py" and collection_path.name not in CORE and collection_path not in named
    return True if config.getoption("--core") and left_out else None  # None: pytest and other plugins decide


def pytest_collection_modifyitems(config, items):
    chosen = [item for item in items if not (config.getoption("--core") and item.get_closest_marker("extras"))]
    chosen = chosen[:: config.getoption("--every")]
    if len(chosen) < len(items):
        kept = set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = chosen


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)


@pytest.fixture
def images(tmp_path, rng):
    """A folder of IDX files with random images of three classes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for split, count in (("train", 120), ("t10k", 40)):
        labels = np.arange(count) % 3
        pixels = rng.integers(0, 100, size=(count, 6, 5)) + 70 * labels[:, None, None]
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
            (folder / f"{split}-{kind}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    return folder
