"""The number type of the kernels: right in every lane, and really vector instructions."""

import platform
import re
from pathlib import Path

import numpy as np
import pytest
from numba import njit

import flexmeter.powerflow.compiling as compiling_module
from flexmeter.powerflow.compiling import WHOLE
from flexmeter.powerflow.lanes import (
    LANES,
    block_count,
    lane,
    largest,
    load,
    ready,
    square_root,
    store,
    where_positive,
    width,
    work_array,
)
from flexmeter.powerflow.sweep import larger


@njit(**WHOLE)
def arithmetic(w):
    x, y = load(w, 0), load(w, 1)
    store(w, 2, (x + y) * 2.0 - x / y)
    store(w, 3, square_root(x * x))
    store(w, 4, where_positive(y - x, 1.0, -1.0))
    total = 0.0
    for k in range(2):
        total = total - load(w, k)
    store(w, 5, total)
    store(w, 6, 7.0)
    return largest(x), lane(y, width(y) - 1)


@pytest.mark.parametrize("n", [1, LANES])
def test_every_lane_computes_as_numpy(n):
    x, y = np.arange(1.0, n + 1), np.linspace(3.0, 1.5, n)
    w = work_array(7, n)
    assert w.ctypes.data % 64 == 0
    rows = w["lane"] if n > 1 else w[:, None]
    rows[:2] = x, y
    top, last = arithmetic(w)
    np.testing.assert_allclose(rows[2], (x + y) * 2 - x / y, rtol=1e-15)
    np.testing.assert_allclose(rows[3], x, rtol=1e-15)
    np.testing.assert_array_equal(rows[4], np.where(y > x, 1, -1))
    np.testing.assert_allclose(rows[5], -x - y, rtol=1e-15)
    np.testing.assert_array_equal(rows[6], 7.0)
    assert (top, last) == (x.max(), y[-1])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for names of x86 registers")
def test_the_machine_code_has_vector_instructions():
    arithmetic(work_array(7))
    code = next(text for key, text in arithmetic.inspect_asm().items() if "Record" in str(key))
    assert re.search(r"v?mulpd", code)
    assert re.search(r"v?sqrtpd", code)


@njit(**WHOLE)
def larger_of(w):
    store(w, 2, larger(load(w, 0), load(w, 1)))


def test_a_nan_cannot_hide_behind_a_number():
    w = work_array(3)
    w["lane"][0, :3], w["lane"][1, :3] = [np.nan, 1.0, 2.0], [1.0, np.nan, 5.0]
    larger_of(w)
    assert np.isnan(w["lane"][2, :2]).all()
    assert w["lane"][2, 2] == 5.0


def test_arrays_are_made_ready_and_blocks_counted():
    frozen = np.arange(6.0).reshape(2, 3).T
    frozen.flags.writeable = False
    array = ready(frozen)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert [block_count(n) for n in (0, 1, LANES, LANES + 1)] == [0, 1, 1, 2]
    assert block_count(3, 1) == 3


def test_every_module_of_the_kernels_is_in_their_digest():
    package = Path(compiling_module.__file__).parent.parent
    parts = {package / folder / f"{name}.py" for folder, names in compiling_module.PARTS.items() for name in names}
    for folder in compiling_module.PARTS:
        for file in (package / folder).glob("*.py"):
            if re.search(r"^@(inlined|kernel|routine)\b", file.read_text(), re.MULTILINE):
                assert file in parts
    assert all(file.exists() for file in parts)
