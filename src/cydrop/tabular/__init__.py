"""Networks for tables as they are: RealMLP and TabM, dropout networks with a recipe, as estimators for scikit-learn.

`RealMLPClassifier` and `RealMLPRegressor` (Holzmüller, Grinsztajn and Steinwart 2024, arXiv 2407.04491) and
`TabMClassifier` and `TabMRegressor` (Gorishniy, Kotelnikov and Babenko 2025, arXiv 2410.24210) take frames of pandas or
polars, or arrays, with categories, missing cells and numbers of any size. They need scikit-learn 1.6 or newer.

    X -> columns of numbers and of categories -> held-out rows -> scaled, one-hot or codes -> networks -> mean
"""

try:
    from sklearn.utils.validation import validate_data  # noqa: F401 (not there before 1.6)
except ImportError as error:
    raise ImportError(f'cydrop.tabular needs scikit-learn 1.6: pip install "cydrop[sklearn]" ({error})') from None

from cydrop.tabular._estimators import (
    RealMLPClassifier,
    RealMLPRegressor,
    TabMClassifier,
    TabMRegressor,
    load,
)
from cydrop.tabular._search import search

__all__ = ["RealMLPClassifier", "RealMLPRegressor", "TabMClassifier", "TabMRegressor", "load", "search"]

for _shown in (RealMLPClassifier, RealMLPRegressor, TabMClassifier, TabMRegressor, load, search):
    _shown.__module__ = __name__  # what pickles and the documentation name
