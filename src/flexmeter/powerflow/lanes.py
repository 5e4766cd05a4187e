"""Lanes: a few scenarios side by side in one vector register, as a number type for kernels.

A kernel is written as if it worked on one scenario; `load` takes `LANES` neighbouring floats out of a work array,
the operators work on all of them in one machine instruction, `store` puts them back. Vector instructions are thereby
certain: nothing is left to the compiler's loop vectoriser (see docs/decisions/010-lanes.md). On a work array of plain
numbers the same functions do work on one scenario; `load_six` and its kin then take a row of a block into a register.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_cast
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numpy.typing import ArrayLike, NDArray

from flexmeter.powerflow.compiling import inlined

LANES = 4
FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
IntArray = NDArray[np.int64]
WorkArray = NDArray[Any]
"""Of `LANE`: an item holds several scenarios. Of ordinary numbers: an item holds one."""
LANE = np.dtype([("lane", np.float64, (LANES,))])


_FAST = ("reassoc", "contract", "arcp", "nsz")  # no assumption that nan cannot be: a missing reading is nan


def ready(array: ArrayLike) -> FloatArray:
    """Return an array as kernels are compiled for: float64, C order, writable (a read-only one is another type)."""
    if type(array) is np.ndarray and array.dtype == np.float64 and array.flags.carray:
        return array  # a tenth of the time of looking closely
    return np.require(array, np.float64, ["C", "W"])


def work_array(items: int, lanes: int = LANES) -> WorkArray:
    """Return an array to work in, of `LANES` scenarios or of one; whatever lies in it.

    It begins with a cache line: the estimation is a sixth faster than across lines.
    """
    array = np.empty(items * lanes + 7)
    first = -array.__array_interface__["data"][0] % 64 // 8
    array = array[first : first + items * lanes]
    return array if lanes == 1 else array.view(LANE)


def block_count(n_scenario: int, lanes: int = LANES) -> int:
    """Return how many blocks of some lanes hold `n_scenario`."""
    return -(-n_scenario // lanes)


if TYPE_CHECKING:

    def load(array: WorkArray, item: int) -> float:
        """Return one item of a work array."""

    def store(array: WorkArray, item: int, value: float) -> None:
        """Write one item."""

    def splat(array: WorkArray, value: float) -> float:
        """Return a number as an item of the array: the same in every lane."""

    def square_root(value: float) -> float:
        """Return the square root of each lane."""

    def where_positive(condition: float, yes: float, no: float) -> float:
        """Return in each lane `yes` where the condition is > 0, else `no` (also where it is nan)."""

    def zeros() -> float:
        """Return lanes of zeros."""

    def largest(value: float) -> float:
        """Return the largest lane as an ordinary number."""

    def width(value: float | WorkArray) -> int:
        """Return how many lanes a value or a work array has."""

    def lane(value: float, index: int) -> float:
        """Return one lane as an ordinary number."""

    def with_lane(value: float, index: int, number: float) -> float:
        """Return the value with one lane replaced."""

    def load_row(work: WorkArray, array: FloatArray, row: int, column: int) -> float:
        """Return the lanes from a column on of a row of a 2-d array."""

    def load_complex_row(array: ComplexArray, row: int, column: int) -> tuple[float, float]:
        """Return real and imaginary parts from a column on of a row of a 2-d array."""

    def store_row(array: FloatArray, row: int, column: int, value: float) -> None:
        """Write the lanes from a column on of a row of a 2-d array."""

    def store_complex_row(array: ComplexArray, row: int, column: int, real: float, imaginary: float) -> None:
        """Write complex numbers from a column on of a row of a 2-d array."""

    def load_six(array: WorkArray, item: int) -> float:
        """Return six neighbouring items of a work array of one scenario."""

    def store_six(array: WorkArray, item: int, value: float) -> None:
        """Write six neighbouring items of a work array of one scenario."""

    def row_of_six(matrix: FloatArray, row: int) -> float:
        """Return a row of a 6x6 array."""

    def spread(six: float, index: int) -> float:
        """Return one of six in every place."""

    def transposed(rows: tuple[float, ...]) -> tuple[float, float, float, float, float, float]:
        """Return the columns of six rows of six."""

else:
    _INDEX = ir.IntType(32)

    class Vector(types.Type):
        """Numba's view of a vector register: of lanes, or of six neighbouring items."""

        def __init__(self, width: int) -> None:
            self.width = width
            super().__init__(f"Vector({width})")

        def can_convert_from(self, _typing_context, other):
            """Return whether a value of another type may stand where this one is wanted."""
            return Conversion.safe if other == types.float64 else None

    @register_model(Vector)
    class _VectorModel(models.PrimitiveModel):
        def __init__(self, manager, fe_type) -> None:
            super().__init__(manager, fe_type, ir.VectorType(ir.DoubleType(), fe_type.width))

    lanes, six = Vector(LANES), Vector(6)

    def _item(array):
        """Return the type of an item of a work array."""
        return lanes if isinstance(array.dtype, types.Record) else types.float64

    def _widest(*kinds):
        return next((kind for kind in kinds if isinstance(kind, Vector)), types.float64)

    def _machine(kind):
        return ir.VectorType(ir.DoubleType(), kind.width) if isinstance(kind, Vector) else ir.DoubleType()

    def _shuffle(builder, value, places):
        return builder.shuffle_vector(
            value,
            ir.Constant(value.type, ir.Undefined),
            ir.Constant(ir.VectorType(_INDEX, len(places)), list(places)),
        )

    def _as(builder, value, source, kind):
        """Return a value as another type: a number becomes the same in every lane."""
        if source == kind:
            return value
        undefined = ir.Constant(_machine(kind), ir.Undefined)
        one = builder.insert_element(undefined, value, ir.Constant(_INDEX, 0))
        return _shuffle(builder, one, [0] * kind.width)

    @lower_cast(types.float64, Vector)
    def _cast(context, builder, source, kind, value):
        return _as(builder, value, source, kind)

    def _data(context, builder, array_type, array):
        return context.data_model_manager[array_type].get(builder, array, "data")

    def _read(builder, data, item, kind):
        value = builder.load(builder.gep(builder.bitcast(data, _machine(kind).as_pointer()), [item]))
        value.align = 8
        return value

    @intrinsic
    def load(typing_context, array, item):
        def code(context, builder, signature, arguments):
            data = _data(context, builder, signature.args[0], arguments[0])
            return _read(builder, data, arguments[1], signature.return_type)

        return _item(array)(array, types.intp), code

    @intrinsic
    def store(typing_context, array, item, value):
        kind = _item(array)

        def code(context, builder, signature, arguments):
            data = _data(context, builder, signature.args[0], arguments[0])
            target = builder.gep(builder.bitcast(data, _machine(kind).as_pointer()), [arguments[1]])
            builder.store(_as(builder, arguments[2], signature.args[2], kind), target).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, _widest(value)), code

    @intrinsic
    def splat(typing_context, array, value):
        def code(context, builder, signature, arguments):
            return _as(builder, arguments[1], types.float64, signature.return_type)

        return _item(array)(array, types.float64), code

    @intrinsic
    def zeros(typing_context):
        def code(context, builder, signature, arguments):
            return ir.Constant(_machine(lanes), [0.0] * LANES)

        return lanes(), code

    @intrinsic
    def square_root(typing_context, value):
        def code(context, builder, signature, arguments):
            kind = arguments[0].type
            name = f"llvm.sqrt.{'f64' if kind == ir.DoubleType() else f'v{kind.count}f64'}"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
            return builder.call(function, arguments)

        return _widest(value)(_widest(value)), code

    @intrinsic
    def where_positive(typing_context, condition, yes, no):
        kind = _widest(condition, yes, no)

        def code(context, builder, signature, arguments):
            test, one, other = (
                _as(builder, value, source, kind) for value, source in zip(arguments, signature.args, strict=True)
            )
            zero = ir.Constant(test.type, [0.0] * kind.width if isinstance(kind, Vector) else 0.0)
            return builder.select(builder.fcmp_ordered(">", test, zero), one, other)

        return kind(_widest(condition), _widest(yes), _widest(no)), code

    @intrinsic
    def largest(typing_context, value):
        def code(context, builder, signature, arguments):
            if signature.args[0] == types.float64:
                return arguments[0]
            result = builder.extract_element(arguments[0], ir.Constant(_INDEX, 0))
            for lane in range(1, LANES):
                other = builder.extract_element(arguments[0], ir.Constant(_INDEX, lane))
                greater = builder.fcmp_unordered(">", other, result)  # unordered: nan wins, so it cannot hide
                result = builder.select(greater, other, result)
            return result

        return types.float64(_widest(value)), code

    @intrinsic
    def width(typing_context, value):
        kind = _item(value) if isinstance(value, types.Array) else _widest(value)

        def code(context, builder, signature, arguments):
            return context.get_constant(types.intp, kind.width if isinstance(kind, Vector) else 1)

        return types.intp(value), code

    @intrinsic
    def lane(typing_context, value, index):
        def code(context, builder, signature, arguments):
            return arguments[0] if signature.args[0] == types.float64 else builder.extract_element(*arguments)

        return types.float64(_widest(value), types.intp), code

    @intrinsic
    def with_lane(typing_context, value, index, number):
        def code(context, builder, signature, arguments):
            vector, position, scalar = arguments
            return scalar if signature.args[0] == types.float64 else builder.insert_element(vector, scalar, position)

        return _widest(value)(_widest(value), types.intp, types.float64), code

    def _row_pointer(context, builder, array_type, array, row, column):
        model = context.data_model_manager[array_type]
        size = builder.extract_value(model.get(builder, array, "shape"), 1)
        return builder.gep(model.get(builder, array, "data"), [builder.add(builder.mul(row, size), column)])

    @intrinsic
    def load_row(typing_context, work, array, row, column):
        def code(context, builder, signature, arguments):
            pointer = _row_pointer(context, builder, signature.args[1], *arguments[1:])
            return _read(builder, pointer, ir.Constant(_INDEX, 0), signature.return_type)

        return _item(work)(work, array, types.intp, types.intp), code

    @intrinsic
    def load_complex_row(typing_context, array, row, column):
        def code(context, builder, signature, arguments):
            pointer = _row_pointer(context, builder, signature.args[0], *arguments)
            mixed = _read(builder, pointer, ir.Constant(_INDEX, 0), Vector(2 * LANES))
            parts = [_shuffle(builder, mixed, range(part, 2 * LANES, 2)) for part in (0, 1)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(lanes, 2)(array, types.intp, types.intp), code

    @intrinsic
    def store_row(typing_context, array, row, column, value):
        def code(context, builder, signature, arguments):
            pointer = _row_pointer(context, builder, signature.args[0], *arguments[:3])
            builder.store(arguments[3], builder.bitcast(pointer, arguments[3].type.as_pointer())).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, _widest(value)), code

    @intrinsic
    def store_complex_row(typing_context, array, row, column, real, imaginary):
        kind = _widest(real, imaginary)

        def code(context, builder, signature, arguments):
            pointer = _row_pointer(context, builder, signature.args[0], *arguments[:3])
            if kind == types.float64:
                for part in (0, 1):
                    builder.store(arguments[3 + part], cgutils.gep_inbounds(builder, pointer, 0, part))
                return context.get_dummy_value()
            pairs = [k + part * LANES for k in range(LANES) for part in (0, 1)]
            index = ir.Constant(ir.VectorType(_INDEX, 2 * LANES), pairs)
            mixed = builder.shuffle_vector(arguments[3], arguments[4], index)
            builder.store(mixed, builder.bitcast(pointer, mixed.type.as_pointer())).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, kind, kind), code

    @intrinsic
    def load_six(typing_context, array, item):
        def code(context, builder, signature, arguments):
            data = _data(context, builder, signature.args[0], arguments[0])
            return _read(builder, builder.gep(data, [arguments[1]]), ir.Constant(_INDEX, 0), six)

        return six(array, types.intp), code

    @intrinsic
    def store_six(typing_context, array, item, value):
        def code(context, builder, signature, arguments):
            data = _data(context, builder, signature.args[0], arguments[0])
            target = builder.bitcast(builder.gep(data, [arguments[1]]), _machine(six).as_pointer())
            builder.store(arguments[2], target).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, six), code

    @intrinsic
    def row_of_six(typing_context, matrix, row):
        def code(context, builder, signature, arguments):
            zero = ir.Constant(arguments[1].type, 0)
            pointer = _row_pointer(context, builder, signature.args[0], arguments[0], arguments[1], zero)
            return _read(builder, pointer, ir.Constant(_INDEX, 0), six)

        return six(matrix, types.intp), code

    @intrinsic
    def spread(typing_context, value, index):
        def code(context, builder, signature, arguments):
            number = builder.extract_element(arguments[0], arguments[1])
            return _as(builder, number, types.float64, six)

        return six(six, types.intp), code

    @intrinsic
    def transposed(typing_context, rows):
        def code(context, builder, signature, arguments):
            parts = cgutils.unpack_tuple(builder, arguments[0], 6)
            pairs = ir.Constant(ir.VectorType(_INDEX, 12), list(range(12)))
            halves = [builder.shuffle_vector(parts[k], parts[k + 1], pairs) for k in (0, 2, 4)]
            columns = []
            for column in range(6):
                places = [column, column + 6]
                two = [_shuffle(builder, half, places) for half in halves]
                four = builder.shuffle_vector(two[0], two[1], ir.Constant(ir.VectorType(_INDEX, 4), [0, 1, 2, 3]))
                last = _shuffle(builder, two[2], [0, 1, 1, 1])
                index = ir.Constant(ir.VectorType(_INDEX, 6), [0, 1, 2, 3, 4, 5])
                columns.append(builder.shuffle_vector(four, last, index))
            return context.make_tuple(builder, signature.return_type, columns)

        kind = types.UniTuple(six, 6)
        return kind(kind), code

    def _operator(symbol, instruction) -> None:
        @infer_global(symbol)
        class _Typing(AbstractTemplate):
            def generic(self, arguments, _keywords):
                kind = _widest(*arguments)
                if kind == types.float64 or len(arguments) != 2:
                    return None
                return signature(kind, *(side if side == kind else types.float64 for side in arguments))

        def code(context, builder, kinds, arguments):
            sides = [
                _as(builder, value, source, kinds.return_type)
                for source, value in zip(kinds.args, arguments, strict=True)
            ]
            return getattr(builder, instruction)(*sides, flags=_FAST)

        for left, right in ((Vector, Vector), (Vector, types.float64), (types.float64, Vector)):
            lower_builtin(symbol, left, right)(code)

    @infer_global(operator.neg)
    class _NegativeTyping(AbstractTemplate):
        def generic(self, arguments, _keywords):
            return signature(arguments[0], arguments[0]) if isinstance(arguments[0], Vector) else None

    @lower_builtin(operator.neg, Vector)
    def _negative(context, builder, kinds, arguments):
        return builder.fneg(arguments[0], flags=_FAST)

    _operator(operator.add, "fadd")
    _operator(operator.sub, "fsub")
    _operator(operator.mul, "fmul")
    _operator(operator.truediv, "fdiv")


