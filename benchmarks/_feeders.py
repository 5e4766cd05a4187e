"""Cases of the estimation and load-flow benchmarks, for Flexmeter and for power-grid-model alike. Seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from power_grid_model import LoadGenType, MeasuredTerminalType, WindingType, initialize_array

from flexmeter.grid import Bus, Grid, Line, Load, Source, line_type_from_sequence


@dataclass(frozen=True)
class Feeder:
    """A grid with its customers: `phase` -1 = all three; `power` [VA] per load at scale 1."""

    name: str
    grid: Grid
    bus: np.ndarray
    phase: np.ndarray
    power: np.ndarray
    voltage_v: float


def european_lv() -> Feeder:
    """The IEEE European LV Test Feeder, transformer included."""
    from flexmeter.scenario.european_lv import european_lv_grid  # here: a forest's memory is to be its own

    grid = european_lv_grid()
    number = {bus.id: k for k, bus in enumerate(grid.buses)}
    power = np.array([complex(load.power_w[0], load.power_var[0]) for load in grid.loads])
    bus = np.array([number[load.bus] for load in grid.loads])
    phase = np.array(["abc".index(load.phases) for load in grid.loads])
    return Feeder("eulv", grid, bus, phase, power, 416.0)


def lv_feeder(customers: int, seed: int = 1) -> Feeder:
    """400 V: feeders of 20 buses, four single-phase customers each, every one on its own service cable."""
    rng = np.random.default_rng(seed)
    main = line_type_from_sequence(
        "main", r1_ohm_per_km=0.206, x1_ohm_per_km=0.08, r0_ohm_per_km=0.824, x0_ohm_per_km=0.3
    )
    service = line_type_from_sequence(
        "serv", r1_ohm_per_km=1.15, x1_ohm_per_km=0.09, r0_ohm_per_km=4.6, x0_ohm_per_km=0.3
    )
    buses, lines, loads, at, phases, power = [Bus("0", 400.0)], [], [], [], [], []
    for feeder in range(max(1, customers // 80)):
        names: list[str] = []
        for k in range(20):
            branch_off = k >= 3 and rng.random() < 0.2
            above = names[int(rng.integers(len(names)))] if branch_off else (names[-1] if names else "0")
            names.append(f"f{feeder}n{k}")
            buses.append(Bus(names[-1], 400.0))
            lines.append(Line("l" + names[-1], above, names[-1], "main", float(rng.uniform(0.02, 0.04))))
        for name in names:
            for c in range(4):
                end = f"{name}c{c}"
                phase = int(rng.integers(3))
                p = float(rng.gamma(2.0, 450.0) + 50)
                q = p * float(np.tan(np.arccos(rng.uniform(0.9, 0.99))))
                buses.append(Bus(end, 400.0))
                lines.append(Line("s" + end, name, end, "serv", float(rng.uniform(0.01, 0.03))))
                loads.append(Load("d" + end, end, phases="abc"[phase], power_w=(p,), power_var=(q,)))
                at.append(len(buses) - 1)
                phases.append(phase)
                power.append(complex(p, q))
    grid = Grid(
        "lv", tuple(buses), (main, service), tuple(lines), sources=(Source("s", "0", 408.0),), loads=tuple(loads)
    )
    return Feeder(f"lv{len(buses)}", grid, np.array(at), np.array(phases), np.array(power), 400.0)


def street(seed: int) -> Grid:
    """400 V, no two alike: 60 to 140 customers on one to four feeders, cables, lengths and phases drawn by the seed.

    One customer in ten has three phases; the bus of every other one has its own phase only.
    """
    rng = np.random.default_rng(seed)
    types = tuple(
        line_type_from_sequence(f"t{k}", r1_ohm_per_km=r, x1_ohm_per_km=0.08, r0_ohm_per_km=4 * r, x0_ohm_per_km=0.3)
        for k, r in enumerate((0.125, 0.206, 0.32, 0.64, 1.15))
    )
    buses, lines, loads = [Bus("0", 400.0)], [], []
    heads = [["0"] for _ in range(int(rng.integers(1, 5)))]
    for k in range(int(rng.integers(15, 36))):
        buses.append(Bus(f"n{k}", 400.0))
        feeder = heads[int(rng.integers(len(heads)))]
        above = feeder[-1] if rng.random() < 0.8 else feeder[int(rng.integers(len(feeder)))]
        lines.append(Line(f"l{k}", above, f"n{k}", f"t{rng.integers(3)}", float(rng.uniform(0.01, 0.05))))
        feeder.append(f"n{k}")
    joints = buses[1:]
    for c in range(int(rng.integers(60, 141))):
        phases = "abc" if rng.random() < 0.1 else "abc"[int(rng.integers(3))]
        buses.append(Bus(f"c{c}", 400.0, phases=phases))
        above = joints[int(rng.integers(len(joints)))].id
        lines.append(
            Line(f"s{c}", above, f"c{c}", f"t{rng.integers(3, 5)}", float(rng.uniform(0.01, 0.03)), phases=phases)
        )
        p = rng.gamma(2.0, 450.0 / len(phases), len(phases)) + 50
        q = p * np.tan(np.arccos(rng.uniform(0.9, 0.99)))
        loads.append(Load(f"d{c}", f"c{c}", phases=phases, power_w=tuple(p.tolist()), power_var=tuple(q.tolist())))
    return Grid(
        f"street {seed}", tuple(buses), types, tuple(lines), sources=(Source("s", "0", 408.0),), loads=tuple(loads)
    )


def mv_feeder(seed: int = 2) -> Feeder:
    """15 kV ring of 13 buses, opened, with two industrial loads and a generator; three-phase loads."""
    rng = np.random.default_rng(seed)
    cable = line_type_from_sequence(
        "mv", r1_ohm_per_km=0.206, x1_ohm_per_km=0.12, r0_ohm_per_km=0.8, x0_ohm_per_km=0.45
    )
    power = rng.uniform(80e3, 250e3, 12) * (1 + 0.3j)
    power[7], power[10], power[11] = -1.5e6, 900e3 + 350e3j, 700e3 + 250e3j
    lines = tuple(
        Line(f"l{k}", f"b{k}", f"b{(k + 1) % 13}", "mv", float(rng.uniform(0.8, 2.5))) for k in range(13) if k != 7
    )
    loads = tuple(
        Load(f"d{k + 1}", f"b{k + 1}", power_w=(s.real / 3,) * 3, power_var=(s.imag / 3,) * 3)
        for k, s in enumerate(power)
    )
    grid = Grid(
        "mv",
        tuple(Bus(f"b{k}", 15e3) for k in range(13)),
        (cable,),
        lines,
        sources=(Source("s", "b0", 15.3e3),),
        loads=loads,
    )
    return Feeder("mv13", grid, np.arange(1, 13), np.full(12, -1), power, 15e3)


def padded(feeder: Feeder) -> Grid:
    """The same grid with every customer on three phases, two of them idle: what power-grid-model has to solve."""
    loads = []
    for k, load in enumerate(feeder.grid.loads):
        s = np.zeros(3, complex)
        s[feeder.phase[k] if feeder.phase[k] >= 0 else slice(None)] = (
            feeder.power[k] if feeder.phase[k] >= 0 else feeder.power[k] / 3
        )
        loads.append(Load(load.id, load.bus, power_w=tuple(s.real.tolist()), power_var=tuple(s.imag.tolist())))
    g = feeder.grid
    return Grid(
        g.id,
        tuple(Bus(bus.id, bus.voltage_v) for bus in g.buses),
        g.line_types,
        g.lines,
        transformers=g.transformers,
        sources=g.sources,
        loads=tuple(loads),
    )


def multipliers(feeder: Feeder, steps: int, seed: int = 3) -> np.ndarray:
    """(steps, n_load) of a day: two peaks times lognormal noise."""
    rng = np.random.default_rng(seed)
    hour = np.linspace(0, 24, steps, endpoint=False)
    shape = 0.35 + 0.35 * np.exp(-(((hour - 8) / 2) ** 2)) + 0.65 * np.exp(-(((hour - 20) / 2.5) ** 2))
    return shape[:, None] * rng.lognormal(0, 0.3, (steps, len(feeder.power)))


def peer_grid(feeder: Feeder) -> dict[str, np.ndarray]:
    """power-grid-model input: nodes, lines, source, three-phase loads, Dyn transformers if there are."""
    grid, number = feeder.grid, {bus.id: k for k, bus in enumerate(feeder.grid.buses)}
    n, types = len(grid.buses), {item.id: item for item in grid.line_types}
    node = initialize_array("input", "node", n)
    node["id"], node["u_rated"] = np.arange(n), [bus.voltage_v for bus in grid.buses]
    line = initialize_array("input", "line", len(grid.lines))
    line["id"] = n + np.arange(len(grid.lines))
    line["from_node"] = [number[item.from_bus] for item in grid.lines]
    line["to_node"] = [number[item.to_bus] for item in grid.lines]
    line["from_status"] = line["to_status"] = 1
    z = np.array([_own_and_mutual(types[item.type], item.length_km) for item in grid.lines])
    line["r1"], line["x1"] = (z[:, 0] - z[:, 1]).real, (z[:, 0] - z[:, 1]).imag
    line["r0"], line["x0"] = (z[:, 0] + 2 * z[:, 1]).real, (z[:, 0] + 2 * z[:, 1]).imag
    line["c1"] = line["c0"] = line["tan1"] = line["tan0"] = 0
    line["i_n"] = 500
    source = initialize_array("input", "source", 1)
    infeed = grid.sources[0]
    rated = next(bus.voltage_v for bus in grid.buses if bus.id == infeed.bus)
    source["id"], source["node"], source["status"] = 10**6, number[infeed.bus], 1
    source["u_ref"], source["sk"] = infeed.voltage_v / rated, 1e16
    if infeed.x1_ohm:
        source["sk"] = rated**2 / abs(complex(infeed.r1_ohm, infeed.x1_ohm))
        source["rx_ratio"] = infeed.r1_ohm / infeed.x1_ohm
    load = initialize_array("input", "asym_load", len(grid.loads))
    load["id"] = 2 * 10**6 + np.arange(len(grid.loads))
    load["node"], load["status"], load["type"] = feeder.bus, 1, LoadGenType.const_power
    s = per_phase(feeder)
    load["p_specified"], load["q_specified"] = s.real, s.imag
    parts = {"node": node, "line": line, "source": source, "asym_load": load}
    return {**parts, "transformer": _peer_transformers(grid, number)} if grid.transformers else parts


def source_node(feeder: Feeder) -> int:
    """Return the number of the source's bus."""
    return [bus.id for bus in feeder.grid.buses].index(feeder.grid.sources[0].bus)


