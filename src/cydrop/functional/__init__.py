"""The kernels as stateless functions: arrays in, arrays out.

Inputs are whatever `numpy.asarray` takes and are never written to (`out=` of `dropout` aside); results are
C-contiguous float32 of the input's shape. Each function's twin in plain NumPy, under the same name and signature, is
in `cydrop.reference`. By default they run on one thread: alternating threaded kernels with NumPy's own threaded
products can be many times slower than either alone.
"""

from cydrop._base.packages import offered
from cydrop.functional.activations import *
from cydrop.functional.dense import *
from cydrop.functional.dropout import *
from cydrop.functional.embeddings import *
from cydrop.functional.losses import *
from cydrop.functional.masksembles import *
from cydrop.functional.noise import *
from cydrop.functional.norms import *
from cydrop.functional.parametric import *
from cydrop.functional.quantized import *

_FILES = [
    "dropout", "masksembles", "noise", "norms", "activations", "parametric", "dense", "quantized", "embeddings",
    "losses",
]  # fmt: skip
__all__ = offered(__name__, _FILES)
