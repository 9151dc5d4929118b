"""The layers: declarations without arrays, a file a family. A network is a list of them; a layer also works alone."""

from __future__ import annotations

from typing import Any

from cydrop._base import checks
from cydrop.layers import activations, dense, dropout, noise, norms
from cydrop.layers.activations import *  # noqa: F403
from cydrop.layers.activations import ACTIVATIONS, resolve_activation
from cydrop.layers.base import Layer, RandomLayer
from cydrop.layers.dense import *  # noqa: F403
from cydrop.layers.dropout import *  # noqa: F403
from cydrop.layers.noise import *  # noqa: F403
from cydrop.layers.norms import *  # noqa: F403

FAMILIES = (dense, dropout, noise, norms, activations)

__all__ = ["ACTIVATIONS", "KNOWN", "Layer", "RandomLayer", "from_config", "resolve_activation"]
__all__ += [name for family in FAMILIES for name in family.__all__]

KNOWN: dict[str, type[Layer]] = {
    name: getattr(family, name) for family in FAMILIES for name in family.__all__ if name != "Activation"
}
for _cls in (Layer, RandomLayer, activations.Activation, *KNOWN.values()):
    _cls.__module__ = __name__  # what pickles name as their origin: it stays, whatever becomes of the files


def from_config(config: dict[str, Any]) -> Layer:
    """The layer that `Layer.config` described."""
    options = dict(config)
    return checks.choice("layer", options.pop("layer", None), KNOWN).from_config(options)
