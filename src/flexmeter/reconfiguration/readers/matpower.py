"""MATPOWER case files (.m, version 2): the matrices and the unit conversions that distribution cases end with."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flexmeter.errors import InputError
from flexmeter.reconfiguration.network import FeederNetwork, FloatArray, build_network

BUS = {"BUS_I": 0, "BUS_TYPE": 1, "PD": 2, "QD": 3, "GS": 4, "BS": 5, "BASE_KV": 9}
BRANCH = {"F_BUS": 0, "T_BUS": 1, "BR_R": 2, "BR_X": 3, "BR_B": 4, "RATE_A": 5, "TAP": 8, "SHIFT": 9, "BR_STATUS": 10}
GEN = {"GEN_BUS": 0, "PG": 1, "QG": 2, "VG": 5, "GEN_STATUS": 7}
COLUMNS = {"bus": BUS, "branch": BRANCH, "gen": GEN}
REFERENCE = 3

MATRIX = re.compile(r"mpc\.(\w+)\s*=\s*\[(.*?)\]\s*;?", re.S)
CELLS = re.compile(r"mpc\.\w+\s*=\s*\{.*?\}\s*;?", re.S)
COLUMN = r"mpc\.(\w+)\(\s*:\s*,\s*\[?([\w,:\s]+?)\]?\s*\)"
SCALED = re.compile(rf"{COLUMN}\s*=\s*{COLUMN}\s*(?:\.?([*/])\s*(.+))?")
SCALAR = re.compile(r"(mpc\.)?(\w+)\s*=\s*(.+)")
ELEMENT = re.compile(r"mpc\.(\w+)\(\s*(\d+)\s*,\s*(\w+)\s*\)")
IGNORED = re.compile(r"^(function\b|\[.*\]\s*=\s*idx_\w+|mpc\.version|define_constants|return|end)")

OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
FUNCTIONS: dict[str, Callable[[float], float]] = {
    name: getattr(math, name) for name in ("sqrt", "sin", "cos", "tan", "asin", "acos", "atan")
}


def read_matpower(path: Path) -> FeederNetwork:
    """Read a case as a balanced feeder network.

    Reference buses are the substations; generators elsewhere feed in their PG and QG; branches out of service are
    open ties; a tap is an off-nominal ratio; RATE_A [MVA] is the rating, 0 = none; the bus voltage limits are not
    part of the network. A phase shift is left out, as it changes no loss in a radial state. Statements other than
    the usual conversions of units are refused. A case given per phase (case533mt) keeps its per-phase powers.

    Raises
    ------
    InputError
        The file cannot be read or holds something that is not understood (named).
    GridError
        The values do not make a network.
    """
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    matrices, base_va = _parse(path, text)
    missing = [name for name in ("bus", "branch", "gen") if name not in matrices]
    if missing:
        raise InputError(f"{path}: no matrix mpc.{missing[0]}: not a MATPOWER case of version 2")
    return _network(path.stem, matrices["bus"], matrices["branch"], matrices["gen"], base_va)


def _parse(path: Path, text: str) -> tuple[dict[str, FloatArray], float]:
    # Comments first: one that ends in an ellipsis must not swallow the next line.
    text = re.sub(r"\.\.\.[^\n]*\n", " ", re.sub(r"%[^\n]*", "", text))
    text = CELLS.sub("", text)
    scalars: dict[str, float] = {}
    matrices: dict[str, FloatArray] = {}
    for name, body in MATRIX.findall(text):
        if name in COLUMNS:
            matrices[name] = _matrix(path, name, body)
    for line in MATRIX.sub("", text).splitlines():
        for statement in filter(None, (part.strip() for part in line.split(";"))):
            if not IGNORED.match(statement):
                _apply(path, statement, scalars, matrices)
    if "baseMVA" not in scalars:
        raise InputError(f"{path}: no mpc.baseMVA")
    return matrices, scalars["baseMVA"] * 1e6


def _matrix(path: Path, name: str, body: str) -> FloatArray:
    rows = [row.replace(",", " ").split() for row in re.split(r"[;\n]", body) if row.strip()]
    width = min((len(row) for row in rows), default=0)
    if width <= max(COLUMNS[name].values()):
        raise InputError(f"{path}: mpc.{name} has {width} columns, expected at least {max(COLUMNS[name].values()) + 1}")
    return np.array([[_number(path, cell, {}) for cell in row[:width]] for row in rows])


def _apply(path: Path, statement: str, scalars: dict[str, float], matrices: dict[str, FloatArray]) -> None:
    """Carry out one conversion of units."""
    if found := SCALED.fullmatch(statement):
        name, columns, again, source, sign, expression = found.groups()
        if name not in matrices or again not in matrices:
            return
        target, origin = _positions(name, columns), _positions(again, source)
        known = all(0 <= k < matrices[m].shape[1] for m, ks in ((name, target), (again, origin)) for k in ks)
        if not known or len(target) != len(origin):
            raise InputError(f"{path}: statement not understood: {statement}")
        factor = _number(path, expression, scalars) if sign else 1.0
        with np.errstate(divide="ignore", invalid="ignore"):  # a base of zero is reported with its bus
            value = matrices[again][:, origin]
            matrices[name][:, target] = np.divide(value, factor) if sign == "/" else value * factor
        return
    if found := SCALAR.fullmatch(statement):
        expression = ELEMENT.sub(lambda match: _element(matrices, match), found[3]).replace("mpc.", "")
        scalars[found[2]] = _number(path, expression, scalars)
        return
    raise InputError(f"{path}: statement not understood: {statement[:80]}")


def _positions(matrix: str, columns: str) -> list[int]:
    """Return the positions of columns given by name, by number or as a range of numbers; -1 for an unknown name."""
    positions: list[int] = []
    for column in columns.replace(",", " ").split():
        first, _, last = column.partition(":")
        if first.isdigit() and (last or first).isdigit():
            positions += range(int(first) - 1, int(last or first))
        else:
            positions.append(COLUMNS.get(matrix, {}).get(column, -1))
    return positions


def _element(matrices: dict[str, FloatArray], match: re.Match[str]) -> str:
    return repr(float(matrices[match[1]][int(match[2]) - 1, COLUMNS[match[1]][match[3]]]))


def _number(path: Path, expression: str, scalars: dict[str, float]) -> float:
    """Evaluate an arithmetic expression of numbers, known names and functions."""
    try:
        return float(expression)
    except ValueError:
        pass
    try:
        return _value(ast.parse(expression.strip().replace("^", "**"), mode="eval").body, scalars)
    except (SyntaxError, KeyError, ValueError, ZeroDivisionError):
        raise InputError(f"{path}: {expression.strip()[:60]!r} is not a number") from None


def _value(node: ast.expr, scalars: dict[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            return {"Inf": math.inf, "pi": math.pi, **scalars}[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, scalars)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
            return OPERATORS[type(sign)](_value(left, scalars), _value(right, scalars))
        case ast.Call(func=ast.Name(id=name), args=[argument]) if name in FUNCTIONS:
            return FUNCTIONS[name](_value(argument, scalars))
    raise ValueError("not arithmetic")


def _network(name: str, bus: FloatArray, branch: FloatArray, gen: FloatArray, base_va: float) -> FeederNetwork:
    ids = [f"{number:g}" for number in bus[:, BUS["BUS_I"]]]
    position = {bus_id: i for i, bus_id in enumerate(ids)}
    slack = [i for i in range(len(bus)) if bus[i, BUS["BUS_TYPE"]] == REFERENCE]
    nominal = bus[:, BUS["BASE_KV"]] * 1e3
    unknown = [bus_id for bus_id, volts in zip(ids, nominal, strict=True) if not volts > 0]
    if unknown:
        raise InputError(f"{name}: mpc.bus {', '.join(unknown[:6])}: BASE_KV is not positive, expected kV line to line")
    p, q = bus[:, BUS["PD"]] * 1e6, bus[:, BUS["QD"]] * 1e6
    voltage = np.ones(len(bus))
    for row in gen[gen[:, GEN["GEN_STATUS"]] > 0]:
        at = position.get(f"{row[GEN['GEN_BUS']]:g}")
        if at is None:
            raise InputError(f"{name}: mpc.gen names bus {row[GEN['GEN_BUS']]:g}, which does not exist")
        if at in slack:
            voltage[at] = row[GEN["VG"]]
        else:
            p[at] -= row[GEN["PG"]] * 1e6
            q[at] -= row[GEN["QG"]] * 1e6
    to_bus = [f"{number:g}" for number in branch[:, BRANCH["T_BUS"]]]
    end = np.array([position.get(bus_id, 0) for bus_id in to_bus])
    base_ohm = nominal[end] ** 2 / base_va
    tap = branch[:, BRANCH["TAP"]]
    rate = branch[:, BRANCH["RATE_A"]] * 1e6 / (np.sqrt(3.0) * nominal[end])
    from_bus = [f"{number:g}" for number in branch[:, BRANCH["F_BUS"]]]
    start = np.array([position.get(bus_id, 0) for bus_id in from_bus])
    transformer = (tap != 0) | (nominal[start] != nominal[end])
    return build_network(
        name=name,
        bus_ids=ids,
        branch_ids=[str(i + 1) for i in range(len(branch))],
        from_bus=from_bus,
        to_bus=to_bus,
        r_ohm=branch[:, BRANCH["BR_R"]] * base_ohm,
        x_ohm=branch[:, BRANCH["BR_X"]] * base_ohm,
        nominal_voltage_v=nominal,
        slack_buses=[ids[i] for i in slack],
        slack_voltage_v=(voltage * nominal)[slack] if slack else None,
        p_w=p,
        q_var=q,
        closed=branch[:, BRANCH["BR_STATUS"]] > 0,
        rated_current_a=np.where(rate > 0, rate, np.nan),
        charging_s=branch[:, BRANCH["BR_B"]] / base_ohm,
        ratio=np.where(tap != 0, tap, 1.0),
        kind=["transformer" if is_one else "line" for is_one in transformer],
        shunt_g_s=bus[:, BUS["GS"]] * 1e6 / nominal**2,
        shunt_b_s=bus[:, BUS["BS"]] * 1e6 / nominal**2,
    )
