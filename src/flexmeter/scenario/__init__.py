"""The reference day (paper section 6): grid, profiles, simulated meters, the run, the record and its report.

In: `DayOptions`. Out: a `DayRecord`, `summary.json`, `report.html`, the figures. `day.py` plays it with the library
alone, `demo.py` through every process of the platform. Open `day.py` first.
"""
