"""Many networks at once: folds, seeds, searches, a model for each customer, deep ensembles."""

from cydrop.many._errors import WorkerError
from cydrop.many._executors import running as running
from cydrop.many._fit_many import fit_many

__all__ = ["WorkerError", "fit_many"]

WorkerError.__module__ = fit_many.__module__ = __name__