def _peer_transformers(grid: Grid, number: dict[str, int]) -> np.ndarray:
    result = initialize_array("input", "transformer", len(grid.transformers))
    for k, t in enumerate(grid.transformers):
        item = result[k : k + 1]
        item["id"], item["from_node"], item["to_node"] = 5 * 10**6 + k, number[t.from_bus], number[t.to_bus]
        item["from_status"] = item["to_status"] = 1
        item["u1"], item["u2"], item["sn"] = t.rated_from_v, t.rated_to_v, t.rated_power_va
        item["uk"], item["pk"] = t.uk_percent / 100, t.ukr_percent / 100 * t.rated_power_va
        item["i0"] = item["p0"] = 0.0
        item["winding_from"], item["winding_to"] = WindingType.delta, WindingType.wye_n
        item["clock"] = int(t.vector_group.removeprefix("Dyn"))
        item["tap_side"] = item["tap_pos"] = item["tap_min"] = item["tap_max"] = item["tap_nom"] = 0
        item["tap_size"] = 0.0
    return result


def _own_and_mutual(line_type: object, length: float) -> tuple[complex, complex]:
    r, x = np.asarray(line_type.r_ohm_per_km), np.asarray(line_type.x_ohm_per_km)  # type: ignore[attr-defined]
    return complex(r[0, 0], x[0, 0]) * length, complex(r[0, 1], x[0, 1]) * length


