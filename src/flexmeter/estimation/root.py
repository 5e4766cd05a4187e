"""The root: three unknowns of the head voltages, (a' L a) dm = a' eta, lambda_0 = 0, V_0 = a m.

In general a (6x3) holds the unit vectors of the given angles: m are the magnitudes. Without zero sequence the columns
are freed from theirs, a_p - (a_0 + a_1 + a_2) / 3: m are then a positive and any negative sequence. A balanced source
has one unknown, a_0 + a_1 + a_2. A component on which nothing below says anything (its pivot is worse than `WORST` of
nominal) takes the nominal voltage with `PRIOR` as pseudo-measurement and is reported as not observable; so does one of
which only losses tell (`unloaded.hold_untold`): they would let it go anywhere.
"""

from __future__ import annotations

from flexmeter.estimation.places import BUS_A, BUS_B, BUS_DJ, BUS_DV, BUS_ETA, BUS_L, BUS_LAMBDA, BUS_V
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import WorkArray, load, store, where_positive

WORST = 0.2
PRIOR = 0.1

ROOT_ANGLE, ROOT_INVERSE, ROOT_STEP, ROOT_PRIOR, ROOT_BASIS, ROOT_HALF, ROOT_UNTOLD = 0, 6, 12, 15, 18, 36, 54
ROOT = 57
"""Items of the root: unit vectors of the angles (6), (a'La)^-1 as 00 10 11 20 21 22 (6), dm (3), whether the prior was
needed (3), a column by column (18), L a (18), whether only losses tell (3)."""


@inlined
def set_basis(w: WorkArray, root: int, symmetry: int) -> None:
    """Write a from the unit vectors of the angles; symmetry 0 = free, 1 = no zero sequence, 2 = balanced."""
    shared = 1.0 / 3.0 if symmetry == 1 else 0.0
    for k in range(3):
        for phase in range(3):
            own = (1.0 if phase == k else 0.0) - shared
            turn = k
            if symmetry == 2:  # one unknown moves all three phases, the other two nothing
                own = 1.0 if k == 0 else 0.0
                turn = phase
            re, im = load(w, root + ROOT_ANGLE + 2 * turn), load(w, root + ROOT_ANGLE + 2 * turn + 1)
            store(w, root + ROOT_BASIS + 6 * k + 2 * phase, re * own)
            store(w, root + ROOT_BASIS + 6 * k + 2 * phase + 1, im * own)


@inlined
def apply_information(w: WorkArray, bus: int, root: int) -> None:
    """Write L a."""
    for k in range(3):
        for i in range(6):
            total = 0.0
            for j in range(6):
                total = total + load(w, bus + BUS_L + 6 * i + j) * load(w, root + ROOT_BASIS + 6 * k + j)
            store(w, root + ROOT_HALF + 6 * k + i, total)


@inlined
def projected(w: WorkArray, root: int, i: int, j: int) -> float:
    """Return a_i' L a_j."""
    total = 0.0
    for k in range(6):
        total = total + load(w, root + ROOT_BASIS + 6 * i + k) * load(w, root + ROOT_HALF + 6 * j + k)
    return total


@inlined
def force(w: WorkArray, bus: int, root: int, i: int) -> float:
    """Return a_i' eta."""
    total = 0.0
    for k in range(6):
        total = total + load(w, root + ROOT_BASIS + 6 * i + k) * load(w, bus + BUS_ETA + k)
    return total


@inlined
def with_prior(pivot: float, nominal: float, untold: float) -> tuple[float, float]:
    """Return the pivot, and whether it had to be helped by the prior (1 or 0)."""
    helped = where_positive(pivot - 1.0 / (WORST * nominal) ** 2, untold, 1.0)
    return pivot + helped * (1.0 / (PRIOR * nominal) ** 2), helped


