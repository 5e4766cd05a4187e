"""Small grids for the tests of estimation and load flow."""

import numpy as np

from flexmeter.grid import Area, Bus, Grid, Line, Load, Shunt, Source, Switch, Transformer, line_type_from_sequence

CABLE = line_type_from_sequence("cable", r1_ohm_per_km=0.206, x1_ohm_per_km=0.08, r0_ohm_per_km=0.6, x0_ohm_per_km=0.2)
SERVICE = line_type_from_sequence(
    "service", r1_ohm_per_km=1.15, x1_ohm_per_km=0.08, r0_ohm_per_km=2.3, x0_ohm_per_km=0.2
)
MV = line_type_from_sequence("mv", r1_ohm_per_km=0.161, x1_ohm_per_km=0.117, r0_ohm_per_km=0.8, x0_ohm_per_km=0.45)


def feeder(seed=0, delta=True, shunt=True):
    """About 20 buses: Dyn11 transformer, a branching LV feeder, service lines, a delta load, a shunt, a dead end."""
    rng = np.random.default_rng(seed)
    buses = [Bus("mv", 15e3), Bus("lv", 400.0)]
    lines, loads = [], []
    for k in range(6):
        buses.append(Bus(f"f{k}", 400.0))
        parent = "lv" if k == 0 else ("f1" if k == 4 else f"f{k - 1}")
        lines.append(Line(f"m{k}", parent, f"f{k}", "cable", float(rng.uniform(0.02, 0.05))))
        if k in {1, 3}:
            continue
        for c in range(2):
            phase = "abc"[(k + c) % 3]
            buses.append(Bus(f"f{k}c{c}", 400.0, phases=phase))
            lines.append(
                Line(f"s{k}{c}", f"f{k}", f"f{k}c{c}", "service", float(rng.uniform(0.01, 0.03)), phases=phase)
            )
            p = float(rng.gamma(2.0, 1500.0) + 200)
            loads.append(Load(f"d{k}{c}", f"f{k}c{c}", phases=phase, power_w=(p,), power_var=(0.3 * p,)))
    if delta:
        loads.append(Load("delta", "f5", phases="ab", connection="delta", power_w=(3e3,), power_var=(500.0,)))
    loads.append(Load("three", "f3", power_w=(2e3, 1e3, -1.5e3), power_var=(200.0, 100.0, 0.0)))
    buses.append(Bus("dead", 400.0))
    lines.append(Line("md", "f2", "dead", "cable", 0.05))
    shunts = (Shunt("bank", "f5", g_s=(1e-4,) * 3, b_s=(2e-2, 1e-2, 2e-2)),) if shunt else ()
    return Grid(
        id="feeder",
        buses=tuple(buses),
        line_types=(CABLE, SERVICE),
        lines=tuple(lines),
        transformers=(Transformer("t", "mv", "lv", 250e3, 15e3, 400.0, 4.0, 1.2),),
        sources=(Source("grid", "mv", 15.3e3),),
        loads=tuple(loads),
        shunts=shunts,
    )


def three_levels(n_lv=2, vector_group="Dyn11", unbalance=0.3, seed=0):
    """An MV feeder with LV grids of two feeders and concentrators, an unbalanced industrial load, areas."""
    rng = np.random.default_rng(seed)
    buses, lines, loads, transformers = [Bus("S", 15e3, area="mv")], [], [], []
    areas = [Area("mv", "mv", "S")]
    for i in range(n_lv):
        buses += [Bus(f"M{i}", 15e3, area="mv"), Bus(f"L{i}", 400.0, area=f"lv{i}")]
        lines.append(Line(f"ml{i}", "S" if i == 0 else f"M{i - 1}", f"M{i}", "mv", float(rng.uniform(1, 5))))
        areas.append(Area(f"lv{i}", "lv", f"L{i}", parent="mv"))
        transformers.append(
            Transformer(f"t{i}", f"M{i}", f"L{i}", 630e3, 15e3, 400.0, 4.0, 1.0, vector_group=vector_group)
        )
        for f in range(2):
            above = f"L{i}"
            for k in range(3):
                bus = f"L{i}f{f}k{k}"
                buses.append(Bus(bus, 400.0, area=f"lv{i}"))
                lines.append(Line("l" + bus, above, bus, "cable", 0.04))
                areas.append(Area("c" + bus, "concentrator", bus, parent=f"lv{i}"))
                above = bus
                for c in range(5):
                    phase = "ab"[c % 2] if k == 1 else "abc"[c % 3]  # one concentrator without customers on c
                    end = f"{bus}c{c}"
                    buses.append(Bus(end, 400.0, area="c" + bus, phases=phase))
                    lines.append(Line("s" + end, bus, end, "service", float(rng.uniform(0.01, 0.03)), phases=phase))
                    p = float(rng.gamma(2.0, 400.0) + 50)
                    loads.append(Load("d" + end, end, phases=phase, power_w=(p,), power_var=(0.3 * p,)))
    power = np.array([1 + unbalance, 1, 1 - unbalance]) * 300e3
    loads.append(Load("plant", f"M{n_lv - 1}", power_w=tuple(power), power_var=tuple(0.3 * power), kind="industrial"))
    return Grid(
        id="levels",
        buses=tuple(buses),
        line_types=(MV, CABLE, SERVICE),
        lines=tuple(lines),
        transformers=tuple(transformers),
        sources=(Source("grid", "S", 15.2e3),),
        loads=tuple(loads),
        areas=tuple(areas),
    )


def ring(closed=False, charging=True):
    """A 13-bus 15 kV ring with unbalanced loads, open between bus 7 and 8 unless closed."""
    rng = np.random.default_rng(2)
    c = {"c1_nf_per_km": 250.0, "c0_nf_per_km": 250.0} if charging else {}
    cable = line_type_from_sequence(
        "mv", r1_ohm_per_km=0.206, x1_ohm_per_km=0.12, r0_ohm_per_km=0.8, x0_ohm_per_km=0.45, **c
    )
    length = rng.uniform(0.8, 2.5, 13)
    lines = [Line(f"l{k}", f"b{k}", f"b{(k + 1) % 13}", "mv", float(length[k])) for k in range(13)]
    loads = []
    for k in range(1, 13):
        p = rng.uniform(30e3, 80e3) * np.array([1.3, 1.0, 0.7])
        p = -0.5e6 * np.ones(3) if k == 8 else p
        loads.append(Load(f"d{k}", f"b{k}", power_w=tuple(p), power_var=tuple(0.3 * p)))
    return Grid(
        id="ring",
        buses=tuple(Bus(f"b{k}", 15e3) for k in range(13)),
        line_types=(cable,),
        lines=tuple(lines),
        switches=(Switch("s7", "l7", closed=closed),),
        sources=(Source("grid", "b0", 15.3e3, r1_ohm=0.045, x1_ohm=0.45, r0_ohm=0.045, x0_ohm=0.45),),
        loads=tuple(loads),
    )
