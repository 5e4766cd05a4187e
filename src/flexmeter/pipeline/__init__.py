"""Communication Engine (paper section 3.2): Event Sources and the Inbound Pipeline to the store.

In: messages from the broker or HTTP. Out: committed rows, dead letters, error notes, counters that reconcile; only
then acknowledgements. Open `inbound.py` first, then `check.py`, `writer.py` and `source.py`.
"""

from flexmeter.pipeline.check import IntegrityCheck, Limits, Refused
from flexmeter.pipeline.counters import Counters
from flexmeter.pipeline.deadletters import DeadLetter, DeadLetters
from flexmeter.pipeline.inbound import Gathering, InboundPipeline
from flexmeter.pipeline.metrics import metrics_text
from flexmeter.pipeline.quota import Quota
from flexmeter.pipeline.source import EventSource
from flexmeter.pipeline.writer import DirectWriter, Outcome, Writer

__all__ = [
    "Counters",
    "DeadLetter",
    "DeadLetters",
    "DirectWriter",
    "EventSource",
    "Gathering",
    "InboundPipeline",
    "IntegrityCheck",
    "Limits",
    "Outcome",
    "Quota",
    "Refused",
    "Writer",
    "metrics_text",
]
