"""The network model of a distribution grid (paper sections 4 and 5: grid data and switch status vector).

In: a grid file (own JSON, or a reader's result); out: a validated, frozen `Grid`, its tree under a switch vector and
3x3 impedances for `powerflow` and `estimation`. Open `model.py` first.
"""

from flexmeter.grid.impedance import line_type_from_sequence
from flexmeter.grid.json import decode_grid, encode_grid, grid_schema, read_grid, write_grid
from flexmeter.grid.model import (
    Area,
    Bus,
    Grid,
    Line,
    LineType,
    Load,
    Shunt,
    Source,
    Switch,
    Transformer,
)
from flexmeter.grid.topology import Tree, branches, radial_tree, spanning_tree
from flexmeter.grid.validation import findings, validate

__all__ = [
    "Area",
    "Bus",
    "Grid",
    "Line",
    "LineType",
    "Load",
    "Shunt",
    "Source",
    "Switch",
    "Transformer",
    "Tree",
    "branches",
    "decode_grid",
    "encode_grid",
    "findings",
    "grid_schema",
    "line_type_from_sequence",
    "radial_tree",
    "read_grid",
    "spanning_tree",
    "validate",
    "write_grid",
]
