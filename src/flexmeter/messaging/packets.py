"""MQTT 3.1.1 control packets, without any I/O: bytes from and to the few packets a client needs.

Source: OASIS standard "MQTT Version 3.1.1", sections 2 and 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import msgspec

from flexmeter.errors import BrokerError

CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP = 2, 3, 4, 9, 11, 13
PINGREQ_BYTES = b"\xc0\x00"
DISCONNECT_BYTES = b"\xe0\x00"
MAX_PACKET_BYTES = 268_435_455
_AT_LEAST_ONCE = 1
_PUBACK = struct.Struct(">BBH")


class Publish(msgspec.Struct):
    """An application message, as received or to be sent; `packet_id` is 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    packet_id: int = 0


class Connack(msgspec.Struct):
    """The broker's answer to CONNECT; `code` 0 is success."""

    session_present: bool
    code: int


class Puback(msgspec.Struct):
    """The broker has taken over a QoS 1 message."""

    packet_id: int


class Suback(msgspec.Struct):
    """The broker's answer to SUBSCRIBE: granted QoS per filter, 0x80 = refused."""

    packet_id: int
    codes: tuple[int, ...]


class Unsuback(msgspec.Struct):
    """The broker's answer to UNSUBSCRIBE."""

    packet_id: int


class Pingresp(msgspec.Struct):
    """The broker is alive."""


Packet = Publish | Connack | Puback | Suback | Unsuback | Pingresp


class Parser:
    """Cuts the byte stream of a broker into packets, however the network split it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that are complete now; raise `BrokerError` on a malformed one."""
        buffer = self._buffer
        buffer += data
        packets: list[Packet] = []
        start, size = 0, len(buffer)
        while size - start >= 2:
            length, body = buffer[start + 1], start + 2
            if length & 0x80:
                length, body = _long_length(buffer, start + 1)
                if not body:
                    break
            end = body + length
            if end > size:
                break
            packets.append(_parse(buffer[start], bytes(buffer[body:end])))
            start = end
        del buffer[:start]
        return packets


def _long_length(buffer: bytearray, start: int) -> tuple[int, int]:
    """Return the remaining length and where the body starts, body 0 = not all there yet."""
    length = 0
    for place, byte in enumerate(buffer[start : start + 4]):
        length |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return length, start + place + 1
    if len(buffer) - start >= 4:
        raise BrokerError("malformed MQTT packet: the length has more than four bytes")
    return 0, 0


def _parse(head: int, body: bytes) -> Packet:
    try:
        if head >> 4 == PUBLISH:
            return _parse_publish(head, body)
        match head, len(body):
            case 0x40, 2:
                return Puback(int.from_bytes(body))
            case 0x20, 2:
                return Connack(bool(body[0] & 1), body[1])
            case 0x90, length if length >= 3:
                return Suback(int.from_bytes(body[:2]), tuple(body[2:]))
            case 0xB0, 2:
                return Unsuback(int.from_bytes(body))
            case 0xD0, 0:
                return Pingresp()
    except (IndexError, UnicodeDecodeError) as error:
        raise BrokerError(f"malformed MQTT packet: {error}") from error
    raise BrokerError(f"malformed MQTT packet: type 0x{head:02x} with {len(body)} bytes")


def _parse_publish(head: int, body: bytes) -> Publish:
    at = 2 + (body[0] << 8 | body[1])
    if at > len(body):
        raise BrokerError("malformed MQTT packet: the topic is longer than the packet")
    topic = body[2:at].decode()
    qos = head >> 1 & 3
    if not qos:
        return Publish(topic, body[at:], 0, bool(head & 1))
    packet_id = body[at] << 8 | body[at + 1]
    if qos > _AT_LEAST_ONCE or not packet_id:
        raise BrokerError(f"malformed MQTT packet: PUBLISH with QoS {qos} and packet id {packet_id}")
    return Publish(topic, body[at + 2 :], qos, bool(head & 1), bool(head & 8), packet_id)


def connect(client_id: str, clean: bool, keepalive_s: int, will: Publish | None) -> bytes:
    """Return a CONNECT packet; the client authenticates by its certificate, not by a password."""
    flags = 0x02 if clean else 0
    payload = _text(client_id)
    if will is not None:
        flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        payload += _text(will.topic) + _text(will.payload)
    return _packet(0x10, b"\x00\x04MQTT\x04" + struct.pack(">BH", flags, keepalive_s) + payload)


def publish(message: Publish) -> bytes:
    """Return a PUBLISH packet."""
    head = 0x30 | message.qos << 1 | message.retain | message.duplicate << 3
    packet_id = message.packet_id.to_bytes(2) if message.qos else b""
    return _packet(head, _text(message.topic) + packet_id + message.payload)


def pubacks(packet_ids: Iterable[int]) -> bytes:
    """Return the PUBACK packets of many messages, to be written at once."""
    return b"".join([_PUBACK.pack(0x40, 2, packet_id) for packet_id in packet_ids])


def subscribe(packet_id: int, filters: Sequence[tuple[str, int]]) -> bytes:
    """Return a SUBSCRIBE packet for (filter, QoS) pairs."""
    body = b"".join(_text(topic) + bytes([qos]) for topic, qos in filters)
    return _packet(0x82, packet_id.to_bytes(2) + body)


def unsubscribe(packet_id: int, filters: Sequence[str]) -> bytes:
    """Return an UNSUBSCRIBE packet."""
    return _packet(0xA2, packet_id.to_bytes(2) + b"".join(_text(topic) for topic in filters))


def _text(content: str | bytes) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return len(data).to_bytes(2) + data


def _packet(head: int, body: bytes) -> bytes:
    length = len(body)
    if length > MAX_PACKET_BYTES:
        raise BrokerError(f"an MQTT packet of {length} bytes is longer than the protocol allows")
    coded = bytearray([head])
    while True:
        length, low = length >> 7, length & 0x7F
        coded.append(low | (0x80 if length else 0))
        if not length:
            return bytes(coded) + body
