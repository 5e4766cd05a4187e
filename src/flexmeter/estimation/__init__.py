"""Weighted-least-squares state estimation with uncertainty, at three levels (paper section 4).

In: a `Network`, meters and their readings (n_meter, n_scenario) with standard deviations, reports of the areas below.
Out: voltages, powers and flows with standard deviations, and the joint summary handed to the level above. On top:
bad data, bias of meters, observability, hypotheses about the model, forecasts from earlier estimates. Open
`estimator.py` first, then `message.py` (the method), `border.py` (loops), `levels.py` (areas) and `bad_data.py`.
"""

from flexmeter.estimation.bad_data import (
    BadData,
    ChiSquareTest,
    Removal,
    RobustEstimate,
    chi_square_test,
    huber,
    remove_bad_data,
)
from flexmeter.estimation.bias import MeterBias, track_bias, unknown_bias
from flexmeter.estimation.estimate import Answer, Estimate, Reports
from flexmeter.estimation.estimator import Estimator
from flexmeter.estimation.forecast import Forecast, default_forecast
from flexmeter.estimation.forest import Forest, ForestEstimate
from flexmeter.estimation.hypotheses import Comparison, compare, phase_candidates, switch_candidates
from flexmeter.estimation.levels import (
    AreaSummary,
    aged,
    answer_for,
    diagonal,
    drift,
    reports_from,
    summarise,
)
from flexmeter.estimation.measurements import Meter, load_meters, relative_sigma
from flexmeter.estimation.observability import Observability, observability
from flexmeter.estimation.prior import ProcessNoise, aged_forecast, aided, forecast_from, process_noise, widened
from flexmeter.estimation.residuals import Residuals, identification_threshold, residuals
from flexmeter.estimation.tables import (
    branch_meters,
    in_blocks,
    injection_table,
    meter_table,
    scenario_table,
    to_pandas,
    voltage_table,
)
from flexmeter.estimation.warm import warm, warm_batch, warm_powerflow, warm_single

__all__ = [
    "Answer",
    "AreaSummary",
    "BadData",
    "ChiSquareTest",
    "Comparison",
    "Estimate",
    "Estimator",
    "Forecast",
    "Forest",
    "ForestEstimate",
    "Meter",
    "MeterBias",
    "Observability",
    "ProcessNoise",
    "Removal",
    "Reports",
    "Residuals",
    "RobustEstimate",
    "aged",
    "aged_forecast",
    "aided",
    "answer_for",
    "branch_meters",
    "chi_square_test",
    "compare",
    "default_forecast",
    "diagonal",
    "drift",
    "forecast_from",
    "huber",
    "identification_threshold",
    "in_blocks",
    "injection_table",
    "load_meters",
    "meter_table",
    "observability",
    "phase_candidates",
    "process_noise",
    "relative_sigma",
    "remove_bad_data",
    "reports_from",
    "residuals",
    "scenario_table",
    "summarise",
    "switch_candidates",
    "to_pandas",
    "track_bias",
    "unknown_bias",
    "voltage_table",
    "warm",
    "warm_batch",
    "warm_powerflow",
    "warm_single",
    "widened",
]
