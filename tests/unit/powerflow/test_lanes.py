"""The number type of the kernels: right in every lane, and really vector instructions."""

import platform
import re
from pathlib import Path

import numpy as np
import pytest
from numba import njit

import flexmeter.powerflow.lanes as lanes_module
from flexmeter.powerflow.lanes import (
    LANES,
    block_count,
    lane,
    largest,
    load,
    ready,
    splat,
    square_root,
    store,
    where_positive,
)
from flexmeter.powerflow.sweep import larger


@njit
def arithmetic(w):
    x, y = load(w, 0), load(w, 1)
    store(w, 2, (x + y) * 2.0 - x / y)
    store(w, 3, square_root(x * x))
    store(w, 4, where_positive(y - x, splat(1.0), splat(-1.0)))
    return largest(x), lane(y, 1)


def test_every_lane_computes_as_numpy():
    x, y = np.arange(1.0, LANES + 1), np.linspace(3.0, 1.5, LANES)
    w = np.concatenate([x, y, np.zeros(3 * LANES)])
    top, second = arithmetic(w)
    rows = w.reshape(5, LANES)
    np.testing.assert_allclose(rows[2], (x + y) * 2 - x / y, rtol=1e-15)
    np.testing.assert_allclose(rows[3], x, rtol=1e-15)
    np.testing.assert_array_equal(rows[4], np.where(y > x, 1, -1))
    assert (top, second) == (x.max(), y[1])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for names of x86 registers")
def test_the_machine_code_has_vector_instructions():
    arithmetic(np.ones(5 * LANES))
    code = next(iter(arithmetic.inspect_asm().values()))
    assert re.search(r"v?mulpd", code)
    assert re.search(r"v?sqrtpd", code)


@njit
def larger_of(w):
    store(w, 2, larger(load(w, 0), load(w, 1)))


def test_a_nan_cannot_hide_behind_a_number():
    w = np.zeros(3 * LANES)
    w[:3], w[LANES : LANES + 3] = [np.nan, 1.0, 2.0], [1.0, np.nan, 5.0]
    larger_of(w)
    assert np.isnan(w[2 * LANES : 2 * LANES + 2]).all()
    assert w[2 * LANES + 2] == 5.0


def test_arrays_are_made_ready_and_blocks_counted():
    frozen = np.arange(6.0).reshape(2, 3).T
    frozen.flags.writeable = False
    array = ready(frozen)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert [block_count(n) for n in (0, 1, LANES, LANES + 1)] == [0, 1, 1, 2]


def test_every_module_of_the_kernels_is_in_their_digest():
    package = Path(lanes_module.__file__).parent.parent
    parts = {package / folder / f"{name}.py" for folder, names in lanes_module.PARTS.items() for name in names}
    for folder in lanes_module.PARTS:
        for file in (package / folder).glob("*.py"):
            if re.search(r"^@(inlined|kernel|routine)\b", file.read_text(), re.MULTILINE):
                assert file in parts
    assert all(file.exists() for file in parts)
