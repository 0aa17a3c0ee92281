"""`runstream apply`: writes down resources of any kind, each as its document says."""

from runstream.cli import documents, resources
from runstream.cli.arguments import FilesOption
from runstream.cli.calling import calling
from runstream.cli.client import Client
from runstream.cli.failure import Misuse
from runstream.cli.kinds import AGENT, INSTANCE, SESSION
from runstream.v1.agent_instance_pb2 import AgentInstance
from runstream.v1.agent_pb2 import Agent
from runstream.v1.session_pb2 import Session


@calling
async def apply(client: Client, *, file: FilesOption) -> None:
    """Create or update resources of any kind, in the order of their documents.

    Every document says its `kind`: Agent, AgentInstance or Session. It may name a resource of an earlier document
    by its slug, as in `agent_id: researcher`.
    """
    found = documents.read(file)
    for document in found:
        _check_kind(document)
    applied: list[Agent | AgentInstance | Session] = []
    lines: list[str] = []
    for document in found:
        resource, line = await _apply(client, document)
        applied.append(resource)
        lines.append(line)
    client.output.records(applied, lines)


async def _apply(client: Client, document: documents.Document) -> tuple[Agent | AgentInstance | Session, str]:
    if document.kind == INSTANCE.name:
        return await resources.apply(client, INSTANCE, document)
    if document.kind == SESSION.name:
        return await resources.apply(client, SESSION, document)
    return await resources.apply(client, AGENT, document)


def _check_kind(document: documents.Document) -> None:
    """Refuse what cannot be applied before anything is. Raises `Misuse`."""
    names = (AGENT.name, INSTANCE.name, SESSION.name)
    if document.kind == "AgentExecution":
        raise Misuse(
            f"{document.place}: an execution cannot be applied, since each is a new one; use `runstream run -f FILE`"
        )
    if document.kind not in names:
        said = f"the kind {document.kind!r} is unknown" if document.kind else "`kind` is missing"
        raise Misuse(f"{document.place}: {said}; there are {', '.join(names)}")
