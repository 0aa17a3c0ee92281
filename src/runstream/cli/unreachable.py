"""Unreachable: what is likely to be wrong when a server does not answer, from what gRPC says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runstream.cli.connection import Connection

_NOT_RUNNING: Final = "is the server running? start one with `runstream serve`"
#: What stands in gRPC's message when the server answered, and not as TLS wants it; and what to do about it.
_TLS_FAULTS: Final = (
    ("WRONG_VERSION_NUMBER", "the server does not speak TLS: leave out --tls, --ca and --cert"),
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate is not of an authority that is trusted: give it with --ca"),
    ("Hostname Verification", "the server's certificate is for another name than that of --server"),
)
#: It connected, and the server hung up before anything was said.
_HUNG_UP: Final = ("failed to connect", "Socket closed")


def hint(message: str, connection: Connection) -> str:
    """Return what to try when nothing answered a call, which gRPC told in `message`."""
    for sign, advice in _TLS_FAULTS:
        if sign in message:
            return advice
    if not all(sign in message for sign in _HUNG_UP):
        return _NOT_RUNNING
    if not connection.encrypted:
        return "something listens there and hangs up: if it wants TLS, add --tls, or --ca with its authority"
    if connection.cert is None:
        return "the server hangs up: if it wants to see a certificate, give one with --cert and --key"
    return "the server hangs up: it may not trust the certificate of --cert"
