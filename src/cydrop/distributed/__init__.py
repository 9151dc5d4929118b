"""Training on several processes and machines, with the bits of one: data parallel over MPI."""

from cydrop._base.packages import offered
from cydrop.distributed._errors import *
from cydrop.distributed._parallel import *

__all__ = offered(__name__, ("_parallel", "_errors"))
