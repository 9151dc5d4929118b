"""The truth in plain NumPy: every kernel again, readable, in the precision of its input.

Each function has the name and the signature of its twin in `cydrop.functional` and computes in float64 where it is
given float64. Masks are the same to the bit; numbers agree up to rounding. All tests compare with this module.
"""

from cydrop._base.packages import offered
from cydrop.reference.activations import *
from cydrop.reference.dense import *
from cydrop.reference.dropout import *
from cydrop.reference.embeddings import *
from cydrop.reference.losses import *
from cydrop.reference.masksembles import *
from cydrop.reference.noise import *
from cydrop.reference.norms import *
from cydrop.reference.optimizers import *
from cydrop.reference.parametric import *
from cydrop.reference.quantized import *
from cydrop.reference.xorshift import *

_FILES = [
    "xorshift", "dropout", "masksembles", "noise", "activations", "parametric", "dense", "quantized", "embeddings",
    "norms", "losses", "optimizers",
]  # fmt: skip
__all__ = offered(__name__, _FILES)
