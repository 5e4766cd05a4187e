"""Flexmeter Data Format: what travels between meters, platform and services (section 3.2).

In: bytes of a message (JSON or CBOR). Out: frozen, validated structs; and back.
Open `readings.py` first.
"""
