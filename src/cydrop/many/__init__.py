"""Many networks at once: folds, seeds, searches, a model for each customer, deep ensembles."""

from cydrop.many._fit_many import fit_many

__all__ = ["fit_many"]

fit_many.__module__ = __name__
