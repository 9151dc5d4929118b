"""Pictures of training and predictions, with matplotlib (`pip install "cydrop[plot]"`).

Every function draws into the axes `ax`, or into those of a new figure, and returns them; nothing is shown and no
style is set. The numbers behind them are in `cydrop.metrics`, which needs NumPy alone, under the same names; two that
came from here keep theirs: `calibration` and `expected_calibration_error`.
"""

from cydrop.metrics import calibration
from cydrop.metrics import calibration_error as expected_calibration_error
from cydrop.plot._bands import interval_band, predictive_bands
from cydrop.plot._scores import coverage_curve, error_by_uncertainty, rejection_curve, reliability_diagram
from cydrop.plot._training import learning_curves
from cydrop.plot._weights import first_layer_weights

__all__ = [  # noqa: RUF022 (in the order of the reference pages)
    "learning_curves",
    "predictive_bands",
    "interval_band",
    "reliability_diagram",
    "calibration",
    "expected_calibration_error",
    "coverage_curve",
    "error_by_uncertainty",
    "rejection_curve",
    "first_layer_weights",
]

for _drawn in (
    learning_curves, predictive_bands, interval_band, reliability_diagram, coverage_curve, error_by_uncertainty,
    rejection_curve, first_layer_weights,
):  # fmt: skip
    _drawn.__module__ = __name__  # the place that users import from, whatever the file is called
