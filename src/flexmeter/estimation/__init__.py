"""Weighted-least-squares state estimation with uncertainty, at three levels (paper section 4).

In: a `Network`, meters and their readings (n_meter, n_scenario) with standard deviations, reports of the areas below.
Out: voltages, powers and flows with standard deviations, and the joint summary handed to the level above. Open
`estimator.py` first, then `message.py` (the method) and `levels.py` (areas).
"""

from flexmeter.estimation.estimator import Estimate, Estimator, Forecast, Reports, default_forecast
from flexmeter.estimation.measurements import Measurements, Meter, load_meters, measurements, relative_sigma

__all__ = [
    "Estimate",
    "Estimator",
    "Forecast",
    "Measurements",
    "Meter",
    "Reports",
    "default_forecast",
    "load_meters",
    "measurements",
    "relative_sigma",
]
