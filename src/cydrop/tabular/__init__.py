"""Networks for tables as they are: RealMLP, a dropout network with a recipe, as estimators for scikit-learn.

`RealMLPClassifier` and `RealMLPRegressor` take frames of pandas or polars, or arrays, with categories, missing cells
and numbers of any size (Holzmüller, Grinsztajn and Steinwart 2024, arXiv 2407.04491). They need scikit-learn 1.6 or
newer.

    X -> columns of numbers and of categories -> held-out rows -> scaled, clipped, one-hot or codes -> networks -> mean
"""

try:
    from sklearn.utils.validation import validate_data  # noqa: F401 (not there before 1.6)
except ImportError as error:
    raise ImportError(f'cydrop.tabular needs scikit-learn 1.6: pip install "cydrop[sklearn]" ({error})') from None

from cydrop.tabular._estimators import RealMLPClassifier, RealMLPRegressor, load

__all__ = ["RealMLPClassifier", "RealMLPRegressor", "load"]

for _shown in (RealMLPClassifier, RealMLPRegressor, load):
    _shown.__module__ = __name__  # what pickles and the documentation name