@inlined
def pull(w: WorkArray, bus: int, root: int, i: int, nominal: float) -> float:
    """Return the prior's force on a magnitude: towards nominal."""
    m = load(w, root + 2 * i) * load(w, bus + BUS_V + 2 * i) + load(w, root + 2 * i + 1) * load(
        w, bus + BUS_V + 2 * i + 1
    )
    return (nominal - m) * (1.0 / (PRIOR * nominal) ** 2)


@routine
def prior_objective(w: WorkArray, bus: int, root: int, nominal: float, symmetry: int) -> float:
    """Return the part of J of the priors that were needed: without it they would look like an ascent."""
    total = 0.0
    for i in range(1 if symmetry == 2 else 3):
        re, im = load(w, bus + BUS_V + 2 * i), load(w, bus + BUS_V + 2 * i + 1)
        off = nominal - load(w, root + 2 * i) * re - load(w, root + 2 * i + 1) * im
        total = total + load(w, root + ROOT_PRIOR + i) * off * off * (1.0 / (PRIOR * nominal) ** 2)
    return total


@routine
def solve_root(w: WorkArray, bus: int, root: int, nominal: float, symmetry: int) -> None:
    """Write the root's step (dV, dJ, lambda = 0) and the inverse of a'La."""
    apply_information(w, bus, root)
    untold = root + ROOT_UNTOLD
    d0, h0 = with_prior(projected(w, root, 0, 0), nominal, load(w, untold))
    l10 = projected(w, root, 1, 0) / d0
    l20 = projected(w, root, 2, 0) / d0
    d1, h1 = with_prior(projected(w, root, 1, 1) - l10 * l10 * d0, nominal, load(w, untold + 1))
    l21 = (projected(w, root, 2, 1) - l20 * l10 * d0) / d1
    rest = projected(w, root, 2, 2) - l20 * l20 * d0 - l21 * l21 * d1
    d2, h2 = with_prior(rest, nominal, load(w, untold + 2))
    if symmetry == 2:  # columns of zeros: their prior holds numbers that nothing looks at
        h1 = h2 = h0
    store(w, root + ROOT_PRIOR, h0)
    store(w, root + ROOT_PRIOR + 1, h1)
    store(w, root + ROOT_PRIOR + 2, h2)
    # inverse of L D L' with L unit lower triangular: L^-1 has -l10, -l21, l10 l21 - l20 below its diagonal
    g20 = l10 * l21 - l20
    i0, i1, i2 = 1.0 / d0, 1.0 / d1, 1.0 / d2
    c22, c21, c11 = i2, -l21 * i2, i1 + l21 * l21 * i2
    c20, c10 = g20 * i2, -l10 * i1 - l21 * g20 * i2
    c00 = i0 + l10 * l10 * i1 + g20 * g20 * i2
    for k, value in enumerate((c00, c10, c11, c20, c21, c22)):
        store(w, root + ROOT_INVERSE + k, value)
    f0 = force(w, bus, root, 0) + h0 * pull(w, bus, root, 0, nominal)
    f1 = force(w, bus, root, 1) + h1 * pull(w, bus, root, 1, nominal)
    f2 = force(w, bus, root, 2) + h2 * pull(w, bus, root, 2, nominal)
    store(w, root + ROOT_STEP, c00 * f0 + c10 * f1 + c20 * f2)
    store(w, root + ROOT_STEP + 1, c10 * f0 + c11 * f1 + c21 * f2)
    store(w, root + ROOT_STEP + 2, c20 * f0 + c21 * f1 + c22 * f2)
    for i in range(6):
        total = 0.0
        for k in range(3):
            total = total + load(w, root + ROOT_BASIS + 6 * k + i) * load(w, root + ROOT_STEP + k)
        store(w, bus + BUS_DV + i, total)
        store(w, bus + BUS_LAMBDA + i, 0.0)
    for i in range(6):
        total = load(w, bus + BUS_B + i)
        for j in range(6):
            total = total + load(w, bus + BUS_A + 6 * i + j) * load(w, bus + BUS_DV + j)
        store(w, bus + BUS_DJ + i, total)