def per_phase(feeder: Feeder) -> np.ndarray:
    """(n_load, 3) complex power."""
    s = np.zeros((len(feeder.power), 3), complex)
    for k, phase in enumerate(feeder.phase):
        s[k, :] = feeder.power[k] / 3 if phase < 0 else 0
        if phase >= 0:
            s[k, phase] = feeder.power[k]
    return s


def peer_sensors(feeder: Feeder, idle: float = 1.0) -> dict[str, np.ndarray]:
    """Power and voltage sensors on every load, voltage on the source bus; values come with the update."""
    n = len(feeder.power)
    power = initialize_array("input", "asym_power_sensor", n)
    power["id"], power["measured_object"] = 3 * 10**6 + np.arange(n), 2 * 10**6 + np.arange(n)
    power["measured_terminal_type"] = MeasuredTerminalType.load
    power["p_measured"] = power["q_measured"] = 0
    power["p_sigma"] = power["q_sigma"] = idle
    voltage = initialize_array("input", "asym_voltage_sensor", n + 1)
    voltage["id"] = 4 * 10**6 + np.arange(n + 1)
    voltage["measured_object"] = np.append(source_node(feeder), feeder.bus)
    nominal = np.array([bus.voltage_v for bus in feeder.grid.buses])[voltage["measured_object"], None] / np.sqrt(3)
    voltage["u_measured"], voltage["u_sigma"] = nominal, 0.01 * nominal[:, 0]
    return {"asym_power_sensor": power, "asym_voltage_sensor": voltage}
