"""The layers: declarations without arrays, a file per family. A network is a list of them; a layer also works alone."""

from __future__ import annotations

from typing import Any

from cydrop._base import checks
from cydrop._base.packages import offered
from cydrop.layers import activations, dense, dropout, embeddings, noise, norms
from cydrop.layers.activations import *
from cydrop.layers.base import *
from cydrop.layers.base import Layer
from cydrop.layers.dense import *
from cydrop.layers.dropout import *
from cydrop.layers.embeddings import *
from cydrop.layers.noise import *
from cydrop.layers.norms import *

_FAMILIES = ["base", "dense", "dropout", "noise", "norms", "embeddings", "activations"]

__all__ = ["KNOWN", "from_config", *offered(__name__, _FAMILIES)]

# by the names that files give them
KNOWN: dict[str, type[Layer]] = {
    cls.__name__: cls for family in (dense, dropout, noise, norms, embeddings, activations) for cls in family.LAYERS
}


def from_config(config: dict[str, Any]) -> Layer:
    """The layer that `Layer.config` described."""
    options = dict(config)
    return checks.choice("layer", options.pop("layer", None), KNOWN).from_config(options)
