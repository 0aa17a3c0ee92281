"""TLS: the wire is encrypted, clients may have to show who they are, and what they show is who they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import aio

from tests.certificates import OPENSSL, Authority
from tests.engines import needs_tls
from tests.making import agent
from tests.serving import UNAVAILABLE, Client, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates and is not installed"),
    needs_tls,
]


@dataclass(frozen=True)
class Files:
    """An authority, what it made for a server and a client, and a client of another authority."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]
    stranger: tuple[Path, Path]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a server with its certificate."""
        return {"tls_cert": self.server[0], "tls_key": self.server[1]}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Certificates, made once for all tests."""
    folder = tmp_path_factory.mktemp("certificates")
    ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
    return Files(ours.certificate, ours.server(), ours.client("runner-7"), theirs.client("runner-8"))


def connect(address: str, files: Files, pair: tuple[Path, Path] | None = None) -> Client:
    """Make a client that trusts our authority, with a certificate of its own or without."""
    certificate, key = (path.read_bytes() for path in pair) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(files.ca.read_bytes(), key, certificate)
    return Client(address, aio.secure_channel(address, credentials))


async def test_with_a_certificate_the_wire_is_encrypted(tmp_path: Path, files: Files) -> None:
    """A client that trusts the authority is served, anonymous; one that speaks in plain text is not."""
    async with serving(tmp_path / "data", **files.settings) as running:
        client = connect(running.server.address, files)
        made = await client.agents.Create(agent())
        assert made.status.audit.spec_audit.created_by.id == "anonymous"
        assert (await refusal(running.client.agents.Create(agent("plain")))).code == UNAVAILABLE
        await client.channel.close()


async def test_a_client_is_who_its_certificate_says(tmp_path: Path, files: Files) -> None:
    """With mutual TLS the common name of the client's certificate is in the audit trail of what it does."""
    async with serving(tmp_path / "data", **files.settings, tls_client_ca=files.ca) as running:
        client = connect(running.server.address, files, files.client)
        made = await client.agents.Create(agent())
        made.metadata.name = "renamed"
        updated = await client.agents.Update(made)
        await client.channel.close()
    audit = updated.status.audit.spec_audit
    assert (audit.created_by.id, audit.updated_by.id) == ("runner-7", "runner-7")


async def test_a_client_that_shows_nothing_or_a_stranger_is_not_served(tmp_path: Path, files: Files) -> None:
    """With mutual TLS a client needs a certificate, and one of this authority."""
    async with serving(tmp_path / "data", **files.settings, tls_client_ca=files.ca) as running:
        for pair in (None, files.stranger):
            client = connect(running.server.address, files, pair)
            assert (await refusal(client.agents.Create(agent()))).code == UNAVAILABLE
            await client.channel.close()


async def test_a_client_does_not_take_another_authoritys_server(tmp_path: Path, files: Files) -> None:
    """A client refuses a server whose certificate it has no reason to trust."""
    async with serving(tmp_path / "data", **files.settings) as running:
        channel = aio.secure_channel(running.server.address, grpc.ssl_channel_credentials())
        client = Client(running.server.address, channel)
        assert (await refusal(client.agents.Create(agent()))).code == UNAVAILABLE
        await channel.close()


@pytest.mark.parametrize("name", ["tls_cert", "tls_key", "tls_client_ca"])
async def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path, files: Files, name: str) -> None:
    """A TLS file that cannot be read is an OSError that names it, before the data folder is touched."""
    settings: dict[str, Any] = {**files.settings, "tls_client_ca": files.ca, name: tmp_path / "nowhere.pem"}
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        async with serving(tmp_path / "data", **settings):
            pass
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
async def test_a_file_that_is_no_certificate_stops_the_start(tmp_path: Path, files: Files, name: str) -> None:
    """What is no certificate or key is an error at the start, and the data folder is free again."""
    broken = tmp_path / "broken.pem"
    broken.write_text("nonsense")
    with pytest.raises(OSError, match="cannot listen"):
        async with serving(tmp_path / "data", **{**files.settings, name: broken}):
            pass
    async with serving(tmp_path / "data", **files.settings):
        pass
