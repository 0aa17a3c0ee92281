"""gRPC calls over HTTP/2, made by hand, for a few microseconds each: so that the client is not what is measured.

A request is two frames that are the same for every call but for the stream's number, so they are made once. Of an
answer only the frames are told apart: header blocks are not read. That is enough here: a call that is refused has no
message, and what was committed is counted by revisions afterwards.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from google.protobuf.message import Message

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
_ACK: Final = 0x1
_END_STREAM: Final = 0x1
_NO_ERROR: Final = bytes(4)
_END_HEADERS: Final = 0x4
_FRAME: Final = struct.Struct(">BHBBI")
_HEAD_BYTES: Final = 9
_PREFIX_BYTES: Final = 5
_LARGEST_FRAME: Final = 16_384
_FIRST_WINDOW: Final = 65_535
_LARGEST_WINDOW: Final = (1 << 31) - 1
_READ_BYTES: Final = 1 << 18
_SILENCE_SECONDS: Final = 120.0


class Broken(Exception):
    """The server has closed the connection, or said something that no call here expects."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that can be made any number of times: its header block, and its message with gRPC's prefix."""

    headers: bytes
    body: bytes

    @classmethod
    def to(cls, method: str, request: Message) -> Call:
        """Make the call of a method, as in ``/runstream.v1.AgentQueryController/Get``, with this request."""
        return cls.of_bytes(method, request.SerializeToString())

    @classmethod
    def of_bytes(cls, method: str, payload: bytes) -> Call:
        """Make the call of a method with this request; ValueError for one that does not fit into a frame."""
        if len(payload) + _PREFIX_BYTES > _LARGEST_FRAME:
            raise ValueError(f"a request here has up to {_LARGEST_FRAME - _PREFIX_BYTES} bytes, not {len(payload)}")
        # Indexed: POST and http. The others as they stand, so that no state is shared between calls.
        path = b"\x04" + _text(method.encode())
        rest = b"\x01" + _text(b"localhost") + b"\x0f\x10" + _text(b"application/grpc")
        headers = b"\x83\x86" + path + rest + b"\x00" + _text(b"te") + _text(b"trailers")
        return cls(headers, struct.pack(">BI", 0, len(payload)) + payload)


@dataclass(frozen=True, slots=True)
class Piece:
    """What has come on one stream: some bytes of its messages, or its end, or both."""

    stream: int
    data: bytes
    ended: bool


class Connection:
    """One connection to a server. What is sent leaves with `flush`; what has come is returned by `read`."""

    def __init__(self, address: str, *, window: int = _LARGEST_WINDOW) -> None:
        """Connect to HOST:PORT. With a small `window`, the server may not send more than so much to a stream."""
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=_SILENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._next = 1
        self._may_send = _FIRST_WINDOW
        #: Requests that the server does not take yet, and how much of its window each needs.
        self._held: list[tuple[bytes, int]] = []
        # No header table: blocks of one call are independent of those before. No pushes.
        settings = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, window)
        self._out = [_PREFACE, _frame(_SETTINGS, 0, 0, settings)]
        if window > _FIRST_WINDOW:
            self._out.append(_frame(_WINDOW, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW)))

    def send(self, call: Call) -> int:
        """Begin a call; return the number of its stream."""
        stream = self._next
        self._next += 2
        begin = _frame(_HEADERS, _END_HEADERS, stream, call.headers)
        whole = begin + _frame(_DATA, _END_STREAM, stream, call.body)
        if self._held or len(call.body) > self._may_send:
            self._held.append((whole, len(call.body)))  # until the server says that it takes more
        else:
            self._may_send -= len(call.body)
            self._out.append(whole)
        return stream

    def flush(self) -> None:
        """Send what is to be sent."""
        if self._out:
            out, self._out = b"".join(self._out), []
            self.socket.sendall(out)

    def read(self) -> list[Piece]:
        """Wait for something to come, and return it. `Broken` when the connection is."""
        received = self.socket.recv(_READ_BYTES)
        if not received:
            raise Broken("the server has closed the connection")
        data = self._rest + received if self._rest else received
        pieces: list[Piece] = []
        place, end = 0, len(data)
        while end - place >= _HEAD_BYTES:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, place)
            after = place + _HEAD_BYTES + (high << 16 | low)
            if after > end:
                break
            payload = data[place + _HEAD_BYTES : after]
            place = after
            if kind == _DATA:
                pieces.append(Piece(stream, payload, bool(flags & _END_STREAM)))
            elif kind == _HEADERS:
                if flags & _END_STREAM:
                    pieces.append(Piece(stream, b"", ended=True))
            else:
                self._obey(kind, flags, stream, payload)
        self._rest = data[place:]
        return pieces

    def close(self) -> None:
        """Close it, whatever is under way."""
        self.socket.close()

    def _obey(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._out.append(_frame(_SETTINGS, _ACK, 0, b""))
            self.flush()
        elif kind == _PING and not flags & _ACK:
            self._out.append(_frame(_PING, _ACK, 0, payload))
            self.flush()
        elif kind == _WINDOW and stream == 0:
            self._let_go(struct.unpack(">I", payload)[0])
        elif kind == _GO_AWAY:
            raise Broken(f"the server ends the connection: {payload[8:].decode(errors='replace')}")
        elif kind == _RESET and payload != _NO_ERROR:
            raise Broken("the server has reset a call")

    def _let_go(self, more: int) -> None:
        """Send what the server now takes. What it takes of one stream is more than a request, and is not counted."""
        self._may_send += more
        while self._held and self._held[0][1] <= self._may_send:
            whole, needed = self._held.pop(0)
            self._may_send -= needed
            self._out.append(whole)
        self.flush()


class Messages:
    """The messages of one stream, put together from its pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> list[bytes]:
        """Return the messages that are whole with these bytes."""
        data = self._rest + data if self._rest else data
        whole = []
        place = 0
        while len(data) - place >= _PREFIX_BYTES:
            after = place + _PREFIX_BYTES + int.from_bytes(data[place + 1 : place + _PREFIX_BYTES], "big")
            if after > len(data):
                break
            whole.append(data[place + _PREFIX_BYTES : after])
            place = after
        self._rest = data[place:]
        return whole


def answer(connection: Connection, call: Call) -> bytes:
    """Make a call that has one answer, with nothing else under way, and return the message. `Broken` if refused."""
    connection.send(call)
    connection.flush()
    found: list[bytes] = []
    messages = Messages()
    ended = False
    while not ended:
        for piece in connection.read():
            found += messages.take(piece.data)
            ended = ended or piece.ended
    if len(found) != 1:
        raise Broken("a call was refused")
    return found[0]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _text(value: bytes) -> bytes:
    """Return a string of up to 126 bytes as it stands in a header block, not compressed."""
    return bytes([len(value)]) + value
