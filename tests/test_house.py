"""The house: modules import downwards and never in a circle, no file is long, what is private stays private.

The sources are read, not run (`__all__` apart), so that imports inside functions and under TYPE_CHECKING, cimports and
the stubs count as well. A module is all of its files: .py, or .pyx with its .pxd and .pyi.
"""

import ast
import functools
import importlib
import re
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "cydrop"

# From the face down to the ground: a module imports only what stands below it. A package is one entry.
ORDER = [
    "__main__", "__init__",
    "tabular",
    "sklearn", "onnx", "exchange",
    "ensemble",
    "many",
    "network",
    "quantization",
    "distributed",
    "callbacks", "plot", "metrics", "monte_carlo", "saving", "layers",
    "functional", "_run", "calibration",
    "history", "losses", "optimizers", "schedules",
    "xorshift", "config", "datasets",
    "reference",
    "_base", "_core",
    "data", "errors", "_version",
]  # fmt: skip

LONGEST = 500  # lines of a file
SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".h"}
NAMEDTUPLE = {"_replace", "_asdict", "_fields", "_make"}  # public, spelled so that a field cannot have their name


# Reading ----------------------------------------------------------------------------------------------------

LITERAL = re.compile(r"""("{3}|'{3})(?:\\.|(?!\1).)*\1|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*""", re.DOTALL)
FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(?:\(([^)]*)\)|([^\n]*))", re.MULTILINE)
IMPORT = re.compile(r"^[ \t]*c?import[ \t]+([^\n]+)", re.MULTILINE)


def files(package):
    return sorted(path for path in package.rglob("*") if path.suffix in SUFFIXES)


def module_of(path, package):
    *folders, last = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(folders if last == "__init__" else [*folders, last])


def modules(package):
    """Name -> the files of a module."""
    found = {}
    for path in files(package):
        if path.suffix != ".h":
            found.setdefault(module_of(path, package), []).append(path)
    return found


@functools.cache
def code(path):
    """The text of a Cython file without strings and comments, its continued lines joined."""
    return LITERAL.sub('""', path.read_text(encoding="utf-8")).replace("\\\n", " ")


def is_python(path):
    return path.suffix in (".py", ".pyi")


