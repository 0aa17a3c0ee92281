"""Certificates for tests, made by openssl: an authority, a server, and clients by name."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OPENSSL = shutil.which("openssl")


class Authority:
    """An authority in a folder of its own, which signs what it is asked to."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir()
        self.certificate = self._folder / "ca.pem"
        self._key = self._folder / "ca.key"
        self._openssl("req", "-x509", *self._new_key(self._key), "-subj", f"/CN={name}", "-out", self.certificate)

    def server(self) -> tuple[Path, Path]:
        """Make the certificate and the key of a server on this machine."""
        return self._signed("server", "subjectAltName=DNS:localhost,IP:127.0.0.1")

    def client(self, name: str) -> tuple[Path, Path]:
        """Make the certificate and the key of a client whose common name this is."""
        return self._signed(name, "extendedKeyUsage=clientAuth")

    def _signed(self, name: str, extension: str) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(extension + "\n")
        self._openssl("req", *self._new_key(key), "-subj", f"/CN={name}", "-out", request)
        signing: list[str | Path] = [
            "-CA",
            self.certificate,
            "-CAkey",
            self._key,
            "-CAcreateserial",
            "-extfile",
            extensions,
        ]
        self._openssl("x509", "-req", "-in", request, *signing, "-out", certificate)
        return certificate, key

    @staticmethod
    def _new_key(path: Path) -> list[str | Path]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path]

    @staticmethod
    def _openssl(*arguments: str | Path) -> None:
        subprocess.run([str(OPENSSL), *map(str, arguments)], check=True, capture_output=True)
