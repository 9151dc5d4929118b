"""The layers: declarations without arrays. A network is a list of them; a layer also works alone.

Alone, `layer.forward(x)` and `layer.backward(dy)` run a network of one layer: there is no second implementation.
"""

from __future__ import annotations

import math
import weakref
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cydrop._base import checks, seeding
from cydrop._base.arrays import Floats
from cydrop._base.declaration import Declaration
from cydrop.optimizers import rate_config, rate_from_config
from cydrop.schedules import Rate, value_at


class Layer(Declaration):
    """Base of the layers. Two layers are equal only if they are the same object."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    # what a layer ran in last is kept beside its options, in its __dict__: neither belongs to what it declares
    _alone: Any = None  # the network of one, once the layer was used alone
    _owner: weakref.ref[Any] | None = None  # the network that last ran this layer in training

    def forward(self, x: ArrayLike, training: bool = True) -> Floats:
        """The layer by itself.

        Parameters
        ----------
        x : array-like, shape (rows, features) or any other with rows first
        training : bool
            Whether dropout drops.

        Returns
        -------
        ndarray of float32; for a layer without weights of the shape of x
        """
        from cydrop.network import Network  # the declaration knows its users only when used alone

        x = checks.floats("x", x)
        if x.ndim == 0:
            raise ValueError("x must have at least one dimension, got a scalar")
        if not x.size:
            raise ValueError(f"x is empty: shape {x.shape}")
        rows = x.reshape(len(x), -1)
        if self._alone is None:
            # one step, so that threads that come first at the same time get the same network
            vars(self).setdefault(
                "_alone", Network([self], loss="mse", optimizer="sgd", seed=getattr(self, "seed", None))
            )
        elif rows.shape[1]:
            vars(self)["_alone"] = self._alone._of_width(rows.shape[1])
        y: Floats = self._alone.forward(rows, training=training)
        return y.reshape(x.shape) if y.shape == rows.shape else y

    def backward(self, dy: ArrayLike) -> Floats:
        """d loss / d x of the last training `forward` of this layer alone.

        Parameters
        ----------
        dy : array-like, of the shape that `forward` returned

        Raises
        ------
        RuntimeError
            Without a training `forward` before.
        """
        if self._alone is None:
            raise RuntimeError("backward needs a forward(x, training=True) of this layer before it")
        dy = checks.floats("dy", dy)
        dx: Floats = self._alone.backward(dy.reshape(len(dy), -1) if dy.ndim else dy)
        return dx.reshape(dy.shape) if dx.size == dy.size else dx

    def config(self) -> dict[str, Any]:
        """Name and options, as saved in a file."""
        return {"layer": type(self).__name__} | self.options()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_alone", "_owner")}


class RandomLayer(Layer):
    """Base of the layers that draw random numbers in training."""

    seed: int | None
    _rate_name: ClassVar[str] = "rate"  # the option that says how much

    def with_rate(self, rate: Rate) -> Self:
        """The same layer with another rate; `Network.set_rate` puts it in the place of this one.

        Parameters
        ----------
        rate : float or schedule
            Of dropout, the standard deviation of noise, a dense layer's drop_connect.

        Returns
        -------
        layer of the same class
        """
        return type(self)(**(self.options() | {self._rate_name: rate}))

    def _instead(self, name: str) -> str:
        return ", or call network.set_rate(place, rate)" if name == self._rate_name else ""

    @property
    def rate_value(self) -> Rate:
        """The number or schedule of the rate, whatever its name."""
        value: Rate = getattr(self, self._rate_name)
        return value

    def rate_at(self, progress: float) -> float:
        """The rate in force.

        Parameters
        ----------
        progress : float in [0, 1]
            Of training.
        """
        return value_at(self._rate_name, self.rate_value, progress, 0.0, 1.0)

    def config(self) -> dict[str, Any]:
        options = super().config()
        options[self._rate_name] = rate_config(self._rate_name, self.rate_value)
        return options


class Activation(Layer):
    """Base of the activations: y = f(z), element by element."""

    code: ClassVar[int]
    alpha: float = 0.0


class ReLU(Activation):
    """max(z, 0) (Nair and Hinton 2010). NaN stays NaN."""

    code = 1


class LeakyReLU(Activation):
    """z where positive, negative_slope z elsewhere (Maas, Hannun and Ng 2013).

    Parameters
    ----------
    negative_slope : float
    """

    code = 2
    _options = ("negative_slope",)
    negative_slope: float

    def __init__(self, negative_slope: float = 0.01) -> None:
        slope = checks.number("negative_slope", negative_slope, single=True)
        self._declare(negative_slope=slope, alpha=slope)


class ELU(Activation):
    """z where positive, alpha (e^z - 1) elsewhere (Clevert, Unterthiner and Hochreiter 2016).

    Parameters
    ----------
    alpha : float
    """

    code = 3
    _options = ("alpha",)

    def __init__(self, alpha: float = 1.0) -> None:
        self._declare(alpha=checks.number("alpha", alpha, single=True))


class SELU(Activation):
    """The self-normalising ELU, with fixed scale 1.0507 and alpha 1.6733 (Klambauer et al. 2017)."""

    code = 4


class GELU(Activation):
    """z Phi(z), with the exact normal distribution function (Hendrycks and Gimpel 2016)."""

    code = 5


class SiLU(Activation):
    """z sigmoid(z), also called swish (Elfwing, Uchibe and Doya 2018)."""

    code = 6


class Tanh(Activation):
    """The hyperbolic tangent."""

    code = 7


class Sigmoid(Activation):
    """1 / (1 + e^-z)."""

    code = 8


class Softplus(Activation):
    """log(1 + e^z) (Dugas et al. 2001)."""

    code = 9


ACTIVATIONS: dict[str, type[Activation]] = {
    "relu": ReLU, "leaky_relu": LeakyReLU, "elu": ELU, "selu": SELU, "gelu": GELU, "silu": SiLU,
    "tanh": Tanh, "sigmoid": Sigmoid, "softplus": Softplus,
}  # fmt: skip

# variance of a weight of each initialisation, as a function of fan-in and fan-out; a uniform one's bound is the root of
# three times it
_VARIANCES = {
    "he": lambda fan_in, fan_out: 2.0 / fan_in,
    "glorot": lambda fan_in, fan_out: 2.0 / (fan_in + fan_out),
    "lecun": lambda fan_in, fan_out: 1.0 / fan_in,
    "torch": lambda fan_in, fan_out: 1.0 / (3.0 * fan_in),
    "glorot_sigmoid": lambda fan_in, fan_out: 2.0 / (3.0 * (fan_in + fan_out)),
}
INITIALIZATIONS = {
    f"{name}_{shape}": (name, shape) for name in ("he", "glorot", "lecun") for shape in ("normal", "uniform")
} | {"torch_uniform": ("torch", "uniform"), "glorot_sigmoid_uniform": ("glorot_sigmoid", "uniform")}
BIAS_INITIALIZATIONS = {"zeros": ("", "zeros")} | INITIALIZATIONS


class Dense(RandomLayer):
    """A fully connected layer, y = f(x W + b).

    Parameters
    ----------
    units : int >= 1
        Number of outputs. The weight has shape (inputs, units), the bias (units,).
    activation : str, activation layer or None
        f; by name "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus".
    bias : bool
        Whether b is there. It is never dropped.
    weight_init : str
        How W is drawn: "glorot_uniform" (Glorot and Bengio 2010: within sqrt(6 / (inputs + units))), "glorot_normal",
        "he_normal" (He et al. 2015), "he_uniform", "lecun_normal", "lecun_uniform"; "torch_uniform", PyTorch's default
        (within 1 / sqrt(inputs)), and "glorot_sigmoid_uniform", which scikit-learn's MLP takes for "logistic" (within
        sqrt(2 / (inputs + units))).
    bias_init : str
        "zeros", or one of the names above: b is then drawn from the same distribution as W with that name, whose
        width goes by inputs and units. W does not depend on it. Glorot's bounds for both, as scikit-learn draws, were
        best on 23 tables (`python bench/initialization.py`); PyTorch's layers begin with "torch_uniform" for both,
        Keras's with "glorot_uniform" and "zeros".
    max_norm : float > 0 or None
        After every update the incoming weights of each unit (a column of W) are scaled down to this Euclidean
        norm (Srivastava et al. 2014, section 5.1).
    drop_connect : float in [0, 1], or schedule
        Probability that a weight is dropped in a training step (DropConnect, Wan et al. 2013); every step draws a
        fresh mask for all rows of the batch, and what it keeps is divided by 1 - drop_connect. `predict` uses the
        mean weights; `predict_mc` drops weights, or draws the outputs that they lead to from normal distributions
        of the same mean and variance.
    """

    _options = ("units", "activation", "bias", "weight_init", "bias_init", "max_norm", "drop_connect")
    _rate_name = "drop_connect"
    seed = None  # of the masks: the network's
    units: int
    activation: Activation | None
    bias: bool
    weight_init: str
    bias_init: str = "zeros"  # of layers pickled before there was a choice
    max_norm: float | None
    drop_connect: Rate

    def __init__(
        self,
        units: int,
        *,
        activation: str | Activation | None = None,
        bias: bool = True,
        weight_init: str = "glorot_uniform",
        bias_init: str = "glorot_uniform",
        max_norm: float | None = None,
        drop_connect: Rate = 0.0,
    ) -> None:
        checks.choice("weight_init", weight_init, INITIALIZATIONS)
        checks.choice("bias_init", bias_init, BIAS_INITIALIZATIONS)
        self._declare(
            units=checks.integer("units", units, 1, checks.MOST_UNITS),
            activation=resolve_activation(activation),
            bias=checks.flag("bias", bias),
            weight_init=weight_init,
            bias_init=bias_init,
            max_norm=None if max_norm is None else checks.number("max_norm", max_norm, 0.0, low_open=True, single=True),
            drop_connect=_checked_rate("drop_connect", drop_connect),
        )

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask of the weights in the last training forward pass with drop_connect: boolean, shape (inputs, units),
        True keeps. None before the first."""
        return _last_mask(self)

    def initial_weight(self, fan_in: int, seed: np.random.SeedSequence) -> Floats:
        """A fresh weight.

        Parameters
        ----------
        fan_in : int
            Inputs.
        seed : numpy.random.SeedSequence

        Returns
        -------
        ndarray of float32, shape (fan_in, units)
        """
        return self._drawn(self.weight_init, (fan_in, self.units), fan_in, seed)

    def initial_bias(self, fan_in: int, seed: np.random.SeedSequence) -> Floats:
        """A fresh bias.

        Parameters
        ----------
        fan_in : int
            Inputs.
        seed : numpy.random.SeedSequence

        Returns
        -------
        ndarray of float32, shape (units,)
        """
        return self._drawn(self.bias_init, (self.units,), fan_in, seed)

    def _drawn(self, init: str, size: tuple[int, ...], fan_in: int, seed: np.random.SeedSequence) -> Floats:
        from cydrop.xorshift import Xorshift

        name, shape = BIAS_INITIALIZATIONS[init]
        if shape == "zeros":
            return np.zeros(size, dtype=np.float32)
        deviation = math.sqrt(_VARIANCES[name](fan_in, self.units))
        generator = Xorshift(seed)
        drawn: Floats
        if shape == "normal":
            drawn = generator.normal(size)
            drawn *= np.float32(deviation)
        else:
            drawn = generator.random(size)
            drawn -= np.float32(0.5)
            drawn *= np.float32(2.0 * math.sqrt(3.0) * deviation)
        return drawn

    def config(self) -> dict[str, Any]:
        options = super().config()
        options["activation"] = None if self.activation is None else self.activation.config()
        return options


