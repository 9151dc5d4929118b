"""The reference pages name everything that is public, and every docstring names every parameter.

Needs no Sphinx: the pages are read as text. Docstrings' examples run here as well.
"""

import doctest
import importlib.util
import inspect
import pkgutil
import re
import types
from pathlib import Path

import pytest

import cydrop

REFERENCE = (Path(__file__).parent.parent / "docs" / "reference.md").read_text(encoding="utf-8")

# libraries that cydrop does not depend on, but these modules or their examples do
NEEDED = {
    "cydrop.exchange": "sklearn",
    "cydrop.onnx": "onnx",
    "cydrop.plot": "matplotlib",
    "cydrop.sklearn": "sklearn",
    "cydrop.tabular": "sklearn",
}

MODULES = sorted(
    module.name
    for module in pkgutil.iter_modules(cydrop.__path__)
    if not module.name.startswith("_") and importlib.util.find_spec(NEEDED.get(f"cydrop.{module.name}", "numpy"))
)

# modules that hold what `cydrop` itself offers, or serve the others: users do not import them
INSIDE = {
    "calibration", "config", "data", "ensemble", "errors", "saving", "history", "layers", "many", "monte_carlo",
    "network", "quantization", "xorshift",
}  # fmt: skip

# what modules need of one another: not underscored, but nothing that a user calls
PLUMBING = {
    "callbacks": {"Notifier", "checked", "for_verbose", "is_terminal"},
    "many": {"running"},
    "distributed": {"checked", "checked_for_estimator", "team_of", "trainer_of"},
    "losses": {"for_regressor", "from_config", "resolve"},
    "optimizers": {"from_config", "resolve"},
    "schedules": {"from_config", "rate_config", "rate_from_config", "value_at"},
}

# what has no "Parameters" section, and why
EXEMPT = {
    "cydrop.reference": "the functions share names, signatures and docstrings with their twins in cydrop.functional; "
    "the rest is a formula each",
    "cydrop.History.append": "`fit` calls it, with a dict of the epoch's metrics",
    "cydrop.History.begin": "`ReduceLROnPlateau` calls it",
}

WITH_EXAMPLES = {"cydrop", "cydrop.functional", "cydrop.network", "cydrop.xorshift"}  # at least these

HOOKS = {name for name in vars(cydrop.callbacks.Callback) if name.startswith("on_")}  # a table in docs/callbacks.md


def module_of(name):
    return importlib.import_module(f"cydrop.{name}")


def defined_in(name):
    """The public classes and functions that a module defines."""
    return {
        key: value
        for key, value in vars(module_of(name)).items()
        if not key.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == f"cydrop.{name}"
        and key not in PLUMBING.get(name, ())
    }


def in_the_pages():
    """Full names that the reference pages hand to autodoc."""
    names = set(re.findall(r"^\.\. auto(?:class|function|exception|module):: (\S+)$", REFERENCE, re.MULTILINE))
    absent = tuple(name for name in NEEDED if name.removeprefix("cydrop.") not in MODULES)
    names = {name for name in names if not name.startswith(absent)}
    for module in re.findall(r"^\.\. automodule:: cydrop\.(\S+)\n(?: +:.*\n)* +:members:$", REFERENCE, re.MULTILINE):
        if module not in MODULES:
            continue
        names |= {f"cydrop.{module}.{name}" for name in defined_in(module)}
    return names


PUBLIC = sorted(set(MODULES) - INSIDE)
OFFERED = {f"cydrop.{name}": getattr(cydrop, name) for name in cydrop.__all__ if f"cydrop.{name}" not in NEEDED}
OFFERED |= {f"cydrop.{module}.{name}": value for module in PUBLIC for name, value in defined_in(module).items()}
OFFERED = {name: value for name, value in OFFERED.items() if not isinstance(value, types.ModuleType)}


def test_every_public_name_is_in_the_reference_pages():
    names = in_the_pages()
    same = {id(OFFERED[name]) for name in names if name in OFFERED}  # cydrop.SGD is cydrop.optimizers.SGD
    missing = [name for name, value in OFFERED.items() if name not in names and id(value) not in same]
    assert not missing
    assert not [f"cydrop.{module}" for module in PUBLIC if f"cydrop.{module}" not in names]


def test_the_reference_pages_name_nothing_that_is_not_there():
    for name in in_the_pages():
        module, _, last = name.rpartition(".")
        try:
            assert hasattr(importlib.import_module(module or "cydrop"), last) or module_of(last), name
        except ImportError:
            pytest.fail(f"{name} is in docs/reference.md but cannot be imported")


def test_the_lists_of_exceptions_are_up_to_date():
    assert set(MODULES) >= INSIDE
    for module, names in PLUMBING.items():
        assert all(hasattr(module_of(module), name) for name in names)


def sections(text):
    """Names of a NumPy docstring's entries, section by section: "x, y : array" and "x, y" name x and y."""
    found, lines = {}, inspect.cleandoc(text or "").splitlines()
    names = set()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if following and set(following) == {"-"}:
            names = found.setdefault(line.strip(), set())
        elif line and not line.startswith((" ", "-")):
            names |= {part.strip().lstrip("*") for part in line.split(" : ")[0].split(",")}
    return found


def parameters_of(value):
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError):
        return set()
    return set(signature.parameters) - {"self", "cls", "args", "kwargs"}


def documented_things():
    """(name, object) of every public function, class and method that is not exempt; an inherited method once."""
    things = dict(OFFERED)
    for name, value in OFFERED.items():
        for method, function in vars(value).items() if inspect.isclass(value) else ():
            if not method.startswith("_") and inspect.isfunction(function) and method not in HOOKS:
                things[f"{name}.{method}"] = getattr(value, method)
    exempt = tuple(f"{name}." for name in EXEMPT)
    return {name: value for name, value in things.items() if name not in EXEMPT and not name.startswith(exempt)}


THINGS = documented_things()


def test_something_is_documented():
    assert len(THINGS) > 100


@pytest.mark.parametrize("name", THINGS)
def test_every_docstring_names_every_parameter(name):
    value = THINGS[name]
    text = inspect.getdoc(value)
    assert text, f"{name} has no docstring"
    found = sections(text)
    named = found.get("Parameters", set())
    if inspect.isclass(value):
        named = named | found.get("Attributes", set())  # of what the package makes: History, MonteCarlo, DivergedError
    assert parameters_of(value) <= named, f"{name} does not say what {sorted(parameters_of(value) - named)} are"
    assert named <= parameters_of(value) or inspect.isclass(value), f"{name} explains what it does not take"


def test_all_public_things_of_the_exempt_modules_have_docstrings():
    for name, value in OFFERED.items():
        assert inspect.getdoc(value), name


@pytest.mark.parametrize("name", ["cydrop", *(f"cydrop.{module}" for module in MODULES)])
def test_the_examples_of_the_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert not result.failed
    assert result.attempted or name not in WITH_EXAMPLES
