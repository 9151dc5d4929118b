"""Stands for a package that has no wheel for this Python: whatever is made of it skips the test that asks, by name.

`tools/freethreaded_python` puts it where the package would be.
"""

import os


class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class Missing(metaclass=Anything):
    def __init__(self, *args, **kwargs):
        skip()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        skip()
        return self


def skip():
    if "PYTEST_CURRENT_TEST" in os.environ:  # and not while tests are collected
        import pytest

        pytest.skip(f"{__name__} has no wheel for this Python")


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Missing
