"""Frames: a little-endian u32 length, then a msgpack list of commands (down) or events (up)."""

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from llm_backend.engine.messages import Command, Event

_T = TypeVar("_T")
_LENGTH = struct.Struct("<I")
_FRAME_LIMIT_BYTES = 1 << 28  # a peer that sends a longer frame uses another protocol
MESSAGE_DATA_LIMIT_BYTES = _FRAME_LIMIT_BYTES - (1 << 10)  # the remainder is for the other fields
_SHARED_FRAME_LIMIT_BYTES = 1 << 24  # each message gets a frame of its own beyond this

_encoder = msgspec.msgpack.Encoder(enc_hook=os.fspath)
_commands = msgspec.msgpack.Decoder(list[Command], dec_hook=lambda kind, value: kind(value))
_events = msgspec.msgpack.Decoder(list[Event])


class FrameError(Exception):
    """The peer sent an invalid frame; the connection cannot be used any more."""


def frame(messages: Sequence[Command] | Sequence[Event]) -> bytes:
    """Encodes `messages` as one frame."""
    body = _encoder.encode(messages)
    return _LENGTH.pack(len(body)) + body


def frames(messages: Sequence[Event]) -> Iterator[bytes]:
    """Encodes `messages` as one frame; as one for each message if that frame would be large."""
    data = frame(messages)
    if len(data) <= _SHARED_FRAME_LIMIT_BYTES:
        yield data
    else:
        yield from (frame([message]) for message in messages)


def commands_in(body: bytes) -> list[Command]:
    """Decodes the commands in one frame's body."""
    return _decode(_commands, body)


def events_in(body: bytes) -> list[Event]:
    """Decodes the events in one frame's body."""
    return _decode(_events, body)


def _decode(decoder: "msgspec.msgpack.Decoder[_T]", body: bytes) -> _T:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(f"a frame of {len(body)} bytes cannot be decoded: {error}") from error


class FrameReader:
    """Splits a byte stream into frame bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Adds received bytes; returns the complete bodies."""
        may_be_whole = not self._buffer and len(data) > _LENGTH.size
        if may_be_whole and _LENGTH.unpack_from(data)[0] == len(data) - _LENGTH.size:
            return (data[_LENGTH.size :],)  # one frame, as in nearly all reads
        return self._split(data)

    def _split(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > _FRAME_LIMIT_BYTES:
                raise FrameError(
                    f"a frame of {length} bytes is announced, more than {_FRAME_LIMIT_BYTES}"
                )
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield body
