"""Networks from and to other libraries: PyTorch's `Sequential` and its state dict, scikit-learn's MLP.

Names in a state dict are numbered as the modules of the Sequential that `to_torch` makes. A dense layer with an
activation is two modules there, every other layer is one:

    [Dense(64, activation="relu"), Dropout(0.5), Dense(10)]
     Linear 0, ReLU 1              Dropout 2     Linear 3        ->   0.weight  0.bias  3.weight  3.bias

State dicts are plain arrays, so neither side needs the other's library installed. PyTorch's weight of a linear layer is
(units, inputs), cydrop's (inputs, units).
"""

from __future__ import annotations

import importlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cydrop import losses, optimizers
from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._run.core import core_of
from cydrop.layers import KNOWN, Dense, Dropout, Layer, resolve_activation
from cydrop.layers.norms import UNCOUNTED
from cydrop.network import Network, check_network
from cydrop.schedules import Rate

__all__ = ["from_sklearn", "from_torch", "load_state_dict", "to_state_dict", "to_torch"]

LAYERS = {cls.torch_name: cls for cls in KNOWN.values() if cls.torch_name}
LINKS = {name: cls for cls in losses.KNOWN.values() for name in cls.torch_links}
COUNTER = f".{UNCOUNTED}"

_SKLEARN_ACTIVATIONS = {"identity": None, "relu": "relu", "tanh": "tanh", "logistic": "sigmoid"}
_SKLEARN_LOSSES = {"softmax": "cross_entropy", "logistic": "binary_cross_entropy", "identity": "mse"}


# State dicts -------------------------------------------------------------------------------------------------


def to_state_dict(net: Network) -> OrderedDict[str, NDArray[Any]]:
    """Weights and running statistics under PyTorch's names and in its layout.

    Parameters
    ----------
    net : Network
        Built. Layers that PyTorch does not have are no obstacle: they have no weights, but they do count.

    Returns
    -------
    OrderedDict of str to ndarray
        Copies. float32: "0.weight" (units, inputs) and "0.bias" (units,) of a dense layer; "weight" and "bias" of a
        normalisation, of BatchNorm also "running_mean", "running_var" and, int64, "num_batches_tracked", which is 0
        because cydrop does not count it. Numbers are those of the Sequential that `to_torch` makes: a dense layer with
        an activation takes two.

    Raises
    ------
    RuntimeError
        For a network that is not built.

    Examples
    --------
    >>> import cydrop as cd
    >>> layers = [cd.Dense(8, activation="relu"), cd.Dropout(0.5), cd.Dense(3)]
    >>> state = cd.exchange.to_state_dict(cd.Network(layers, seed=0).build(4))
    >>> {name: array.shape for name, array in state.items()}
    {'0.weight': (8, 4), '0.bias': (8,), '3.weight': (3, 8), '3.bias': (3,)}

    In PyTorch, `module.load_state_dict({name: torch.from_numpy(array) for name, array in state_dict.items()})`.
    """
    check_network(net)
    views = core_of(net).made("a state dict").arrays()
    _check_named(net.layers, views, _names(net.layers).values())
    result: OrderedDict[str, NDArray[Any]] = OrderedDict()
    for name, ours in _names(net.layers).items():
        if name.endswith(COUNTER):
            result[name] = np.array(0, dtype=np.int64)
        else:
            result[name] = np.array(views[ours].T, order="C")  # of a vector .T is itself
    return result


def load_state_dict(net: Network, state_dict: Mapping[str, Any]) -> None:
    """Takes over weights and running statistics from a state dict with the names and the layout of PyTorch.

    Parameters
    ----------
    net : Network
        With the same layers; where it is not built, the number of features is that of the first weight. The optimizer's
        moments start afresh, random state and history stay.
    state_dict : mapping of str to array-like
        As `to_state_dict` gives it: PyTorch tensors, NumPy arrays (from a safetensors file, for example) or lists, of
        any precision. "num_batches_tracked" is not used and may be left out.

    Raises
    ------
    ValueError
        For entries that are missing or unexpected, have a wrong shape, are not finite, or are running variances below
        0: all are named, and the network is unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> import cydrop as cd
    >>> net = cd.Network([cd.Dense(1)], loss="mse")
    >>> cd.exchange.load_state_dict(net, {"0.weight": [[1.0, 2.0]], "0.bias": [0.5]})
    >>> net.predict([[10.0, 100.0]])
    array([[210.5]], dtype=float32)
    """
    check_network(net)
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a mapping of names to arrays, got {type(state_dict).__name__}")
    _load(net, state_dict, "state_dict")


