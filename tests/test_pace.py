"""When a pool of threads rests on a machine that others use, too: decided by what batches took, played here."""

import numpy as np
import pytest

from cydrop._core import cpu

ONE = 2e-3  # seconds of a batch on one thread
BATCHES = 4000


def took(all_threads, one=None):
    """Seconds of each batch, as decided batch by batch."""
    found = np.empty(BATCHES)
    cpu.paced(np.full(BATCHES, ONE) if one is None else one, all_threads, found)
    return found


def of_all_threads(rng, good, bad, share, run=1):
    """Batches on all threads, of which a share takes `bad`, so many in a row."""
    return np.where(np.repeat(rng.random(BATCHES // run) < share, run), bad, good)


def test_threads_that_help_are_used():
    found = took(np.full(BATCHES, 0.6 * ONE))
    assert (found == ONE).sum() == 1  # to know what one takes


@pytest.mark.parametrize("gain", [0.5, 0.8])
def test_a_loss_now_and_then_is_forgiven(gain):
    """A processor that goes away for four milliseconds, ten times a second."""
    all_threads = of_all_threads(np.random.default_rng(0), gain * ONE, ONE + 4e-3, 0.02)
    assert took(all_threads).sum() < 1.1 * all_threads.sum()


@pytest.mark.parametrize("bad", [1.5 * ONE, 4 * ONE, 50 * ONE])
def test_threads_that_only_hinder_cost_little(bad):
    trials = 11  # resting twice as long after each, up to 1.6 s, in these 8 s
    assert took(np.full(BATCHES, bad)).sum() < BATCHES * ONE + max(0.4, trials * bad)


@pytest.mark.parametrize("run", [1, 4, 40])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("bad", [2 * ONE, 6 * ONE])
def test_it_takes_little_longer_than_the_better_of_both(bad, share, run):
    """A machine that others use: all threads are half as long for a while, then they wait for the one that lost its
    turn."""
    all_threads = of_all_threads(np.random.default_rng(1), 0.5 * ONE, bad, share, run)
    found = took(all_threads).sum()
    assert found < 1.05 * BATCHES * ONE
    assert found < 1.2 * all_threads.sum()


def test_one_thread_that_becomes_slower_is_noticed():
    one = np.r_[np.full(BATCHES // 2, ONE), np.full(BATCHES // 2, 3 * ONE)]
    all_threads = np.full(BATCHES, 1.5 * ONE)
    late = took(all_threads, one)[-BATCHES // 4 :]
    assert late.sum() < 1.1 * all_threads[-BATCHES // 4 :].sum()
