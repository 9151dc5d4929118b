"""What all test files share: one way to make data, and hypothesis settings that repeat the same examples."""

import os

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # before SciPy's import: without it scikit-learn skips a check

settings.register_profile("cydrop", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("cydrop")


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)
