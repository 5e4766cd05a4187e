"""Kernels compiled as one piece: the same results as numba's own way, and no machine code for the pieces."""

import numba
import numpy as np
import pytest
from numba import njit

from flexmeter.powerflow import linking
from flexmeter.powerflow.compiling import MADE_FOR, PIECE, WHOLE, inlined, routine


@inlined
def square(x):
    return x * x


@routine
def power(x, n):
    total = x**n  # numba compiles this one's loop on its own: a library that is no piece
    for _ in range(n):
        total = total + square(x)
    return total


@routine
def both(x, n):
    return power(x, n) + square(x)


def whole(x, n):
    if n < 0:
        raise ValueError("negative")
    return both(x, n) - power(x, 1)


def test_the_installed_numba_is_the_one_this_was_made_for():
    assert numba.version_info.short == MADE_FOR
    assert (PIECE, WHOLE) == (linking.PIECE, linking.WHOLE)


def test_a_kernel_of_pieces_computes_what_python_does():
    kernel = njit(**WHOLE)(whole)
    for x, n in ((3, 4), (2.5, 3), (np.float32(1.5), 2)):
        expected = x**n + n * x * x + x * x - (x + x * x)
        assert kernel(x, n) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="negative"):
        kernel(1.0, -1)


def test_pieces_have_no_machine_code_of_their_own():
    njit(**WHOLE)(whole)(3.0, 4)
    for function in (square, power, both):
        for compiled in function.overloads.values():
            assert isinstance(compiled.library, linking.Piece)
            assert not compiled.library._codegen._engine.is_symbol_defined(compiled.fndesc.llvm_func_name)


def test_everything_below_a_kernel_is_linked_callers_first():
    kernel = njit(**WHOLE)(whole)
    kernel(3.0, 4)
    (compiled,) = kernel.overloads.values()
    order = compiled.library._linking_libraries
    assert len(order) == len(set(order))
    assert {library.name for library in order} >= {"both", "power", "square"}
    for place, library in enumerate(order):
        if isinstance(library, linking.Piece):
            assert all(order.index(called) > place for called in library._linking_libraries)
