"""Grid services, the paper's application layer (sections 4 and 5): they meet the platform over MQTT and REST only.

In: estimates and readings of one interval. Out: estimates, decisions, switch vectors. Each module has a pure part
(`Concentrator`, `LvArea`, `MvArea`, `Advisor`) and a `serve` coroutine around it. Open `lv.py` first.
"""
