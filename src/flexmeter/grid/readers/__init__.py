"""Readers of other programs' grid files (paper section 4.4: grid data are the first requirement of an estimator).

In: a file of pandapower, power-grid-model, OpenDSS, MATPOWER or a SimBench code; out: a `Grid` whose `assumptions` say
what the file left open. Open `dss_text.py` first, it is complete in itself.
"""

from flexmeter.grid.readers.dss_text import DssCase, read_dss

__all__ = ["DssCase", "read_dss"]
