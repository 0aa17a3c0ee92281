"""Reading the page of the metrics as Prometheus does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client.core import Metric


@dataclass(frozen=True)
class Answer:
    """What a server answered over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Scrape:
    """Everything that the page said at one time."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, Metric] = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """Return the value of a sample; 0 for one that is not there."""
        return self._samples.get((name, frozenset(labels.items())), 0.0)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the values of all samples of a name that are not 0, by one of their labels."""
        found = {dict(labels)[label]: value for (each, labels), value in self._samples.items() if each == name}
        return {key: value for key, value in found.items() if value}


async def ask(address: str, request: bytes) -> Answer:
    """Send bytes to an address; return the answer, once the connection is closed."""
    host, _, port = address.rpartition(":")
    answered, asking = await asyncio.open_connection(host.strip("[]"), int(port))
    asking.write(request)
    head, _, body = (await answered.read()).partition(b"\r\n\r\n")
    asking.close()
    first, *lines = head.decode("latin-1").split("\r\n")
    return Answer(int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines), body)


async def get(address: str, path: str = "/metrics", **headers: str) -> Answer:
    """Get a page; an underscore in the name of a header is a hyphen."""
    lines = [f"GET {path} HTTP/1.1", "Host: here", *(f"{name.replace('_', '-')}: {headers[name]}" for name in headers)]
    return await ask(address, "\r\n".join([*lines, "", ""]).encode())


async def scrape(address: str) -> Scrape:
    """Get the page and read it."""
    answer = await get(address)
    assert answer.status == 200
    return Scrape(answer.body.decode())
