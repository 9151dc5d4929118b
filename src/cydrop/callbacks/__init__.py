"""Callbacks: what happens between the epochs of `fit`.

A callback gets the network and the values of the epoch that has ended. It may set `network.stop_training`, assign
`network.optimizer` to go on with another learning rate, and put metrics of its own into the values.
"""

from cydrop.callbacks.base import Callback
from cydrop.callbacks.base import Notifier as Notifier
from cydrop.callbacks.base import checked as checked
from cydrop.callbacks.csv_logger import CSVLogger
from cydrop.callbacks.functions import LambdaCallback
from cydrop.callbacks.monitors import Checkpoint, EarlyStopping, ReduceLROnPlateau
from cydrop.callbacks.progress import ProgressBar
from cydrop.callbacks.progress import for_verbose as for_verbose
from cydrop.callbacks.progress import is_terminal as is_terminal

__all__ = [  # noqa: RUF022 (in the order of the reference pages)
    "Callback",
    "EarlyStopping",
    "ReduceLROnPlateau",
    "Checkpoint",
    "CSVLogger",
    "ProgressBar",
    "LambdaCallback",
]

for _name in __all__:
    globals()[_name].__module__ = __name__  # pickles name the place that users import from, whatever the file is called