@inlined
def lanes_left(w: WorkArray, scenarios: int) -> int:
    """Return how many lanes of a block are in use."""
    return width(w) if scenarios > width(w) else scenarios


@inlined
def take(w: WorkArray, array: FloatArray, row: int, first: int, count: int) -> float:
    """Return `count` scenarios of a row as an item of w; lanes beyond repeat the first."""
    if count == width(w):
        return load_row(w, array, row, first)
    value = splat(w, array[row, first])
    for k in range(1, count):
        value = with_lane(value, k, array[row, first + k])
    return value


@inlined
def take_complex(array: ComplexArray, row: int, first: int, count: int) -> tuple[float, float]:
    """Return `count` scenarios of a complex row as lanes of real and imaginary parts; lanes beyond are 0."""
    if count == LANES:
        return load_complex_row(array, row, first)
    real, imaginary = zeros(), zeros()
    for k in range(count):
        real = with_lane(real, k, array[row, first + k].real)
        imaginary = with_lane(imaginary, k, array[row, first + k].imag)
    return real, imaginary


@inlined
def put(array: FloatArray, row: int, first: int, count: int, value: float) -> None:
    """Write the first `count` lanes into a row."""
    if count == width(value):
        store_row(array, row, first, value)
    else:
        for k in range(count):
            array[row, first + k] = lane(value, k)


@inlined
def put_complex(array: ComplexArray, row: int, first: int, count: int, real: float, imaginary: float) -> None:
    """Write the first `count` lanes into a complex row."""
    if count == width(real):
        store_complex_row(array, row, first, real, imaginary)
    else:
        for k in range(count):
            array[row, first + k] = complex(lane(real, k), lane(imaginary, k))
