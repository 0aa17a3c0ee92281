"""Certificates: the files that a connection is encrypted with, looked at before gRPC gets them.

gRPC takes any bytes and then cannot connect, or not listen, without saying why.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from runstream.cli.failure import Misuse

if TYPE_CHECKING:
    from pathlib import Path


def read_authorities(file: Path | None, option: str) -> bytes | None:
    """Return the certificates of a file, None without one. Raises `Misuse` when it holds none."""
    if file is None:
        return None
    content = read(file, option)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        raise Misuse(f"{option} {file}: there is no certificate in it (PEM)") from None
    return content


def read_identity(cert: Path, key: Path, options: tuple[str, str]) -> tuple[bytes, bytes]:
    """Return a certificate chain and its private key. Raises `Misuse` when they are none, or do not belong together."""
    content = read(cert, options[0]), read(key, options[1])
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        raise Misuse(_complaint(error, cert, key, options)) from None
    return content


def read(file: Path, option: str) -> bytes:
    """Return the bytes of a file. Raises `Misuse`."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise Misuse(f"{option} {file}: {error.strerror or error}") from None


def _complaint(error: ssl.SSLError, cert: Path, key: Path, options: tuple[str, str]) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{options[1]} {key}: is not the private key of {options[0]} {cert}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)
    except ssl.SSLError:
        return f"{options[0]} {cert}: there is no certificate in it (PEM)"
    return f"{options[1]} {key}: there is no private key in it (PEM, without a password)"
