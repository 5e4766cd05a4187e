"""The grid model: what a DSO's network data say, in SI units, component by component.

A `Grid` is a frozen container of frozen components. Everything is phase-wise: a bus has one to three of the phases
a, b, c; a customer is a `Load` on one of them. Voltages of buses are phase to earth (or to the earthed neutral);
nominal voltages are line to line, as on a type plate. Consumption is positive.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Matrix = tuple[tuple[float, ...], ...]
Neutral = Literal["none", "source", "everywhere"]
Level = Literal["mv", "lv", "concentrator"]
Symmetry = Literal["free", "no_zero_sequence", "balanced"]
PHASES = "abc"


class Component(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Anything in a grid that has a name of its own."""

    id: str


class Bus(Component, frozen=True):
    """A busbar or node: nominal line-to-line voltage [V], phases, the area it belongs to, map position [m]."""

    voltage_v: float
    phases: str = PHASES
    area: str = ""
    x_m: float | None = None
    y_m: float | None = None


class LineType(Component, frozen=True):
    """Impedance of a cable or overhead line per kilometre.

    `r_ohm_per_km` and `x_ohm_per_km` are 3x3 (phases) or 4x4 (phases and neutral); with 4x4 `neutral` says how the
    neutral is eliminated: earthed at the transformer only (`source`) or at every bus (`everywhere`, Kron).
    `c_nf_per_km` (3x3) is the shunt capacitance matrix. `rated_current_a` is per phase, 0 = not given.
    """

    r_ohm_per_km: Matrix
    x_ohm_per_km: Matrix
    c_nf_per_km: Matrix = ()
    neutral: Neutral = "none"
    rated_current_a: float = 0.0


class Line(Component, frozen=True):
    """A line section of one type; `phases` are those that exist. Length 0 is a closed connection."""

    from_bus: str
    to_bus: str
    type: str
    length_km: float
    phases: str = PHASES


class Transformer(Component, frozen=True):
    """A two-winding transformer; `from_bus` is the upstream (high-voltage) side.

    `vector_group` e.g. Dyn11, YNyn0, Dd0, Yzn5. Impedances in percent of the rated power, `uk0_percent` and
    `ukr0_percent` are zero-sequence values seen from the to-side (0 = equal to the positive sequence). The tap
    changes the rated voltage of `tap_side` by `tap_step_percent` per step away from `tap_neutral`.

    `phases` other than abc: one or two units of a wye-wye bank, rated as the whole bank of three would be (voltages
    line to line, three times the power of a unit). Units with taps of their own are transformers of their own, in
    parallel: a step-voltage regulator of three units is three transformers of one phase each.
    """

    from_bus: str
    to_bus: str
    rated_power_va: float
    rated_from_v: float
    rated_to_v: float
    uk_percent: float
    ukr_percent: float
    vector_group: str = "Dyn11"
    uk0_percent: float = 0.0
    ukr0_percent: float = 0.0
    no_load_loss_w: float = 0.0
    no_load_current_percent: float = 0.0
    tap_side: Literal["from", "to"] = "from"
    tap_position: int = 0
    tap_neutral: int = 0
    tap_step_percent: float = 0.0
    phases: str = PHASES


class Switch(Component, frozen=True):
    """A switch in series with a branch (line or transformer). The order of switches is the switch status vector."""

    branch: str
    closed: bool = True
    remote: bool = True


class Source(Component, frozen=True):
    """An infeed: line-to-line voltage [V], angle of phase a [rad], and the Thevenin impedance [ohm] (0 = stiff).

    `symmetry` says what an estimator may take for granted of the source's voltages, whose level it always finds
    itself: `free` (three magnitudes, angles 120 degrees apart), `no_zero_sequence` (isolated or compensated neutral:
    a positive and any negative sequence) or `balanced` (one magnitude). A load flow takes them as balanced.
    """

    bus: str
    voltage_v: float
    angle_rad: float = 0.0
    r1_ohm: float = 0.0
    x1_ohm: float = 0.0
    r0_ohm: float = 0.0
    x0_ohm: float = 0.0
    symmetry: Symmetry = "free"


class Load(Component, frozen=True):
    """A customer, plant or generator (negative power) between its phases and the neutral, or between phases.

    `power_w` and `power_var` are the default per phase of `phases` [W, var] at nominal voltage; `() ` = zero.
    `zip` are the shares of constant impedance, current, power. Outside `v_min_pu .. v_max_pu` the load turns into
    the constant impedance of that limit (OpenDSS behaviour; 0 and inf switch it off).
    """

    bus: str
    phases: str = PHASES
    connection: Literal["wye", "delta"] = "wye"
    power_w: tuple[float, ...] = ()
    power_var: tuple[float, ...] = ()
    zip: tuple[float, float, float] = (0.0, 0.0, 1.0)
    v_min_pu: float = 0.0
    v_max_pu: float = 1e9
    kind: Literal["customer", "industrial", "generation", "other"] = "customer"
    nominal_voltage_v: float = 0.0


class Shunt(Component, frozen=True):
    """A constant admittance per phase to earth [S] (capacitor bank, reactor, transformer iron)."""

    bus: str
    phases: str = PHASES
    g_s: tuple[float, ...] = ()
    b_s: tuple[float, ...] = ()


class Area(Component, frozen=True):
    """A part of the grid with its own estimator: the subtree below `head_bus`, inside the area `parent`.

    Source: paper section 4: concentrator (a feeder bus and its customers), lv (a substation), mv.
    """

    level: Level
    head_bus: str
    parent: str = ""


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A whole distribution grid. Use `flexmeter.grid.read_grid` / `write_grid` for files, `validate` to check it."""

    id: str
    buses: tuple[Bus, ...] = ()
    line_types: tuple[LineType, ...] = ()
    lines: tuple[Line, ...] = ()
    transformers: tuple[Transformer, ...] = ()
    switches: tuple[Switch, ...] = ()
    sources: tuple[Source, ...] = ()
    loads: tuple[Load, ...] = ()
    shunts: tuple[Shunt, ...] = ()
    areas: tuple[Area, ...] = ()
    frequency_hz: float = 50.0
    schema: int = 1
    assumptions: tuple[str, ...] = ()

    @property
    def switch_vector(self) -> tuple[bool, ...]:
        """The switch status vector (paper section 5): one boolean per switch, in file order, closed = True."""
        return tuple(switch.closed for switch in self.switches)

    def with_switches(self, vector: tuple[bool, ...]) -> Grid:
        """Return the same grid with another switch status vector."""
        if len(vector) != len(self.switches):
            raise ValueError(f"switch vector has {len(vector)} entries, expected {len(self.switches)}")
        switches = tuple(
            msgspec.structs.replace(switch, closed=bool(closed))
            for switch, closed in zip(self.switches, vector, strict=True)
        )
        return msgspec.structs.replace(self, switches=switches)
