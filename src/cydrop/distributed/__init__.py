"""Training whose result does not depend on how many share the work: pass a `DataParallel` to `fit`."""

from cydrop.distributed._data_parallel import MOST_SHARDS as MOST_SHARDS
from cydrop.distributed._data_parallel import DataParallel
from cydrop.distributed._data_parallel import checked as checked
from cydrop.distributed._data_parallel import checked_for_estimator as checked_for_estimator
from cydrop.distributed._data_parallel import team_of as team_of
from cydrop.distributed._data_parallel import trainer_of as trainer_of
from cydrop.distributed._errors import RankError
from cydrop.distributed._facts import checksum as checksum
from cydrop.distributed._facts import facts_of_estimator as facts_of_estimator

__all__ = ["DataParallel", "RankError"]

for _name in __all__:
    globals()[_name].__module__ = __name__  # what pickles and the documentation name
