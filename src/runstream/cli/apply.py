"""`runstream apply`: writes down resources of any kind, each as its document says."""

from runstream.cli import documents, resources
from runstream.cli.arguments import FilesOption
from runstream.cli.calling import calling
from runstream.cli.client import Client
from runstream.cli.documents import Document
from runstream.cli.failure import Misuse
from runstream.cli.kinds import AGENT, INSTANCE, SESSION
from runstream.cli.resources import Application


@calling
async def apply(client: Client, *, file: FilesOption) -> None:
    """Create or update resources of any kind, in the order of their documents.

    Every document says its `kind`: Agent, AgentInstance or Session. It may name a resource of an earlier document
    by its slug, as in `agent_id: researcher`. Nothing is applied when a document is not understood; when the server
    refuses one, those before it stay applied.
    """
    applications = [_application(document) for document in documents.read(file)]
    await client.output.report((await apply(client) for apply in applications), many=len(applications) > 1)


def _application(document: Document) -> Application:
    """Refuse what cannot be applied before anything is. Raises `Misuse`."""
    if document.kind == "AgentExecution":
        raise Misuse(
            f"{document.place}: an execution cannot be applied, since each is a new one; use `runstream run -f FILE`"
        )
    if document.kind == AGENT.name:
        return resources.application(AGENT, document)
    if document.kind == INSTANCE.name:
        return resources.application(INSTANCE, document)
    if document.kind == SESSION.name:
        return resources.application(SESSION, document)
    said = f"the kind {document.kind!r} is unknown" if document.kind else "`kind` is missing"
    raise Misuse(f"{document.place}: {said}; there are {AGENT.name}, {INSTANCE.name}, {SESSION.name}")
