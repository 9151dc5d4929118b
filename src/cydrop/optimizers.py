"""The optimizers: declarations for the compiled `_core.optimizers`, with PyTorch's formulas.

The learning rate is a number or a schedule (see `cydrop.schedules`). `clip_norm` scales the gradient down to
that global Euclidean norm (Pascanu, Mikolov and Bengio 2013). `weight_decay` adds weight_decay * w to the
gradient (AdamW: shrinks the weight instead); as in PyTorch it applies to all parameters, biases included.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from cydrop import checks, schedules
from cydrop.schedules import Rate


class Optimizer:
    """Base of the optimizers."""

    code: ClassVar[int]
    moments: ClassVar[tuple[bool, bool]]  # which of the two moment arenas are used
    learning_rate: Rate
    weight_decay: float
    clip_norm: float | None

    def __post_init__(self) -> None:
        if not callable(self.learning_rate):
            checks.number("learning_rate", self.learning_rate, 0.0)
        checks.number("weight_decay", self.weight_decay, 0.0)
        if self.clip_norm is not None:
            checks.number("clip_norm", self.clip_norm, 0.0, low_open=True)

    def decays(self) -> tuple[float, float]:
        """Decay rates of the first and of the second moment; momentum counts as the first."""
        return 0.0, 0.0

    def used_moments(self) -> tuple[bool, bool]:
        return self.moments

    def config(self) -> dict[str, Any]:
        """Name and options, as saved in a file."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        options["learning_rate"] = rate_config("learning_rate", self.learning_rate)
        return {"optimizer": type(self).__name__} | options


def rate_config(name: str, rate: Rate) -> Any:
    """A number or a schedule in a form that JSON can hold."""
    if isinstance(rate, schedules.Schedule):
        return rate.config()
    if callable(rate):
        raise ValueError(f"{name} is a function of your own, which a file cannot hold; use one of cydrop.schedules")
    return rate


def rate_from_config(value: Any) -> Rate:
    return schedules.from_config(value) if isinstance(value, dict) else value


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: v = momentum v + g; w -= learning_rate v (Nesterov: g + momentum v).

    Parameters
    ----------
    learning_rate : float >= 0 or schedule
    momentum : float in [0, 1)
    nesterov : bool
    weight_decay : float >= 0
    clip_norm : float > 0 or None
    """

    learning_rate: Rate = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    code: ClassVar[int] = 0
    moments: ClassVar[tuple[bool, bool]] = (False, True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("momentum", self.momentum, 0.0, 1.0, high_open=True)
        checks.flag("nesterov", self.nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs a momentum above 0")

    def decays(self) -> tuple[float, float]:
        return self.momentum, 0.0

    def used_moments(self) -> tuple[bool, bool]:
        return (False, self.momentum > 0)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """v = rho v + (1 - rho) g^2; w -= learning_rate g / (sqrt v + epsilon) (Tieleman and Hinton 2012).

    Parameters
    ----------
    learning_rate : float >= 0 or schedule
    rho : float in [0, 1)
    epsilon : float > 0
    weight_decay : float >= 0
    clip_norm : float > 0 or None
    """

    learning_rate: Rate = 1e-3
    rho: float = 0.9
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    code: ClassVar[int] = 1
    moments: ClassVar[tuple[bool, bool]] = (False, True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("rho", self.rho, 0.0, 1.0, high_open=True)
        checks.number("epsilon", self.epsilon, 0.0, low_open=True)

    def decays(self) -> tuple[float, float]:
        return 0.0, self.rho


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """v = v + g^2; w -= learning_rate g / (sqrt v + epsilon) (Duchi, Hazan and Singer 2011).

    Parameters
    ----------
    learning_rate : float >= 0 or schedule
    epsilon : float > 0
    weight_decay : float >= 0
    clip_norm : float > 0 or None
    """

    learning_rate: Rate = 0.01
    epsilon: float = 1e-10
    weight_decay: float = 0.0
    clip_norm: float | None = None
    code: ClassVar[int] = 2
    moments: ClassVar[tuple[bool, bool]] = (False, True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("epsilon", self.epsilon, 0.0, low_open=True)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), with bias correction; weight_decay is added to the gradient.

    Parameters
    ----------
    learning_rate : float >= 0 or schedule
    beta1, beta2 : float in [0, 1)
    epsilon : float > 0, added after the root
    weight_decay : float >= 0
    clip_norm : float > 0 or None
    """

    learning_rate: Rate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    code: ClassVar[int] = 3
    moments: ClassVar[tuple[bool, bool]] = (True, True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("beta1", self.beta1, 0.0, 1.0, high_open=True)
        checks.number("beta2", self.beta2, 0.0, 1.0, high_open=True)
        checks.number("epsilon", self.epsilon, 0.0, low_open=True)

    def decays(self) -> tuple[float, float]:
        return self.beta1, self.beta2


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: w *= 1 - learning_rate weight_decay (Loshchilov and Hutter 2019).

    Parameters
    ----------
    As for `Adam`; weight_decay is 0.01 unless given, as in PyTorch.
    """

    weight_decay: float = 0.01
    code: ClassVar[int] = 4


_CLASSES: tuple[type[Optimizer], ...] = (SGD, RMSprop, Adagrad, Adam, AdamW)
KNOWN = {cls.__name__.lower(): cls for cls in _CLASSES}


def resolve(optimizer: Any) -> Optimizer:
    """An optimizer from its name (in lower case) or itself."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        return optimizer()
    return checks.choice("optimizer", optimizer.lower() if isinstance(optimizer, str) else optimizer, KNOWN)()


def from_config(config: dict[str, Any]) -> Optimizer:
    """The optimizer that `Optimizer.config` described."""
    options = dict(config)
    cls = checks.choice("optimizer", str(options.pop("optimizer", None)).lower(), KNOWN)
    options["learning_rate"] = rate_from_config(options.get("learning_rate"))
    return cls(**options)
