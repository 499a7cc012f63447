"""How large a message may be; without protobuf and Arrow, so that a server can bind before it loads them."""

from __future__ import annotations

MAX_MESSAGE_BYTES = 200 << 20
"""Largest message either side of the protocol takes."""

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
