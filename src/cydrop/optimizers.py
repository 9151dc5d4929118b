"""The optimizers: declarations for the compiled `_core.optimizers`, with PyTorch's formulas.

Learning rate and weight decay are numbers or schedules (see `cydrop.schedules`). `clip_norm` scales the gradient down
to that global Euclidean norm (Pascanu, Mikolov and Bengio 2013). `weight_decay` adds weight_decay * w to the gradient
(AdamW: shrinks the weight instead); as in PyTorch it applies to all parameters, biases included, unless a layer has a
`decay_factor`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self, TypeAlias

from cydrop._base import checks
from cydrop._base.declaration import Declaration
from cydrop._core.kinds import kind_of
from cydrop._core.optimizers import KINDS
from cydrop.schedules import Rate, rate_config, rate_from_config

__all__ = [  # noqa: RUF022 (in the order of the reference pages)
    "SGD",
    "RMSprop",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "KNOWN",
    "SCHEDULED",
    "from_config",
    "resolve",
]

KernelOptions: TypeAlias = tuple[int, float, float, float, bool, float | None]

SCHEDULED = ("learning_rate", "weight_decay")  # options that may be schedules


class Optimizer(Declaration, ABC):
    """Base of the optimizers."""

    code: ClassVar[int]  # its number in the kernels
    moments: ClassVar[tuple[bool, bool]]  # which of the two moment arenas are used
    velocity: ClassVar[bool] = False  # whether the second one is a velocity, not a mean or sum of squares
    learning_rate: Rate
    weight_decay: Rate
    clip_norm: float | None

    def _declare_common(self, learning_rate: Rate, weight_decay: Rate, clip_norm: float | None) -> None:
        """Checks and sets what all optimizers have."""
        self.declare(
            learning_rate=learning_rate
            if callable(learning_rate)
            else checks.number("learning_rate", learning_rate, 0.0, single=True),
            weight_decay=weight_decay
            if callable(weight_decay)
            else checks.number("weight_decay", weight_decay, 0.0, single=True),
            clip_norm=None
            if clip_norm is None
            else checks.number("clip_norm", clip_norm, 0.0, low_open=True, single=True),
        )

    @abstractmethod
    def kernel_options(self) -> KernelOptions:
        """Its options as the compiled update takes them, besides learning rate and weight decay: kind, beta1, beta2,
        epsilon, nesterov and clip_norm, 0 or False what it does not have."""

    def _kernel_options(
        self, beta1: float = 0.0, beta2: float = 0.0, epsilon: float = 0.0, nesterov: bool = False
    ) -> KernelOptions:
        """These with what all optimizers have."""
        return self.code, beta1, beta2, epsilon, nesterov, self.clip_norm

    def decays(self) -> tuple[float, float]:
        """Decay rates of the first and of the second moment; momentum counts as the first."""
        return self.kernel_options()[1:3]

    def used_moments(self) -> tuple[bool, bool]:
        """Whether the first and the second moment are used with these options."""
        return self.moments

    def with_learning_rate(self, learning_rate: Rate) -> Self:
        """The same optimizer with another learning rate; assigned to `Network.optimizer` it keeps the moments.

        Parameters
        ----------
        learning_rate : float >= 0 or schedule

        Returns
        -------
        Optimizer
            Of the same class.
        """
        return type(self)(**(self.options() | {"learning_rate": learning_rate}))

    def config(self) -> dict[str, Any]:
        """Name and options, as saved in a file."""
        rates = {name: rate_config(name, getattr(self, name)) for name in SCHEDULED}
        return {"optimizer": type(self).__name__} | self.options() | rates


class SGD(Optimizer):
    """Stochastic gradient descent: v = momentum v + g; w -= learning_rate v (Nesterov: g + momentum v).

    Parameters
    ----------
    learning_rate : float >= 0 or schedule
    momentum : float in [0, 1)
    nesterov : bool
        Whether the step looks ahead; needs a momentum above 0.
    weight_decay : float >= 0 or schedule
    clip_norm : float > 0 or None
    """

    code = kind_of(KINDS, "sgd")
    moments = (False, True)
    velocity = True
    option_names = ("learning_rate", "momentum", "nesterov", "weight_decay", "clip_norm")
    momentum: float
    nesterov: bool

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: Rate = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        self._declare_common(learning_rate, weight_decay, clip_norm)
        self.declare(
            momentum=checks.number("momentum", momentum, 0.0, 1.0, high_open=True),
            nesterov=checks.flag("nesterov", nesterov),
        )
        if nesterov and momentum == 0:
            raise ValueError("nesterov=True needs a momentum above 0")

    def kernel_options(self) -> KernelOptions:
        return self._kernel_options(beta1=self.momentum, nesterov=self.nesterov)

    def used_moments(self) -> tuple[bool, bool]:
        return (False, self.momentum > 0)


class RMSprop(Optimizer):
    """v = rho v + (1 - rho) g^2; w -= learning_rate g / (sqrt v + epsilon) (Tieleman and Hinton 2012).

    Parameters
    ----------
    learning_rate : float >= 0 or schedule
    rho : float in [0, 1)
    epsilon : float > 0
    weight_decay : float >= 0 or schedule
    clip_norm : float > 0 or None
    """

    code = kind_of(KINDS, "rmsprop")
    moments = (False, True)
    option_names = ("learning_rate", "rho", "epsilon", "weight_decay", "clip_norm")
    rho: float
    epsilon: float

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        rho: float = 0.9,
        epsilon: float = 1e-8,
        weight_decay: Rate = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        self._declare_common(learning_rate, weight_decay, clip_norm)
        self.declare(
            rho=checks.number("rho", rho, 0.0, 1.0, high_open=True),
            epsilon=checks.number("epsilon", epsilon, 0.0, low_open=True, single=True),
        )

    def kernel_options(self) -> KernelOptions:
        return self._kernel_options(beta2=self.rho, epsilon=self.epsilon)


class Adagrad(Optimizer):
    """v = v + g^2; w -= learning_rate g / (sqrt v + epsilon) (Duchi, Hazan and Singer 2011).

    Parameters
    ----------
    learning_rate : float >= 0 or schedule
    epsilon : float > 0
    weight_decay : float >= 0 or schedule
    clip_norm : float > 0 or None
    """

    code = kind_of(KINDS, "adagrad")
    moments = (False, True)
    option_names = ("learning_rate", "epsilon", "weight_decay", "clip_norm")
    epsilon: float

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        epsilon: float = 1e-10,
        weight_decay: Rate = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        self._declare_common(learning_rate, weight_decay, clip_norm)
        self.declare(epsilon=checks.number("epsilon", epsilon, 0.0, low_open=True, single=True))

    def kernel_options(self) -> KernelOptions:
        return self._kernel_options(epsilon=self.epsilon)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), with bias correction; weight_decay is added to the gradient.

    Parameters
    ----------
    learning_rate : float >= 0 or schedule
    beta1, beta2 : float in [0, 1)
    epsilon : float > 0, added after the root
    weight_decay : float >= 0 or schedule
    clip_norm : float > 0 or None
    """

    code = kind_of(KINDS, "adam")
    moments = (True, True)
    option_names = ("learning_rate", "beta1", "beta2", "epsilon", "weight_decay", "clip_norm")
    beta1: float
    beta2: float
    epsilon: float

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: Rate = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        self._declare_common(learning_rate, weight_decay, clip_norm)
        self.declare(
            beta1=checks.number("beta1", beta1, 0.0, 1.0, high_open=True),
            beta2=checks.number("beta2", beta2, 0.0, 1.0, high_open=True),
            epsilon=checks.number("epsilon", epsilon, 0.0, low_open=True, single=True),
        )

    def kernel_options(self) -> KernelOptions:
        return self._kernel_options(self.beta1, self.beta2, self.epsilon)


class AdamW(Adam):
    """Adam with decoupled weight decay: first w = (1 - learning_rate weight_decay) w (Loshchilov and Hutter 2019).

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon, clip_norm
        As for `Adam`.
    weight_decay : float >= 0 or schedule
        0.01 by default, as in PyTorch.
    """

    code = kind_of(KINDS, "adamw")

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: Rate = 0.01,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, epsilon, weight_decay, clip_norm)


_CLASSES: tuple[type[Optimizer], ...] = (SGD, RMSprop, Adagrad, Adam, AdamW)
KNOWN = {cls.__name__.lower(): cls for cls in _CLASSES}


def resolve(optimizer: Any) -> Optimizer:
    """An optimizer from its name (in lower case) or itself."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        return optimizer()
    name = optimizer.lower() if isinstance(optimizer, str) else optimizer
    return checks.choice("optimizer", name, KNOWN, "an optimizer object")()


def from_config(config: dict[str, Any]) -> Optimizer:
    """The optimizer that `Optimizer.config` described."""
    options = dict(config)
    cls = checks.choice("optimizer", str(options.pop("optimizer", None)).lower(), KNOWN)
    options |= {name: rate_from_config(options[name]) for name in SCHEDULED if name in options}
    return cls(**options)
