"""Compile all kernels of load flow and estimation once; numba keeps them on disk for every later run."""

from __future__ import annotations

import numpy as np

from flexmeter.estimation.estimate import Answer
from flexmeter.estimation.estimator import Estimator
from flexmeter.estimation.levels import reports_from, summarise
from flexmeter.estimation.measurements import load_meters
from flexmeter.grid.impedance import line_type_from_sequence
from flexmeter.grid.model import Area, Bus, Grid, Line, Load, Source
from flexmeter.powerflow import compile_network, powerflow
from flexmeter.powerflow.lanes import LANES


def warm() -> None:
    """Run every kernel on a grid of two buses and two areas (one minute when nothing is compiled yet)."""
    warm_powerflow()
    warm_batch()
    warm_single()


def warm_powerflow() -> None:
    """Run the kernels of the load flow."""
    flow = powerflow(compile_network(_smallest()))
    flow.branch_current_a, flow.losses_w  # noqa: B018  compiles their kernels


def warm_batch() -> None:
    """Run the estimator's kernel for several scenarios."""
    _lower().estimate(np.tile(_VALUE, LANES), _SIGMA)


def warm_single() -> None:
    """Run the estimator's kernel for one scenario, and those between levels."""
    estimator, above = _lower(), compile_network(_smallest(), area="above")
    message = summarise(estimator.estimate(_VALUE, _SIGMA))
    upper = Estimator(above, ()).estimate(
        np.empty((0, 1)), np.empty((0, 1)), reports=reports_from(above, {"below": message})
    )
    answer = Answer(upper.aggregate[0], upper.aggregate_covariance[0], message.value, message.covariance)
    estimator.estimate(_VALUE, _SIGMA, answer=answer)


_VALUE, _SIGMA = np.array([[230.0], [1e3], [3e2]]), np.array([[2.3], [10.0], [10.0]])


def _lower() -> Estimator:
    network = compile_network(_smallest(), area="below")
    return Estimator(network, load_meters(network))


def _smallest() -> Grid:
    cable = line_type_from_sequence("cable", r1_ohm_per_km=0.2, x1_ohm_per_km=0.1, r0_ohm_per_km=0.8, x0_ohm_per_km=0.4)
    return Grid(
        id="warm",
        buses=(Bus("head", 400.0, area="above"), Bus("end", 400.0, area="below")),
        line_types=(cable,),
        lines=(Line("line", "head", "end", "cable", 0.1),),
        sources=(Source("source", "head", 400.0),),
        loads=(Load("load", "end", phases="a", power_w=(1e3,), power_var=(3e2,)),),
        areas=(Area("above", "mv", "head"), Area("below", "lv", "head", parent="above")),
    )