@functools.cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path, module):
    """(module, name in it or None) of every import in a file."""
    parent = module if path.stem == "__init__" else module.rpartition(".")[0]
    if not is_python(path):
        text = code(path)
        for source, some, rest in FROM.findall(text):
            for name in (some or rest).replace("\n", " ").split(","):
                if name.split():
                    yield source, name.split()[0]
        for names in IMPORT.findall(text):
            for name in names.split(","):
                yield name.split()[0], None
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = parent.split(".")
                source = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
            yield from ((source, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((word.value, None) for word in node.args[:1] if isinstance(word, ast.Constant))


def imports(package):
    """Module -> the modules of the package that it imports. That a package's __init__ runs before its modules, whoever
    imports them, does not count."""
    names = modules(package)
    graph = {module: set() for module in names}
    for module, paths in names.items():
        for path in paths:
            for source, name in imported(path, module):
                target = f"{source}.{name}" if f"{source}.{name}" in names else source
                if target in names and target != module:
                    graph[module].add(target)
    return graph


# The rules: each returns what breaks it ---------------------------------------------------------------------


def circles(package):
    """Modules that reach each other."""
    graph = imports(package)

    def reach(start):
        seen, waiting = set(), [start]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    reached = {module: reach(module) for module in graph}
    groups = {
        tuple(sorted(other for other in seen if module in reached[other]))
        for module, seen in reached.items()
        if module in seen
    }
    return {f"{', '.join(group)} import each other in a circle" for group in groups}


def climbs(package, order):
    """Imports that do not run down the order."""

    def entry(module):
        return module.split(".")[1] if "." in module else "__init__"

    rank = {name: place for place, name in enumerate(order)}
    graph = imports(package)
    entries = {entry(module) for module in graph}
    found = {f"{name} is not in ORDER" for name in entries - set(order)}
    found |= {f"{name} is in ORDER, but there is no such module" for name in set(order) - entries}
    return found | {
        f"{module} imports {other}, which does not stand below it"
        for module, others in graph.items()
        for other in others
        if entry(module) != entry(other)
        and {entry(module), entry(other)} <= set(order)
        and rank[entry(module)] > rank[entry(other)]
    }


def long_files(package, most=LONGEST):
    return {
        f"{path.relative_to(package.parent)} has more than {most} lines"
        for path in files(package)
        if len(path.read_text(encoding="utf-8").splitlines()) > most
    }


def is_private(name):
    return name.startswith("_") and name.strip("_") != "" and not (name.startswith("__") and name.endswith("__"))


BY_NAME = {"getattr", "hasattr", "setattr", "delattr", "__getattribute__", "__setattr__", "__delattr__"}


def private_in_python(parsed):
    """(names that are defined, what is used: "name" or "expression.name") in a Python file. A definition is a def, a
    class, an assignment or annotation, also of an attribute of self or cls, and a name in __slots__."""
    defined, used = set(), set()
    for node in ast.walk(parsed):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            own = isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in ("self", "cls")
            (defined if own else used).add(node.attr if own else ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in BY_NAME:
            words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            own = node.args and ast.unparse(node.args[0]) in ("self", "cls") and "set" in ast.unparse(node.func)
            (defined if own else used).update(words)
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__slots__" for target in node.targets):
            defined.update(part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))
    return defined, used


def private_in_cython(text):
    """The same in Cython code, which is read word by word: what no dot precedes is a definition, if not imported."""
    taken = {name for _, some, rest in FROM.findall(text) for name in re.findall(r"\b_\w+", some or rest)}
    defined = set(re.findall(r"(?<![\w.])_\w+", FROM.sub("", text))) | set(re.findall(r"\bself\.(_\w+)\s*=[^=]", text))
    return defined - taken, set(re.findall(r"[\w.]*\.\s*_\w+", text))


def private_uses(package):
    """Names with an underscore that a module uses and does not define. Modules and packages may begin with one."""
    names = modules(package)
    found = set()
    for module, paths in names.items():
        defined, used = set(), set()
        for path in paths:
            here = private_in_python(tree(path)) if is_python(path) else private_in_cython(code(path))
            defined |= here[0]
            used |= here[1] | {f"{source}.{name}" for source, name in imported(path, module) if name}
        for use in used:
            name = use.rpartition(".")[2].strip()
            is_module = any(f".{other}".endswith(f".{use}") for other in names)
            if is_private(name) and not is_module and name not in defined | NAMEDTUPLE:
                found.add(f"{module} uses {name}, which it does not define")
    return found


def faces(package):
    """Public modules whose `__all__` is not what is there."""
    found = set()
    for name, paths in modules(package).items():
        if any(part.startswith("_") for part in name.split(".")):
            continue
        body = tree(next(path for path in paths if is_python(path))).body
        if all(isinstance(node, ast.Expr) for node in body):  # a docstring at most
            continue
        module = importlib.import_module(name)
        if not hasattr(module, "__all__"):
            found.add(f"{name} has no __all__")
            continue
        definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        there = {node.name for node in body if isinstance(node, definitions) and not node.name.startswith("_")}
        listed = list(module.__all__)
        found |= {f"{name}.{other} is not in __all__" for other in there - set(listed)}
        found |= {f"{name}.__all__ names {other}, which is not there" for other in listed if not hasattr(module, other)}
        found |= {f"{name}.__all__ names {other} twice" for other in listed if listed.count(other) > 1}
    return found


# This house -------------------------------------------------------------------------------------------------

RULES = {
    "circle": circles,
    "order": lambda package: climbs(package, ORDER),
    "length": long_files,
    "private": private_uses,
    "face": faces,
}


def broken(rule):
    """A line each."""
    return "\n".join(sorted(RULES[rule](PACKAGE)))


def test_no_modules_import_each_other_in_a_circle():
    assert broken("circle") == ""


def test_imports_run_down_the_order():
    assert broken("order") == ""


def test_no_file_is_long():
    assert broken("length") == ""


def test_nobody_uses_a_private_name_of_another_module():
    assert broken("private") == ""


def test_all_of_every_public_module_is_what_is_there():
    assert broken("face") == ""


# Made-up houses, each of which breaks one rule --------------------------------------------------------------


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Writes files into a package `house` and returns its folder."""
    monkeypatch.syspath_prepend(tmp_path)

    def build(texts):
        package = tmp_path / "house"
        for name, text in {"__init__.py": "", **texts}.items():
            path = package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return package

    yield build
    for name in [name for name in sys.modules if name.split(".")[0] == "house"]:
        del sys.modules[name]


UP = [
    "import house.up",
    "from house import up",
    "from house.up import x",
    "from .up import x",
    "from . import up",
    "def f():\n    from house import up",
    "if TYPE_CHECKING:\n    from house.up import (\n        x,\n        y,\n    )",
    "import importlib\nup = importlib.import_module('house.up')",
]
UP_IN_CYTHON = [
    "cimport house.up",
    "import house.up as other",
    "from house cimport up as other",
    "from house.up cimport x",
    "from house.up import x  # a comment",
    "cdef int f():\n    from house.up cimport (\n        x,  # why\n        y,\n    )",
    "from house.up cimport x, \\\n    y",
]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        *((".py", text) for text in UP),
        *((".pyx", text) for text in UP_IN_CYTHON),
        (".pxd", UP_IN_CYTHON[0]),
        (".pyi", UP[2]),
    ],
)
def test_every_kind_of_import_is_seen(build, suffix, text):
    package = build({"up.pyx": "from house cimport down", f"down{suffix}": text})
    assert circles(package) == {"house.down, house.up import each other in a circle"}
    assert climbs(package, ["__init__", "up", "down"]) == {"house.down imports house.up, which does not stand below it"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("down.py", "'''\nimport house.up\n'''\n# import house.up"),
        ("down.pyx", "'''\nimport house.up\n'''\n# cimport house.up"),
    ],
)
def test_an_import_in_a_string_or_a_comment_is_none(build, name, text):
    package = build({"up.py": "from house import down", name: text})
    assert not circles(package)
    assert not climbs(package, ["__init__", "up", "down"])


def test_a_circle_through_three_modules_of_a_package_is_found(build):
    package = build({
        "p/__init__.py": "from house.p import a", "p/a.py": "from house.p.b import x", "p/b.py": "import house.p.c",
        "p/c.py": "def f():\n    from house.p import a", "q.py": "from house.p.a import y",
    })  # fmt: skip
    assert circles(package) == {"house.p.a, house.p.b, house.p.c import each other in a circle"}
    assert not climbs(package, ["__init__", "q", "p"])


def test_a_module_of_the_face_may_not_be_imported_from_below(build):
    package = build({"__init__.py": "from house import down", "down.py": "from house import Face"})
    assert climbs(package, ["__init__", "down"]) == {"house.down imports house, which does not stand below it"}


def test_the_order_names_every_module_and_no_other(build):
    assert climbs(build({"a.py": ""}), ["__init__", "b"]) == {
        "a is not in ORDER",
        "b is in ORDER, but there is no such module",
    }


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_a_line_too_many_is_found(build, suffix):
    package = build({f"long{suffix}": 501 * "\n", f"short{suffix}": 500 * "\n"})
    assert long_files(package) == {f"house/long{suffix} has more than 500 lines"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "from house.b import _x"),
        ("a.py", "from house import b\nb._x()"),
        ("a.py", "class A(B):\n    def f(self):\n        return self._x"),
        ("a.py", "def f(other):\n    other._x = 1"),
        ("a.py", "getattr(object(), '_x', None)"),
        ("a.pyi", "from house.b import _x"),
        ("a.pyx", "from house.b cimport y, _x\n_x()"),
        ("a.pyx", "cdef f(other):\n    return other._x"),
        ("a.pxd", "from house.b cimport (\n    y,\n    _x,\n)"),
    ],
)
def test_a_private_name_of_another_module_is_found(build, name, text):
    assert private_uses(build({name: text})) == {"house.a uses _x, which it does not define"}


@pytest.mark.parametrize("name", ["a.py", "a.pyx"])
def test_an_attribute_with_the_name_of_a_private_module_is_found(build, name):
    assert private_uses(build({name: "def f(other):\n    return other._x", "_x.py": ""}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "def f(a):\n    return a._x\nclass A:\n    def _x(self): pass"),
        ("a.py", "class A:\n    _x: int\ndef f(a): return a._x"),
        ("a.py", "class A:\n    __slots__ = ('_x',)\n    def f(self): return self._x"),
        ("a.py", "class A:\n    def f(self):\n        self._x = 1\n    def g(self, other): return other._x"),
        ("a.py", "class A:\n    def f(self):\n        object.__setattr__(self, '_x', 1)\n        return self._x"),
        ("a.py", "from house import _x\n_x.y, house._x.y, a.__class__, a._replace()"),
        ("a.pyx", "cdef class A:\n    cdef int _x\n    def f(self, A a):\n        return a._x  # b._y"),
        ("a.pyx", "class A:\n    def f(self):\n        self._x = 'b._y'\n        return self._x"),
    ],
)
def test_a_private_name_of_the_module_itself_is_not(build, name, text):
    assert not private_uses(build({name: text, "_x.py": ""}))


def test_what_all_lacks_or_invents_is_found(build):
    package = build({
        "__init__.py": "__all__ = ['lazy', 'nowhere']\ndef __getattr__(name):\n    if name == 'lazy': return 1\n"
        "    raise AttributeError(name)",
        "a.py": "def f(): pass",
        "b.py": "__all__ = ['f', 'f']\ndef f(): pass\nclass C: pass\ndef _g(): pass",
        "_c.py": "def f(): pass",
        "p/__init__.py": "from house.b import *\nfrom house.b import __all__ as __all__",
        "data/__init__.py": "'''Files alone.'''",
    })  # fmt: skip
    assert faces(package) == {
        "house.__all__ names nowhere, which is not there",
        "house.a has no __all__",
        "house.b.C is not in __all__",
        "house.b.__all__ names f twice",
        "house.p.__all__ names f twice",
    }
