"""Impedances against closed forms and published values."""

import numpy as np
import pytest

from flexmeter.grid import LineType, Transformer, line_type_from_sequence
from flexmeter.grid.impedance import (
    SEQUENCE,
    as_matrix,
    line_impedance_per_km,
    sequence_to_phase,
    transformer_impedance,
    transformer_shunt,
    transformer_transfer,
)


def test_sequence_values_survive_the_way_through_phases() -> None:
    z = sequence_to_phase(0.2 + 0.1j, 0.8 + 0.4j)
    back = np.linalg.inv(SEQUENCE) @ z @ SEQUENCE
    np.testing.assert_allclose(np.diag(back), [0.8 + 0.4j, 0.2 + 0.1j, 0.2 + 0.1j], atol=1e-15)


def test_kron_reduction_of_the_kersting_example() -> None:
    # Kersting, Distribution System Modeling and Analysis, 3rd ed., example 4.1: primitive and reduced matrix, ohm/mile.
    primitive = np.array(
        [
            [0.4013 + 1.4133j, 0.0953 + 0.8515j, 0.0953 + 0.7266j, 0.0953 + 0.7524j],
            [0.0953 + 0.8515j, 0.4013 + 1.4133j, 0.0953 + 0.7802j, 0.0953 + 0.7865j],
            [0.0953 + 0.7266j, 0.0953 + 0.7802j, 0.4013 + 1.4133j, 0.0953 + 0.7674j],
            [0.0953 + 0.7524j, 0.0953 + 0.7865j, 0.0953 + 0.7674j, 0.6873 + 1.5465j],
        ]
    )
    line = LineType("k", as_matrix(primitive.real), as_matrix(primitive.imag), neutral="everywhere")
    expected = np.array(
        [
            [0.4576 + 1.0780j, 0.1560 + 0.5017j, 0.1535 + 0.3849j],
            [0.1560 + 0.5017j, 0.4666 + 1.0482j, 0.1580 + 0.4236j],
            [0.1535 + 0.3849j, 0.1580 + 0.4236j, 0.4615 + 1.0651j],
        ]
    )
    np.testing.assert_allclose(line_impedance_per_km(line), expected, atol=2e-4)


def test_neutral_earthed_at_the_source_carries_the_return_current() -> None:
    # A single-phase load on a four-wire line with equal conductors and no mutual coupling sees twice the resistance.
    r = 0.5 * np.eye(4)
    line = LineType("n", as_matrix(r), as_matrix(np.zeros((4, 4))), neutral="source")
    np.testing.assert_allclose(line_impedance_per_km(line), 0.5 * np.eye(3) + 0.5)


@pytest.mark.parametrize(
    ("group", "shift_deg", "zero"),
    [("Dyn11", 30, 0), ("Dyn1", -30, 0), ("Dyn5", -150, 0), ("YNyn0", 0, 1), ("YNyn6", 180, 1), ("Dd0", 0, 0)],
)
def test_vector_group_turns_the_positive_sequence(group: str, shift_deg: float, zero: int) -> None:
    transfer = transformer_transfer(Transformer("t", "1", "2", 1e6, 10e3, 400, 4, 1, vector_group=group))
    sequence = np.linalg.inv(SEQUENCE) @ transfer @ SEQUENCE * 25
    assert sequence[1, 1] == pytest.approx(np.exp(1j * np.radians(shift_deg)))
    assert abs(sequence[0, 0]) == pytest.approx(zero, abs=1e-12)


def test_dyn11_takes_line_voltages_to_phase_voltages() -> None:
    transfer = transformer_transfer(Transformer("t", "1", "2", 1e6, 10e3, 400, 4, 1))
    expected = np.array([[1, -1, 0], [0, 1, -1], [-1, 0, 1]]) * 400 / 10e3 / 3**0.5
    np.testing.assert_allclose(transfer, expected, atol=1e-15)


def test_tap_raises_the_ratio_on_its_side() -> None:
    common = {"vector_group": "YNyn0", "tap_step_percent": 2.5, "tap_position": 2}
    upper = transformer_transfer(Transformer("t", "1", "2", 1e6, 10e3, 400, 4, 1, **common))
    lower = transformer_transfer(Transformer("t", "1", "2", 1e6, 10e3, 400, 4, 1, tap_side="to", **common))
    assert upper[0, 0].real == pytest.approx(0.04 / 1.05)
    assert lower[0, 0].real == pytest.approx(0.04 * 1.05)


def test_short_circuit_and_no_load_values() -> None:
    transformer = Transformer("t", "1", "2", 630e3, 20e3, 400, 4, 1, no_load_loss_w=900, no_load_current_percent=0.3)
    z = transformer_impedance(transformer)[0, 0]
    assert abs(z) == pytest.approx(0.04 * 400**2 / 630e3)
    assert z.real == pytest.approx(0.01 * 400**2 / 630e3)
    power = 20e3**2 * np.conj(transformer_shunt(transformer))
    assert power.real == pytest.approx(900)
    assert abs(power) == pytest.approx(0.003 * 630e3)


def test_line_charging_is_kept_from_sequence_values() -> None:
    line = line_type_from_sequence(
        "c",
        r1_ohm_per_km=0.2,
        x1_ohm_per_km=0.1,
        r0_ohm_per_km=0.8,
        x0_ohm_per_km=0.4,
        c1_nf_per_km=300,
        c0_nf_per_km=150,
    )
    assert np.asarray(line.c_nf_per_km)[0, 0] == pytest.approx(250)
    assert np.asarray(line.c_nf_per_km)[0, 1] == pytest.approx(-50)
