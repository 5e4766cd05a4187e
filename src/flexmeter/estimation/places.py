"""Where the items of a bus lie in the work array, relative to the bus's first item.

A to ETA accumulate the messages of everything below (increments about the present point); M to B2 are kept from
crossing the bus's edge for the way down; V, J are the state, the rest the step. Scratch blocks come after all buses.
"""

BUS_A, BUS_R, BUS_L, BUS_B, BUS_ETA = 0, 36, 72, 108, 114
ACCUMULATED = 120
BUS_M, BUS_A2, BUS_R2, BUS_B2 = 120, 156, 192, 228
BUS_V, BUS_J, BUS_SHUNT = 234, 240, 246
BUS_DV, BUS_DJ, BUS_LAMBDA = 252, 258, 264
BUS = 270
SCRATCH = 12 * 36
