"""What happened in training, and which way its metrics are better."""

from cydrop.history.direction import lower_by_name as lower_by_name
from cydrop.history.direction import lower_is_better as lower_is_better
from cydrop.history.record import History

__all__ = ["History"]

History.__module__ = __name__  # what pickles name
