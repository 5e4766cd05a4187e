import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexmeter.errors import BrokerError
from flexmeter.messaging import packets
from flexmeter.messaging.client import matches
from flexmeter.messaging.packets import Connack, Parser, Pingresp, Puback, Publish, Suback, Unsuback

TOPICS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=40)
MESSAGES = st.builds(
    lambda topic, payload, retain, duplicate, packet_id: Publish(
        topic, payload, int(packet_id > 0), retain, duplicate and packet_id > 0, packet_id
    ),
    TOPICS,
    st.binary(max_size=300),
    st.booleans(),
    st.booleans(),
    st.integers(0, 65535),
)


@given(st.lists(MESSAGES, max_size=6), st.data())
def test_messages_come_back_however_the_network_cuts_them(messages, data):
    stream = b"".join(packets.publish(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser, got = Parser(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += parser.feed(stream[start:end])
    assert got == messages


@pytest.mark.parametrize("size", [0, 121, 122, 16_377, 16_378, 2_097_145, 2_097_146])
def test_lengths_of_one_to_four_bytes(size):
    message = Publish("topic", bytes(size), 0)
    assert Parser().feed(packets.publish(message)) == [message]


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_awaits_more(data):
    with contextlib.suppress(BrokerError):
        assert isinstance(Parser().feed(data), list)


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\x01\x00",  # PUBLISH shorter than a topic
        b"\x30\x03\x00\x09a",  # topic longer than the packet
        b"\x32\x05\x00\x01a\x00\x00",  # packet id 0
        b"\x34\x05\x00\x01a\x00\x01",  # QoS 2
        b"\x40\x01\x00",  # PUBACK too short
        b"\x30\xff\xff\xff\xff\x01",  # length of five bytes
        b"\xf0\x00",  # type 15
        b"\x30\x03\x00\x01\xff",  # topic that is not UTF-8
    ],
)
def test_malformed_packets(data):
    with pytest.raises(BrokerError, match="malformed"):
        Parser().feed(data)


def test_answers_of_the_broker():
    stream = b"\x20\x02\x01\x05\x40\x02\x12\x34\x90\x04\x00\x07\x01\x80\xb0\x02\x00\x08\xd0\x00"
    assert Parser().feed(stream) == [
        Connack(True, 5),
        Puback(0x1234),
        Suback(7, (1, 0x80)),
        Unsuback(8),
        Pingresp(),
    ]


# Example packets as MQTT 3.1.1 sections 3.1 and 3.8 define the layout.
def test_connect_with_will_byte_for_byte():
    packet = packets.connect("me", False, 60, Publish("w", b"off", 1, True))
    assert packet == b"\x10\x16\x00\x04MQTT\x04\x2c\x00\x3c\x00\x02me\x00\x01w\x00\x03off"


def test_subscribe_and_unsubscribe_byte_for_byte():
    assert packets.subscribe(10, [("a/b", 1), ("c", 0)]) == b"\x82\x0c\x00\x0a\x00\x03a/b\x01\x00\x01c\x00"
    assert packets.unsubscribe(10, ["c"]) == b"\xa2\x05\x00\x0a\x00\x01c"


def test_many_acknowledgements_are_joined():
    assert packets.pubacks([1, 65535]) == b"\x40\x02\x00\x01\x40\x02\xff\xff"


# Examples of MQTT 3.1.1 section 4.7.1.
@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/#", "sport", True),
        ("#", "a/b", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("+", "/finance", False),
        ("a/b", "a/c", False),
    ],
)
def test_filters(pattern, topic, expected):
    assert matches(pattern, topic) is expected
