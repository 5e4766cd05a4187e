"""6x6 blocks of one scenario and of several: both do what numpy does."""

import platform
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from flexmeter.estimation import blocks
from flexmeter.powerflow.compiling import WHOLE
from flexmeter.powerflow.lanes import LANES, work_array

LEFT, RIGHT, OUT = 0, 36, 72
PRODUCTS = {
    "multiply": lambda a, b: a @ b,
    "multiply_transposed": lambda a, b: a @ b.T,
    "transposed_multiply": lambda a, b: a.T @ b,
    "multiply_lower": lambda a, b: a @ np.tril(b),
    "divide_by_lower_transposed": lambda a, b: a @ np.linalg.inv(np.tril(b) + 4 * np.eye(6)).T,
}
WITH_CONSTANT = {
    "multiply_constant": lambda a, c: a @ c,
    "constant_multiply": lambda a, c: c @ a,
    "transposed_constant_multiply": lambda a, c: c.T @ a,
    "apply_constant": lambda a, c: c @ a[0],
    "apply_transposed_constant": lambda a, c: c.T @ a[0],
}


def run(name, width, left, right=None, constant=None, out=OUT):
    """Return what an operation writes, of each lane in turn."""
    operation = getattr(blocks, name)
    w = work_array(108, width)
    items = w["lane"] if width > 1 else w[:, None]
    items[LEFT : LEFT + 36] = left.reshape(-1, 36).T
    if right is not None:
        items[RIGHT : RIGHT + 36] = right.reshape(-1, 36).T
    compiled(operation, constant is not None, right is not None, name)(w, out, constant)
    return items[out : out + 36].T.reshape(-1, 6, 6)


_COMPILED = {}


def compiled(operation, has_constant, has_right, name):
    if name not in _COMPILED:
        if has_right:

            @njit(**WHOLE)
            def call(w, out, constant):
                operation(w, out, LEFT, RIGHT)
        elif (has_constant and name.endswith("multiply")) or (has_constant and name.startswith("apply")):

            @njit(**WHOLE)
            def call(w, out, constant):
                operation(w, out, constant, LEFT)
        elif has_constant:

            @njit(**WHOLE)
            def call(w, out, constant):
                operation(w, out, LEFT, constant)
        elif name == "invert":

            @njit(**WHOLE)
            def call(w, out, constant):
                operation(w, out)
        else:

            @njit(**WHOLE)
            def call(w, out, constant):
                operation(w, out, LEFT)

        _COMPILED[name] = call
    return _COMPILED[name]


def random_blocks(seed, width):
    return np.random.default_rng(seed).standard_normal((width, 6, 6))


@pytest.mark.parametrize("width", [1, LANES])
@pytest.mark.parametrize("name", PRODUCTS)
@given(seed=st.integers(0, 2**32 - 1))
def test_products(name, width, seed):
    left, right = random_blocks(seed, width), random_blocks(seed + 1, width)
    given_right = right
    if "lower" in name:
        given_right = np.tril(right) + (4 * np.eye(6) if name.startswith("divide") else 0)
    for got, a, b in zip(run(name, width, left, given_right), left, right, strict=True):
        np.testing.assert_allclose(got, PRODUCTS[name](a, b), rtol=0, atol=1e-11)


@pytest.mark.parametrize("width", [1, LANES])
@pytest.mark.parametrize("name", WITH_CONSTANT)
@given(seed=st.integers(0, 2**32 - 1))
def test_products_with_a_constant(name, width, seed):
    left, constant = random_blocks(seed, width), random_blocks(seed + 1, 1)[0]
    for got, a in zip(run(name, width, left, constant=constant), left, strict=True):
        want = WITH_CONSTANT[name](a, constant)
        np.testing.assert_allclose(got[0] if want.ndim == 1 else got, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("width", [1, LANES])
@pytest.mark.parametrize("name", ["symmetric_multiply_transposed", "symmetric_transposed_multiply"])
@given(seed=st.integers(0, 2**32 - 1))
def test_products_known_to_be_symmetric(name, width, seed):
    left = random_blocks(seed, width)
    for got, a in zip(run(name, width, left, left), left, strict=True):
        np.testing.assert_allclose(got, a @ a.T if name.endswith("multiply_transposed") else a.T @ a, atol=1e-12)


@pytest.mark.parametrize("width", [1, LANES])
@given(seed=st.integers(0, 2**32 - 1))
def test_inverse_of_what_is_near_one(width, seed):
    near = np.eye(6) + 0.1 * random_blocks(seed, width)
    for got, a in zip(run("invert", width, near, out=LEFT), near, strict=True):
        np.testing.assert_allclose(got @ a, np.eye(6), atol=1e-12)


@pytest.mark.parametrize("width", [1, LANES])
@given(seed=st.integers(0, 2**32 - 1), rank=st.integers(0, 6), scale=st.sampled_from([1e-9, 1.0, 1e9]))
def test_cholesky_of_semidefinite_blocks(width, seed, rank, scale):
    half = random_blocks(seed, width)[:, :, :rank] * scale
    half[:, seed % 6] = 0.0  # an exact reading: no row, no column
    for got, h in zip(run("cholesky", width, half @ half.swapaxes(1, 2)), half, strict=True):
        np.testing.assert_allclose(np.triu(got, 1), 0.0)
        np.testing.assert_allclose(got @ got.T, h @ h.T, rtol=0, atol=1e-7 * scale**2)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for names of x86 registers")
@pytest.mark.parametrize("width", [1, LANES])
def test_a_product_is_vector_instructions(width):
    run("multiply", width, random_blocks(1, width), random_blocks(2, width))
    code = next(
        asm for key, asm in _COMPILED["multiply"].inspect_asm().items() if ("Record" in str(key)) == (width > 1)
    )
    assert re.search(r"v?(fmadd\w*|mul)pd", code)
    assert not re.search(r"v?(fmadd\w*|mul)sd", code)