def _load(net: Network, state_dict: Mapping[str, Any], what: str) -> None:
    """`what` is the argument that errors name."""
    names = _names(net.layers)
    wanted = {name: ours for name, ours in names.items() if not name.endswith(COUNTER)}
    problems = [f"{name} is missing" for name in wanted if name not in state_dict]
    problems += [f"{name} is unexpected" for name in state_dict if name not in names]
    arrays: dict[str, Floats] = {}
    for name in wanted:
        if name in state_dict:
            try:
                arrays[name] = _floats(name, state_dict[name])
            except (ValueError, TypeError) as error:
                problems.append(str(error))
    n_features = _n_features(net, wanted, arrays)
    if n_features is not None:
        plan = core_of(net).plan_for(n_features)
        shapes = {parameter.name: parameter.shape[::-1] for parameter in [*plan.parameters, *plan.buffers]}
        _check_named(net.layers, shapes, wanted.values())
        for name, array in arrays.items():
            if array.shape != shapes[wanted[name]]:
                problems.append(f"{name} must have shape {shapes[wanted[name]]}, got {array.shape}")
    elif not wanted:
        problems.append("the network has no weights that say how many columns X has: call build(n_features) first")
    if problems:
        raise ValueError(f"{what} does not fit the network: {'; '.join(problems)}")
    assert n_features is not None
    net.build(n_features)
    core_of(net).take_over({ours: arrays[name].T for name, ours in wanted.items()})


def _names(layers: Sequence[Layer]) -> dict[str, str]:
    """The names in a state dict of these layers, in PyTorch's order, each with cydrop's name of it."""
    names: dict[str, str] = {}
    number = 0
    for place, layer in enumerate(layers):
        names |= {f"{number}.{theirs}": f"{place}.{ours}" for theirs, ours in layer.tensor_names().items()}
        number += 2 if layer.activated else 1
    return names


def _check_named(layers: Sequence[Layer], arrays: Iterable[str], named: Iterable[str]) -> None:
    """Raises for arrays that a state dict has no names for: they would be missing without a word."""
    for name in sorted(set(arrays) - set(named)):
        place, _, own = name.partition(".")
        layer = layers[int(place)]
        hint = "" if type(layer) in KNOWN.values() else "; its class needs a method tensor_names"
        raise ValueError(f"layers[{place}] is {layer!r}: a state dict has no name for its {own}{hint}")


def _n_features(net: Network, wanted: dict[str, str], arrays: dict[str, Floats]) -> int | None:
    """Columns of X: the last axis of the first weight, be it a linear layer's or a normalisation's."""
    plan = core_of(net).plan
    if plan is not None:
        return plan.n_features
    first = arrays.get(next(iter(wanted), ""))
    if first is None:
        return None
    return first.shape[-1] or 1 if first.ndim else 1  # without a column its shape is wrong, and named below


def _floats(name: str, value: Any) -> Floats:
    """A finite float32 array from a tensor, an array or a list; variances are not negative."""
    if hasattr(value, "detach"):  # a PyTorch tensor: on any device, of any precision
        value = value.detach().cpu().float().numpy()
    elif getattr(getattr(value, "dtype", None), "name", None) == "bfloat16":  # no number to NumPy's own casts
        value = value.astype(np.float32)
    array = checks.floats(name, value)
    if name.endswith("running_var") and (array < 0).any():
        raise ValueError(f"{name} must not be negative, got {array.min()}")
    return array


# PyTorch -----------------------------------------------------------------------------------------------------


