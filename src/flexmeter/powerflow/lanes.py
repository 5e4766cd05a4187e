"""Lanes: a few scenarios side by side in one vector register, as a number type for kernels.

A kernel is written as if it worked on one scenario; `load` takes `LANES` neighbouring floats out of a work array,
the operators work on all of them in one machine instruction, `store` puts them back. Vector instructions are thereby
certain: nothing is left to the compiler's loop vectoriser (see docs/decisions/010-lanes.md).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numpy.typing import ArrayLike, NDArray

LANES = 4
FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
IntArray = NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., object])


PARTS = {
    "powerflow": ("branches", "lanes", "sweep"),
    "estimation": (
        "aggregate", "blocks", "border", "correction", "covariance", "descent", "deviations", "flow", "gauss_newton",
        "intake", "joint", "leaf", "measurements", "message", "model", "move", "passes", "phasor", "places", "response",
        "root", "start", "ties",
    ),
    "reconfiguration": ("exchange", "loopsearch", "mesh", "opening", "score", "sensitivity", "sweep", "trees"),
}  # fmt: skip
"""The modules that kernels are made of."""


def _sources() -> str:
    """Return a digest of the modules that kernels are made of: another text means compile again."""
    digest = sha256()
    for package, modules in PARTS.items():
        for module in modules:
            digest.update((Path(__file__).parent.parent / package / f"{module}.py").read_bytes())
    return digest.hexdigest()


_SOURCES = _sources()
_INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
"""Functions that only kernels call need no entry from Python: a quarter of the compile time. They own no memory, so
references to arrays are not counted (numba would count every array of a model at every call, atomically)."""


def kernel(function: Function) -> Function:
    """Compile a function to machine code: cached on disk, without the GIL."""
    compiled = njit(cache=True, nogil=True, error_model="numpy")(function)
    # numba looks at the kernel's own file only; what it calls lies in others
    compiled._cache._cache_file._source_stamp = (compiled._cache._impl.locator.get_source_stamp(), _SOURCES)
    return compiled  # type: ignore[no-any-return]


def inlined(function: Function) -> Function:
    """Compile a small function into each of its callers."""
    return njit(forceinline=True, **_INNER)(function)  # type: ignore[no-any-return]


def routine(function: Function) -> Function:
    """Compile a function that several kernels call: once, not into each caller."""
    return njit(**_INNER)(function)  # type: ignore[no-any-return]


def ready(array: ArrayLike) -> FloatArray:
    """Return an array as kernels are compiled for: float64, C order, writable (a read-only one is another type)."""
    return np.require(array, np.float64, ["C", "W"])


def block_count(n_scenario: int) -> int:
    """Return how many blocks of `LANES` scenarios hold `n_scenario`."""
    return -(-n_scenario // LANES)


if TYPE_CHECKING:

    def load(array: FloatArray, item: int) -> float:
        """Return the lanes of one item of a work array (1-d, item after item)."""

    def store(array: FloatArray, item: int, value: float) -> None:
        """Write the lanes of one item."""

    def splat(value: float) -> float:
        """Return the same number in every lane."""

    def square_root(value: float) -> float:
        """Return the square root of each lane."""

    def where_positive(condition: float, yes: float, no: float) -> float:
        """Return in each lane `yes` where the condition is > 0, else `no` (also where it is nan)."""

    def largest(value: float) -> float:
        """Return the largest lane as an ordinary number."""

    def lane(value: float, index: int) -> float:
        """Return one lane as an ordinary number."""

    def with_lane(value: float, index: int, number: float) -> float:
        """Return the value with one lane replaced."""

    def load_row(array: FloatArray, row: int, column: int) -> float:
        """Return the lanes from a column on of a row of a 2-d array."""

    def load_complex_row(array: ComplexArray, row: int, column: int) -> tuple[float, float]:
        """Return real and imaginary parts from a column on of a row of a 2-d array."""

    def store_row(array: FloatArray, row: int, column: int, value: float) -> None:
        """Write the lanes from a column on of a row of a 2-d array."""

    def store_complex_row(array: ComplexArray, row: int, column: int, real: float, imaginary: float) -> None:
        """Write complex numbers from a column on of a row of a 2-d array."""

else:
    _VECTOR = ir.VectorType(ir.DoubleType(), LANES)
    _FAST = ("reassoc", "contract", "arcp", "nsz")  # no assumption that nan cannot be: a missing reading is nan

    class LanesType(types.Type):
        """Numba's view of a vector of lanes."""

        def __init__(self) -> None:
            super().__init__("Lanes")

    lanes = LanesType()

    @register_model(LanesType)
    class _LanesModel(models.PrimitiveModel):
        def __init__(self, manager, fe_type) -> None:
            super().__init__(manager, fe_type, _VECTOR)

    def _pointer(context, builder, array_type, array, item):
        data = context.data_model_manager[array_type].get(builder, array, "data")
        offset = builder.mul(item, ir.Constant(item.type, LANES))
        return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())

    def _broadcast(builder, number):
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        index = ir.VectorType(ir.IntType(32), LANES)
        one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, undefined, ir.Constant(index, [0] * LANES))

    @intrinsic
    def load(typing_context, array, item):
        def code(context, builder, signature, arguments):
            value = builder.load(_pointer(context, builder, signature.args[0], *arguments))
            value.align = 8
            return value

        return lanes(array, types.intp), code

    @intrinsic
    def store(typing_context, array, item, value):
        def code(context, builder, signature, arguments):
            target = _pointer(context, builder, signature.args[0], *arguments[:2])
            builder.store(arguments[2], target).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, lanes), code

    @intrinsic
    def splat(typing_context, value):
        def code(context, builder, signature, arguments):
            return _broadcast(builder, arguments[0])

        return lanes(types.float64), code

    @intrinsic
    def square_root(typing_context, value):
        def code(context, builder, signature, arguments):
            name = f"llvm.sqrt.v{LANES}f64"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR]), name)
            return builder.call(function, arguments)

        return lanes(lanes), code

    @intrinsic
    def where_positive(typing_context, condition, yes, no):
        def code(context, builder, signature, arguments):
            zero = ir.Constant(_VECTOR, [0.0] * LANES)
            return builder.select(builder.fcmp_ordered(">", arguments[0], zero), arguments[1], arguments[2])

        return lanes(lanes, lanes, lanes), code

    @intrinsic
    def largest(typing_context, value):
        def code(context, builder, signature, arguments):
            result = builder.extract_element(arguments[0], ir.Constant(ir.IntType(32), 0))
            for lane in range(1, LANES):
                other = builder.extract_element(arguments[0], ir.Constant(ir.IntType(32), lane))
                greater = builder.fcmp_unordered(">", other, result)  # unordered: nan wins, so it cannot hide
                result = builder.select(greater, other, result)
            return result

        return types.float64(lanes), code

    @intrinsic
    def lane(typing_context, value, index):
        def code(context, builder, signature, arguments):
            return builder.extract_element(*arguments)

        return types.float64(lanes, types.intp), code

    @intrinsic
    def with_lane(typing_context, value, index, number):
        def code(context, builder, signature, arguments):
            vector, position, scalar = arguments
            return builder.insert_element(vector, scalar, position)

        return lanes(lanes, types.intp, types.float64), code

    def _row_pointer(context, builder, array_type, array, row, column):
        model = context.data_model_manager[array_type]
        width = builder.extract_value(model.get(builder, array, "shape"), 1)
        return builder.gep(model.get(builder, array, "data"), [builder.add(builder.mul(row, width), column)])

    @intrinsic
    def load_row(typing_context, array, row, column):
        def code(context, builder, signature, arguments):
            pointer = _row_pointer(context, builder, signature.args[0], *arguments)
            value = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()))
            value.align = 8
            return value

        return lanes(array, types.intp, types.intp), code

    @intrinsic
    def load_complex_row(typing_context, array, row, column):
        def code(context, builder, signature, arguments):
            pointer = _row_pointer(context, builder, signature.args[0], *arguments)
            both = ir.VectorType(ir.DoubleType(), 2 * LANES)
            mixed = builder.load(builder.bitcast(pointer, both.as_pointer()))
            mixed.align = 8
            index = ir.VectorType(ir.IntType(32), LANES)
            parts = [
                builder.shuffle_vector(
                    mixed, ir.Constant(both, ir.Undefined), ir.Constant(index, [2 * k + part for k in range(LANES)])
                )
                for part in (0, 1)
            ]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(lanes, 2)(array, types.intp, types.intp), code

    @intrinsic
    def store_row(typing_context, array, row, column, value):
        def code(context, builder, signature, arguments):
            pointer = _row_pointer(context, builder, signature.args[0], *arguments[:3])
            builder.store(arguments[3], builder.bitcast(pointer, _VECTOR.as_pointer())).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, lanes), code

    @intrinsic
    def store_complex_row(typing_context, array, row, column, real, imaginary):
        def code(context, builder, signature, arguments):
            pointer = _row_pointer(context, builder, signature.args[0], *arguments[:3])
            pairs = [k + part * LANES for k in range(LANES) for part in (0, 1)]
            index = ir.Constant(ir.VectorType(ir.IntType(32), 2 * LANES), pairs)
            mixed = builder.shuffle_vector(arguments[3], arguments[4], index)
            builder.store(mixed, builder.bitcast(pointer, mixed.type.as_pointer())).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, lanes, lanes), code

    def _operator(symbol, instruction) -> None:
        @infer_global(symbol)
        class _Typing(AbstractTemplate):
            def generic(self, arguments, _keywords):
                if lanes in arguments and len(arguments) == 2:
                    return signature(lanes, *(kind if kind == lanes else types.float64 for kind in arguments))
                return None

        def code(context, builder, kinds, arguments):
            sides = [
                value if kind == lanes else _broadcast(builder, value)
                for kind, value in zip(kinds.args, arguments, strict=True)
            ]
            return getattr(builder, instruction)(*sides, flags=_FAST)

        for left, right in ((lanes, lanes), (lanes, types.float64), (types.float64, lanes)):
            lower_builtin(symbol, left, right)(code)

    _operator(operator.add, "fadd")
    _operator(operator.sub, "fsub")
    _operator(operator.mul, "fmul")
    _operator(operator.truediv, "fdiv")


