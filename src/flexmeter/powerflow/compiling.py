"""Compiling kernels: what they are made of, how they are cached, which functions go into them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., object])

PARTS = {
    "powerflow": ("branches", "compiling", "lanes", "linking", "sweep", "vectors"),
    "estimation": (
        "aggregate", "bends", "blocks", "border", "correction", "covariance", "descent", "deviations", "flow",
        "gauss_newton", "intake", "joint", "leaf", "measurements", "message", "model", "move", "passes", "phasor",
        "places", "response", "root", "rows", "six", "start", "ties", "unloaded", "widening",
    ),
    "reconfiguration": ("exchange", "loopsearch", "mesh", "opening", "score", "sensitivity", "sweep", "trees"),
}  # fmt: skip
"""The modules that kernels are made of."""

MADE_FOR = (0, 68)
"""The version of numba that `linking` was read, measured and tested with. With another, kernels compile numba's way: to
the same results, in twice the time."""
PIECE: dict[str, Any] = {}
"""Options of numba for a function that only kernels call."""
WHOLE: dict[str, Any] = {}
"""Options of numba for a kernel."""
if numba.version_info.short == MADE_FOR:
    from flexmeter.powerflow.linking import PIECE, WHOLE


def _sources() -> str:
    """Return a digest of the modules that kernels are made of: another text means compile again."""
    digest = sha256()
    for package, modules in PARTS.items():
        for module in modules:
            digest.update((Path(__file__).parent.parent / package / f"{module}.py").read_bytes())
    return digest.hexdigest()


_SOURCES = _sources()
_INNER = {
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "_nrt": False,
    "fastmath": {"contract"},
    **PIECE,
}
"""Functions that only kernels call need no entry from Python: a quarter of the compile time. They own no memory, so
references to arrays are not counted (numba would count every array of a model at every call, atomically). Of the
liberties with arithmetic they take only the fused multiply-add: with more, x - x is 0 where x is nan."""


def kernel(function: Function) -> Function:
    """Compile a function to machine code: cached on disk, without the GIL."""
    compiled = njit(cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True, **WHOLE)(function)
    # numba looks at the kernel's own file only; what it calls lies in others
    compiled._cache._cache_file._source_stamp = (compiled._cache._impl.locator.get_source_stamp(), _SOURCES)
    return compiled  # type: ignore[no-any-return]


def inlined(function: Function) -> Function:
    """Compile a small function into each of its callers."""
    return njit(forceinline=True, **_INNER)(function)  # type: ignore[no-any-return]


def routine(function: Function) -> Function:
    """Compile a function that several kernels call: once, not into each caller.

    Numba hands options down: left open, `forceinline` would be that of whichever function is compiled first to call it.
    """
    return njit(forceinline=False, **_INNER)(function)  # type: ignore[no-any-return]


def routine_with(one: Callable[..., object]) -> Callable[[Function], Function]:
    """Compile a function as `routine`, but take `one` instead where the work array holds one scenario."""

    def choose(function: Function) -> Function:
        many = routine(function)

        def chosen(w: NDArray[Any], *arguments: object) -> None:
            raise NotImplementedError

        @overload(chosen, jit_options={"forceinline": True, **_INNER}, strict=False)
        def pick(w, *arguments):  # type: ignore[no-untyped-def]
            version = many if isinstance(w.dtype, types.Record) else one

            def code(w, *arguments):  # type: ignore[no-untyped-def]
                return version(w, *arguments)

            return code

        return chosen  # type: ignore[return-value]

    return choose
