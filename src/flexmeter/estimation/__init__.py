"""Weighted-least-squares state estimation with uncertainty, at three levels (paper section 4).

In: a `Network`, meters and their readings (n_meter, n_scenario) with standard deviations, reports of the areas below.
Out: voltages, powers and flows with standard deviations, and the joint summary handed to the level above. Open
`estimator.py` first, then `message.py` (the method) and `levels.py` (areas).
"""

from flexmeter.estimation.estimate import Answer, Estimate, Reports
from flexmeter.estimation.estimator import Estimator
from flexmeter.estimation.forecast import Forecast, default_forecast
from flexmeter.estimation.levels import (
    AreaSummary,
    aged,
    answer_for,
    diagonal,
    drift,
    reports_from,
    summarise,
)
from flexmeter.estimation.measurements import Measurements, Meter, load_meters, measurements, relative_sigma
from flexmeter.estimation.warm import warm

__all__ = [
    "Answer",
    "AreaSummary",
    "Estimate",
    "Estimator",
    "Forecast",
    "Measurements",
    "Meter",
    "Reports",
    "aged",
    "answer_for",
    "default_forecast",
    "diagonal",
    "drift",
    "load_meters",
    "measurements",
    "relative_sigma",
    "reports_from",
    "summarise",
    "warm",
]