@inlined
def lanes_left(scenarios: int) -> int:
    """Return how many lanes of a block are in use."""
    return LANES if scenarios > LANES else scenarios


@inlined
def take(array: FloatArray, row: int, first: int, count: int) -> float:
    """Return `count` scenarios of a row as lanes; lanes beyond repeat the first."""
    if count == LANES:
        return load_row(array, row, first)
    value = splat(array[row, first])
    for k in range(1, count):
        value = with_lane(value, k, array[row, first + k])
    return value


@inlined
def take_complex(array: ComplexArray, row: int, first: int, count: int) -> tuple[float, float]:
    """Return `count` scenarios of a complex row as lanes of real and imaginary parts; lanes beyond repeat the first."""
    if count == LANES:
        return load_complex_row(array, row, first)
    real, imaginary = splat(array[row, first].real), splat(array[row, first].imag)
    for k in range(1, count):
        real = with_lane(real, k, array[row, first + k].real)
        imaginary = with_lane(imaginary, k, array[row, first + k].imag)
    return real, imaginary


@inlined
def put(array: FloatArray, row: int, first: int, count: int, value: float) -> None:
    """Write the first `count` lanes into a row."""
    if count == LANES:
        store_row(array, row, first, value)
    else:
        for k in range(count):
            array[row, first + k] = lane(value, k)


@inlined
def put_complex(array: ComplexArray, row: int, first: int, count: int, real: float, imaginary: float) -> None:
    """Write the first `count` lanes into a complex row."""
    if count == LANES:
        store_complex_row(array, row, first, real, imaginary)
    else:
        for k in range(count):
            array[row, first + k] = complex(lane(real, k), lane(imaginary, k))
