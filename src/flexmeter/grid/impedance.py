"""Line and transformer impedances as 3x3 phase matrices [ohm]."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from flexmeter.grid.model import LineType, Matrix, Neutral, Transformer

ComplexMatrix = NDArray[np.complex128]

ROTATION = np.exp(2j * np.pi / 3)
SEQUENCE = np.array([[1, 1, 1], [1, ROTATION**2, ROTATION], [1, ROTATION, ROTATION**2]])
"""Fortescue matrix A: phase = A @ (zero, positive, negative)."""
VECTOR_GROUP = re.compile(r"^(YN|Y|D|ZN|Z)(yn|y|d|zn|z)(\d{1,2})$")


def sequence_to_phase(z1: complex, z0: complex) -> ComplexMatrix:
    """Return the 3x3 phase matrix of a transposed element from sequence values.

    Self = (z0 + 2 z1) / 3, mutual = (z0 - z1) / 3 (Kersting, Distribution System Modeling and Analysis, section 4.1).
    """
    mutual = (z0 - z1) / 3
    return np.asarray(np.full((3, 3), mutual) + np.eye(3) * z1)


def reduce_neutral(z: ComplexMatrix, neutral: Neutral) -> ComplexMatrix:
    """Return the 3x3 matrix of a four-wire line [same unit as z].

    `source`: neutral earthed at the transformer only, exact for phase-to-neutral voltages:
    Z[i,j] - Z[i,n] - Z[n,j] + Z[n,n]. `everywhere`: Kron reduction Z[i,j] - Z[i,n] Z[n,j] / Z[n,n].
    """
    if z.shape == (3, 3):
        return z
    p, n, nn = z[:3, :3], z[:3, 3], z[3, 3]
    if neutral == "source":
        return np.asarray(p - n[:, None] - z[3, :3][None, :] + nn)
    return np.asarray(p - np.outer(n, z[3, :3]) / nn)


def line_type_from_sequence(
    id: str,
    *,
    r1_ohm_per_km: float,
    x1_ohm_per_km: float,
    r0_ohm_per_km: float,
    x0_ohm_per_km: float,
    c1_nf_per_km: float = 0.0,
    c0_nf_per_km: float = 0.0,
    rated_current_a: float = 0.0,
) -> LineType:
    """Return a `LineType` with the phase matrices of positive- and zero-sequence values per km."""
    z = sequence_to_phase(complex(r1_ohm_per_km, x1_ohm_per_km), complex(r0_ohm_per_km, x0_ohm_per_km))
    c = sequence_to_phase(complex(c1_nf_per_km), complex(c0_nf_per_km)).real
    charging = as_matrix(c) if c1_nf_per_km or c0_nf_per_km else ()
    return LineType(
        id=id,
        r_ohm_per_km=as_matrix(z.real),
        x_ohm_per_km=as_matrix(z.imag),
        c_nf_per_km=charging,
        rated_current_a=rated_current_a,
    )


def as_matrix(values: NDArray[np.float64]) -> Matrix:
    """Return a nested tuple of floats."""
    return tuple(tuple(float(v) for v in row) for row in values)


def line_impedance_per_km(line_type: LineType) -> ComplexMatrix:
    """Return the 3x3 series impedance [ohm/km] with the neutral eliminated as the type says."""
    z = np.asarray(line_type.r_ohm_per_km) + 1j * np.asarray(line_type.x_ohm_per_km)
    return reduce_neutral(z, line_type.neutral)


def line_admittance_per_km(line_type: LineType, frequency_hz: float) -> ComplexMatrix:
    """Return the 3x3 shunt admittance [S/km], zero where no capacitance is given."""
    if not line_type.c_nf_per_km:
        return np.zeros((3, 3), complex)
    return 2j * np.pi * frequency_hz * 1e-9 * np.asarray(line_type.c_nf_per_km)


def transformer_transfer(transformer: Transformer) -> ComplexMatrix:
    """Return T with V_to = T V_from at no load (3x3, phase-to-earth voltages).

    In sequence components: positive turns by -30 degrees times the clock number, negative by +, zero passes only
    through earthed stars on both sides. T = A diag(t0, t1, t2) A^-1, times the tapped ratio.
    """
    primary, secondary, clock = parse_vector_group(transformer.vector_group)
    tap = 1 + (transformer.tap_position - transformer.tap_neutral) * transformer.tap_step_percent / 100
    ratio = transformer.rated_to_v / transformer.rated_from_v
    ratio = ratio / tap if transformer.tap_side == "from" else ratio * tap
    shift = np.exp(-1j * np.pi / 6 * clock)
    zero = _zero_sequence_transfer(primary, secondary, clock)
    diagonal = np.diag([zero, shift, np.conj(shift)])
    return np.asarray(ratio * SEQUENCE @ diagonal @ np.linalg.inv(SEQUENCE))


def _zero_sequence_transfer(primary: str, secondary: str, clock: int) -> float:
    if primary == "YN" and secondary == "yn":
        return -1.0 if clock == 6 else 1.0
    return 0.0


def parse_vector_group(vector_group: str) -> tuple[str, str, int]:
    """Return (primary winding, secondary winding, clock number); `ValueError` if it is none."""
    match = VECTOR_GROUP.match(vector_group)
    if match is None or int(match[3]) > 11:
        raise ValueError(f"vector group {vector_group!r}: expected e.g. Dyn11, YNyn0, Dd0, Yzn5")
    return match[1], match[2], int(match[3])


def transformer_impedance(transformer: Transformer) -> ComplexMatrix:
    """Return the 3x3 series impedance seen from the to-side [ohm]."""
    base = transformer.rated_to_v**2 / transformer.rated_power_va
    z1 = _percent_impedance(transformer.uk_percent, transformer.ukr_percent) * base
    z0 = z1
    if transformer.uk0_percent:
        z0 = _percent_impedance(transformer.uk0_percent, transformer.ukr0_percent) * base
    return sequence_to_phase(z1, z0)


def _percent_impedance(uk_percent: float, ukr_percent: float) -> complex:
    reactive = max(uk_percent**2 - ukr_percent**2, 0.0) ** 0.5
    return complex(ukr_percent, reactive) / 100


def transformer_shunt(transformer: Transformer) -> complex:
    """Return the no-load admittance per phase at the from-side [S] (iron losses and magnetising current)."""
    voltage2 = transformer.rated_from_v**2
    total = transformer.no_load_current_percent / 100 * transformer.rated_power_va
    reactive = max(total**2 - transformer.no_load_loss_w**2, 0.0) ** 0.5
    return complex(transformer.no_load_loss_w, -reactive) / voltage2
