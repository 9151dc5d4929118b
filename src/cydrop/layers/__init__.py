"""The layers: declarations without arrays, a file a family. A network is a list of them; a layer also works alone."""

from __future__ import annotations

from typing import Any

from cydrop._base import checks
from cydrop._base.packages import offered
from cydrop.layers.activations import *
from cydrop.layers.activations import ACTIVATIONS, resolve_activation
from cydrop.layers.base import *
from cydrop.layers.base import Layer
from cydrop.layers.dense import *
from cydrop.layers.dropout import *
from cydrop.layers.noise import *
from cydrop.layers.norms import *

_LAYERS = offered(__name__, ["dense", "dropout", "noise", "norms", "activations"])

__all__ = ["ACTIVATIONS", "KNOWN", "from_config", "resolve_activation", *_LAYERS, *offered(__name__, ["base"])]

KNOWN: dict[str, type[Layer]] = {name: globals()[name] for name in _LAYERS}


def from_config(config: dict[str, Any]) -> Layer:
    """The layer that `Layer.config` described."""
    options = dict(config)
    return checks.choice("layer", options.pop("layer", None), KNOWN).from_config(options)
