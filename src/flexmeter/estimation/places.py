"""Where the items of a bus lie in the work array, relative to the bus's first item.

A to ETA accumulate the messages of everything below (increments about the present point); M to B2 are kept from
crossing the bus's edge for the way down; V, J, SHUNT are the state, BASE the state before
the step, the rest the step. Scratch blocks come after all buses.
"""

BUS_A, BUS_R, BUS_L, BUS_B, BUS_ETA = 0, 36, 72, 108, 114
ACCUMULATED = 120
BUS_M, BUS_A2, BUS_R2, BUS_B2 = 120, 156, 192, 228
BUS_V, BUS_J, BUS_SHUNT = 234, 240, 246
BUS_DV, BUS_DJ, BUS_LAMBDA = 252, 258, 264
BUS_BASE = 270
BUS = 288
SCRATCH = 12 * 36

WIDE_FREE, WIDE_COLUMNS, WIDE_HALF, WIDE_GAIN, WIDE_PSI = 0, 1, 37, 73, 109
WIDE_DIAGONAL, WIDE_FORCE, WIDE_DELTA = 145, 151, 157
WIDE = 160
"""Items of the root with free angles: whether they are (1 or 0), six directions and L times them, their gain and its
inverse, Psi, the gain's diagonal before, forces, angle deviations (3)."""

SOURCE_B, SOURCE_ETA, PUSH_V, PUSH_J = 0, 6, 12, 18
RESPONSE_B, RESPONSE_ETA, RESPONSE_B2, RESPONSE_DV, RESPONSE_DJ, RESPONSE_FORCE = 24, 30, 36, 42, 48, 54
RESPONSE = 60
"""Items of a bus in a response: what is done to it (currents and forces below its meters, forces on its V and J), what
of this is collected on the way up, what is kept from crossing its edge, the answer."""
COLUMN_V, COLUMN_J, COLUMN_FORCE = 0, 6, 12
COLUMN = 18
"""Items of a bus in a stored response."""
