"""A small ring with one LV branch, used across the grid tests."""

import pytest

from flexmeter.grid import Area, Bus, Grid, Line, Load, Source, Switch, Transformer, line_type_from_sequence

CABLE = line_type_from_sequence("cable", r1_ohm_per_km=0.2, x1_ohm_per_km=0.1, r0_ohm_per_km=0.8, x0_ohm_per_km=0.4)


@pytest.fixture
def ring() -> Grid:
    r"""(1) source -- l1 -- (2) -- l2 -- (3) -- l3 -- (1), transformer (3) => (4), service line to customer bus (5)."""
    return Grid(
        id="ring",
        buses=(
            Bus("1", 15e3, area="mv"),
            Bus("2", 15e3, area="mv"),
            Bus("3", 15e3, area="mv"),
            Bus("4", 400.0, area="lv"),
            Bus("5", 400.0, phases="b", area="lv"),
        ),
        line_types=(CABLE,),
        lines=(
            Line("l1", "1", "2", "cable", 1.0),
            Line("l2", "2", "3", "cable", 1.0),
            Line("l3", "3", "1", "cable", 1.0),
            Line("service", "4", "5", "cable", 0.02, phases="b"),
        ),
        transformers=(Transformer("t", "3", "4", 400e3, 15e3, 400, 4, 1),),
        switches=(Switch("s1", "l1"), Switch("s2", "l2", closed=False), Switch("s3", "l3")),
        sources=(Source("grid", "1", 15e3),),
        loads=(Load("plant", "2", power_w=(1e3, 1e3, 1e3)), Load("home", "5", phases="b", power_w=(500.0,))),
        areas=(Area("mv", "mv", "1"), Area("lv", "lv", "4", parent="mv")),
    )