class Dropout(RandomLayer):
    """Sets each element to zero with probability `rate` during training (Srivastava et al. 2014).

    Parameters
    ----------
    rate : float in [0, 1], or schedule
        Probability of *dropping*. 0 is the identity and draws nothing, 1 gives zeros.
    mode : "inverted" or "vanilla"
        inverted: what is kept is divided by 1 - rate in training, prediction is the identity.
        vanilla: training does not scale, prediction multiplies by 1 - rate.
    shared : None or "batch"
        "batch": one mask for all rows of a batch (Graham, Reizenstein and Robinson 2015, arXiv 1502.02478). In the
        training of a large network dropped units are then not computed at all; the result has the same bits.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        A seed of this layer's own for the masks; None takes the network's.
    """

    _options = ("rate", "mode", "shared", "seed")
    rate: Rate
    mode: str
    shared: str | None

    def __init__(
        self, rate: Rate = 0.5, *, mode: str = "inverted", shared: str | None = None, seed: seeding.Seed = None
    ) -> None:
        rate = _checked_rate("rate", rate)
        checks.choice("mode", mode, {"inverted": 0, "vanilla": 0})
        if shared is not None:
            checks.choice("shared", shared, {"batch": 0})
        self._declare(rate=rate, mode=mode, shared=shared, seed=seeding.as_int(seed))

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The mask of the last training forward pass of this layer, alone or in a network: boolean, True keeps.
        None before the first."""
        return _last_mask(self)


class AlphaDropout(RandomLayer):
    """Dropout for networks of SELU units (Klambauer et al. 2017, section 3): dropped elements become SELU's lowest
    value, -1.7581, and a x + b restores mean 0 and variance 1.

    Parameters
    ----------
    rate : float in [0, 1], or schedule
        Probability of *dropping*. 0 is the identity and draws nothing, 1 gives zeros.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        A seed of this layer's own for the masks; None takes the network's.
    """

    kind: ClassVar[str] = "alpha_dropout"
    _options = ("rate", "seed")
    rate: Rate

    def __init__(self, rate: Rate = 0.1, *, seed: seeding.Seed = None) -> None:
        rate = _checked_rate("rate", rate)
        self._declare(rate=rate, seed=seeding.as_int(seed))

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """As for `Dropout`."""
        return _last_mask(self)


class GaussianDropout(RandomLayer):
    """Multiplies each element by a normal number of mean 1 and variance rate / (1 - rate) in training (Srivastava et
    al. 2014, section 10): the mean and the variance of inverted dropout. Prediction is the identity.

    Parameters
    ----------
    rate : float in [0, 1], or schedule
        As for `Dropout`. 0 is the identity and draws nothing, 1 gives zeros.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        A seed of this layer's own for the noise; None takes the network's.
    """

    kind: ClassVar[str] = "gaussian_dropout"
    _options = ("rate", "seed")
    rate: Rate

    def __init__(self, rate: Rate = 0.5, *, seed: seeding.Seed = None) -> None:
        rate = _checked_rate("rate", rate)
        self._declare(rate=rate, seed=seeding.as_int(seed))


class GaussianNoise(RandomLayer):
    """Adds a normal number of mean 0 to each element in training (Bishop 1995). Prediction is the identity.

    Parameters
    ----------
    std : float >= 0, or schedule
        Standard deviation, in the units of x. 0 is the identity and draws nothing.
    seed : None, int, numpy.random.SeedSequence or numpy.random.Generator
        A seed of this layer's own for the noise; None takes the network's.
    """

    kind: ClassVar[str] = "gaussian_noise"
    _options = ("std", "seed")
    _rate_name = "std"
    std: Rate

    def __init__(self, std: Rate = 0.1, *, seed: seeding.Seed = None) -> None:
        std = std if callable(std) else checks.number("std", std, 0.0, single=True)
        self._declare(std=std, seed=seeding.as_int(seed))

    def rate_at(self, progress: float) -> float:
        """The standard deviation in force.

        Parameters
        ----------
        progress : float in [0, 1]
            Of training.
        """
        return value_at("std", self.std, progress, 0.0)


class LayerNorm(Layer):
    """Normalises each row to mean 0 and variance 1, then weight x + bias (Ba, Kiros and Hinton 2016).

    The variance is the biased one, over the units of the row. The weight, shape (units,), begins at 1, the bias at 0.

    Parameters
    ----------
    epsilon : float > 0
        Added to the variance.
    """

    kind: ClassVar[str] = "layer_norm"
    _options = ("epsilon",)
    epsilon: float

    def __init__(self, *, epsilon: float = 1e-5) -> None:
        self._declare(epsilon=checks.number("epsilon", epsilon, 0.0, low_open=True, single=True))


class BatchNorm(Layer):
    """Normalises each unit over the rows of the batch, then weight x + bias (Ioffe and Szegedy 2015); prediction uses
    running statistics, which `Network.buffers` shows and files keep.

    The weight, shape (units,), begins at 1, the bias at 0, the running mean at 0, the running variance at 1. A batch
    of one row is normalised to 0 and leaves the running variance as it is. Dropout before this layer makes the
    variance in training larger than in prediction (Li et al. 2019): put dropout behind the last BatchNorm.

    Parameters
    ----------
    momentum : float in [0, 1]
        Share of the batch in the running statistics: running = (1 - momentum) running + momentum batch's, PyTorch's
        meaning of the word (Keras' momentum is 1 minus this one). The batch's variance counts with n - 1.
    epsilon : float > 0
        Added to the variance.
    """

    kind: ClassVar[str] = "batch_norm"
    _options = ("momentum", "epsilon")
    momentum: float
    epsilon: float

    def __init__(self, *, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        self._declare(
            momentum=checks.number("momentum", momentum, 0.0, 1.0),
            epsilon=checks.number("epsilon", epsilon, 0.0, low_open=True, single=True),
        )


def _checked_rate(name: str, rate: Rate) -> Rate:
    """A probability, or a schedule, whose values are checked as they come."""
    return rate if callable(rate) else checks.rate(name, rate)


def _last_mask(layer: RandomLayer) -> NDArray[np.bool_] | None:
    network = None if layer._owner is None else layer._owner()
    if network is None:
        return None
    found: NDArray[np.bool_] | None = network._mask_of(layer)
    return found


def resolve_activation(activation: Any) -> Activation | None:
    """An activation from its name or itself; None stays None."""
    if activation is None or isinstance(activation, Activation):
        return activation
    if isinstance(activation, type) and issubclass(activation, Activation):
        return activation()
    return checks.choice("activation", activation, ACTIVATIONS)()


_CLASSES: tuple[type[Layer], ...] = (
    Dense, Dropout, AlphaDropout, GaussianDropout, GaussianNoise, LayerNorm, BatchNorm, *ACTIVATIONS.values()
)  # fmt: skip
KNOWN: dict[str, type[Layer]] = {cls.__name__: cls for cls in _CLASSES}


def from_config(config: dict[str, Any]) -> Layer:
    """The layer that `Layer.config` described."""
    options = dict(config)
    cls = checks.choice("layer", options.pop("layer", None), KNOWN)
    if cls is Dense:  # of files from before there was a choice
        options.setdefault("bias_init", "zeros")
    if cls is Dense and options.get("activation") is not None:
        options["activation"] = from_config(options["activation"])
    if issubclass(cls, RandomLayer) and cls._rate_name in options:
        options[cls._rate_name] = rate_from_config(options[cls._rate_name])
    return cls(**options)
