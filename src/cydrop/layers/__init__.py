"""The layers: declarations without arrays, a file per family. A network is a list of them; a layer also works alone."""

from __future__ import annotations

from cydrop._base.packages import offered
from cydrop.layers import (
    activations,
    dense,
    dropout,
    embeddings,
    masksembles,
    members,
    noise,
    norms,
    parametric,
    residual,
)
from cydrop.layers.activations import *
from cydrop.layers.base import *
from cydrop.layers.base import KNOWN
from cydrop.layers.dense import *
from cydrop.layers.dropout import *
from cydrop.layers.embeddings import *
from cydrop.layers.masksembles import *
from cydrop.layers.members import *
from cydrop.layers.noise import *
from cydrop.layers.norms import *
from cydrop.layers.parametric import *
from cydrop.layers.residual import *

_FILES = [
    "base",
    "dense",
    "dropout",
    "masksembles",
    "noise",
    "norms",
    "activations",
    "parametric",
    "embeddings",
    "residual",
    "members",
]
__all__ = offered(__name__, _FILES)

_FAMILIES = (dense, dropout, masksembles, noise, norms, activations, parametric, embeddings, residual, members)

KNOWN.update({cls.__name__: cls for family in _FAMILIES for cls in family.LAYERS})
