"""Training whose result does not depend on how many share the work: pass a `DataParallel` to `fit`."""

from cydrop.distributed._data_parallel import MOST_SHARDS as MOST_SHARDS
from cydrop.distributed._data_parallel import DataParallel
from cydrop.distributed._data_parallel import checked as checked

__all__ = ["DataParallel"]

DataParallel.__module__ = __name__  # what pickles and the documentation name