def to_torch(net: Network) -> Any:
    """The network as a `torch.nn.Sequential` in eval mode.

    Its outputs are the raw ones, those of `Network.forward`, before the loss's link: PyTorch's losses take logits.
    For probabilities append `torch.nn.Softmax(dim=1)` or `torch.nn.Sigmoid()`. A rate that follows a schedule takes its
    final value. PyTorch's random state is left as it is. What concerns the optimizer alone stays behind, as the
    learning_rate_factor of a layer: in PyTorch that belongs to the optimizer's parameter groups. ::

        module = cd.exchange.to_torch(net)
        probabilities = torch.softmax(module(torch.from_numpy(X)), dim=1)     # net.predict(X)

    Parameters
    ----------
    net : Network
        Built, usually trained.

    Returns
    -------
    torch.nn.Sequential
        With copies of the weights.

    Raises
    ------
    ImportError
        Without PyTorch (`pip install torch`).
    RuntimeError
        For a network that is not built.
    ValueError
        For what PyTorch has no module for: Dropout with mode="vanilla" or shared="batch", noise but alpha
        dropout, and Dense with max_norm or drop_connect.
    """
    check_network(net)
    if core_of(net).plan is not None:
        _check_torch_has(net.layers)
    state_dict = to_state_dict(net)
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise ImportError("to_torch needs PyTorch: pip install torch") from None
    widths = [math.prod(shape) for shape in core_of(net).made("to_torch").plan.shapes]
    modules: list[Any] = []
    with torch.random.fork_rng(devices=[]):  # modules draw weights, which are replaced below
        for layer, width in zip(net.layers, widths[:-1], strict=True):
            modules += layer.to_torch(torch.nn, width)
    sequential = torch.nn.Sequential(*modules)
    sequential.load_state_dict({name: torch.from_numpy(array) for name, array in state_dict.items()})
    return sequential.eval()


def _check_torch_has(layers: Sequence[Layer]) -> None:
    for place, layer in enumerate(layers):
        missing = layer.missing_in_torch()
        if missing is not None:
            raise ValueError(
                f"layers[{place}] is {layer!r}: PyTorch has no module for {missing}; make a network without it and "
                "take the weights over with to_state_dict and load_state_dict"
            )


def from_torch(
    module: Any,
    *,
    loss: str | losses.Loss,
    optimizer: str | optimizers.Optimizer = "adam",
    seed: seeding.Seed = None,
    n_threads: int | None = None,
) -> Network:
    """A network with the layers and the weights of a `torch.nn.Sequential`.

    The modules may be Linear, Dropout, AlphaDropout, BatchNorm1d, the normalisation of rows over the last axis, and the
    activations that cydrop has under the same names, also in nested Sequentials; Identity, and Flatten at the start
    (X is 2-D already), are left out. ::

        net = cd.exchange.from_torch(module, loss="cross_entropy")
        net.predict(X)      # torch.softmax(module.eval()(torch.from_numpy(X)), dim=1)

    Parameters
    ----------
    module : torch.nn.Sequential
        In training or eval mode, on any device.
    loss : str or loss object
        As for `Network`; the module does not say what it is trained with. The loss includes the last link: a Softmax or
        LogSoftmax at the end is left out for "cross_entropy", a Sigmoid for "binary_cross_entropy". `predict` gives
        probabilities even where the module has LogSoftmax.
    optimizer, seed, n_threads
        As for `Network`.

    Returns
    -------
    Network
        Built, with fresh moments of the optimizer.

    Raises
    ------
    TypeError
        For anything but a Sequential.
    ValueError
        For a module that cydrop has no layer for, with its place, "1.0" being the first in the Sequential at 1; and
        for weights that are not finite and running variances below 0.
    """
    if type(module).__name__ != "Sequential":
        raise TypeError(f"module must be a torch.nn.Sequential, got {type(module).__name__}")
    chosen = losses.resolve(loss)
    found = [(where, child) for where, child in _flattened(module, "") if type(child).__name__ != "Identity"]
    layers: list[Layer] = []
    state_dict: dict[str, Any] = {}
    for number, (where, child) in enumerate(found):
        try:
            layer = _layer(child, chosen, first=not layers, last=number == len(found) - 1)
        except (ValueError, TypeError) as error:
            raise ValueError(f"module {where} is {type(child).__name__}: {error}") from None
        if layer is None:
            continue
        for name in layer.tensor_names():
            if name != UNCOUNTED:
                state_dict[f"{len(layers)}.{name}"] = _floats(f"module {where}: {name}", getattr(child, name))
        layers.append(layer)
    if not state_dict:
        raise ValueError("module has no weights: cydrop cannot know how many columns X has")
    net = Network(layers, loss=chosen, optimizer=optimizer, seed=seed, n_threads=n_threads)
    _load(net, state_dict, "module")
    return net


