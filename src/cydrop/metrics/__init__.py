"""How good predictions of uncertainty are: of classes, of intervals, of quantiles, of whole distributions.

NumPy alone, in float64. Every score is a mean over the rows, and less is better, but for `coverage` and
`rejection_ratio`. Curves are tuples of arrays, which `cydrop.plot` draws.
"""

from cydrop.metrics._calibration import calibration, calibration_error
from cydrop.metrics._distributions import crps, pinball_loss
from cydrop.metrics._intervals import coverage, coverage_curve, interval_score, width
from cydrop.metrics._rejection import error_by_uncertainty, rejection_curve, rejection_ratio

__all__ = [  # noqa: RUF022 (in the order of the reference pages)
    "calibration",
    "calibration_error",
    "coverage",
    "coverage_curve",
    "width",
    "interval_score",
    "pinball_loss",
    "crps",
    "rejection_curve",
    "rejection_ratio",
    "error_by_uncertainty",
]

for _name in __all__:
    globals()[_name].__module__ = __name__  # the place that users import from, whatever the file is called