def _flattened(sequential: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The modules in order, with their places; one that stands at several places comes several times."""
    for number, child in enumerate(sequential):
        if type(child).__name__ == "Sequential":
            yield from _flattened(child, f"{prefix}{number}.")
        else:
            yield f"{prefix}{number}", child


def _layer(module: Any, loss: losses.Loss, *, first: bool, last: bool) -> Layer | None:
    """The layer of a module; None for one that the network does not need. Classes are known by their names."""
    kind = type(module).__name__
    if kind == "Flatten":
        if not first or (module.start_dim, module.end_dim) != (1, -1):
            raise ValueError("cydrop has no such layer; at the beginning, Flatten() is left out")
        return None
    if last and loss.is_link(module):
        return None
    if kind in LINKS and kind not in LAYERS:
        raise ValueError(f"cydrop has it at the end only and over dim=1, as the link of loss={LINKS[kind].name!r}")
    if kind in LINKS and last and loss.torch_links:
        raise ValueError(f"at the end it does not go with loss={loss.name!r}; is it loss={LINKS[kind].name!r}?")
    if kind not in LAYERS:
        raise ValueError(f"cydrop has no such layer; known are {', '.join(LAYERS)}")
    return LAYERS[kind].from_torch(module)


# scikit-learn ------------------------------------------------------------------------------------------------


def from_sklearn(
    mlp: Any,
    *,
    dropout: Rate = 0.0,
    optimizer: str | optimizers.Optimizer = "adam",
    seed: seeding.Seed = None,
    n_threads: int | None = None,
) -> Network:
    """A network with the layers and the weights of scikit-learn's fitted `MLPClassifier` or `MLPRegressor`.

    The loss is "cross_entropy" for several classes, "binary_cross_entropy" for two (with one unit, the probability
    of `classes_[1]`) and for several labels per row, "mse" for regression. Labels for further training are 0..k-1, the
    positions in `mlp.classes_`. The penalty `alpha` is not taken over: give an optimizer with weight_decay.

    Parameters
    ----------
    mlp : MLPClassifier or MLPRegressor
        Fitted. Whatever has the attributes `coefs_`, `intercepts_`, `activation` and `out_activation_` will do.
    dropout : float in [0, 1], or schedule
        Rate of a Dropout layer after every hidden layer, for further training; 0 puts none there. Predictions are the
        same either way.
    optimizer, seed, n_threads
        As for `Network`.

    Returns
    -------
    Network
        Built; `predict` gives what `predict_proba` of the classifier or `predict` of the regressor gives, in float32.

    Raises
    ------
    TypeError
        For anything but an MLP.
    ValueError
        For one that is not fitted, whose weights are not finite, or whose outputs cydrop has no loss for
        (loss="poisson").

    Examples
    --------
    >>> import numpy as np
    >>> import cydrop as cd
    >>> from sklearn.neural_network import MLPRegressor
    >>> X = np.linspace(0, 1, 50).reshape(-1, 1)
    >>> mlp = MLPRegressor(hidden_layer_sizes=[8], solver="lbfgs", random_state=0)
    >>> mlp = mlp.fit(X, X[:, 0] ** 2)
    >>> net = cd.exchange.from_sklearn(mlp)
    >>> bool(np.allclose(net.predict(X)[:, 0], mlp.predict(X), atol=1e-5))
    True
    """
    if not hasattr(mlp, "activation"):
        raise TypeError(f"mlp must be a fitted MLPClassifier or MLPRegressor of scikit-learn, got {type(mlp).__name__}")
    missing = [name for name in ("coefs_", "intercepts_", "out_activation_") if not hasattr(mlp, name)]
    if missing:
        raise ValueError(f"mlp is not fitted ({', '.join(missing)} missing): call its fit first")
    activation = checks.choice("mlp.activation", mlp.activation, _SKLEARN_ACTIVATIONS)
    loss = checks.choice("mlp.out_activation_", mlp.out_activation_, _SKLEARN_LOSSES)
    layers: list[Layer] = []
    state_dict: dict[str, Any] = {}
    for number, (weight, bias) in enumerate(zip(mlp.coefs_, mlp.intercepts_, strict=True)):
        state_dict[f"{len(layers)}.weight"] = np.asarray(weight).T
        state_dict[f"{len(layers)}.bias"] = bias
        layers.append(Dense(len(bias)))
        if number < len(mlp.coefs_) - 1:
            hidden = resolve_activation(activation)
            layers += [hidden] if hidden is not None else []
            layers += [Dropout(dropout)] if dropout != 0 else []
    net = Network(layers, loss=loss, optimizer=optimizer, seed=seed, n_threads=n_threads)
    _load(net, state_dict, "mlp")
    return net
