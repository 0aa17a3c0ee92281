from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.certificates import OPENSSL, Authority
from tests.cli.processes import CommandLine, ServerProcess
from tests.engines import needs_tls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.cli.processes import Process


AGENTS = """
import asyncio

from runstream.runner import Agent, Approval


async def greet_kindly(invocation):
    yield f"Hello, {invocation.message}."


async def work(invocation):
    yield f"This is attempt {invocation.attempt}."
    if invocation.attempt == 1:
        await asyncio.Event().wait()


async def deploy(invocation):
    async with invocation.report.tool("deploy", {"env": "prod"}, approval=Approval()):
        pass
    yield "Deployed."


agents = {"greeter": greet_kindly, "worker": Agent(work, description="Works.")}
more = {"host": greet_kindly}
refused = {"refused": Agent(work, max_attempts=1_000)}
twice = {"One": work, "one": work}
number = 7
nothing = {}
wrong_value = {"x": 7}
wrong_name = {7: greet_kindly}


class Box:
    agents = agents
"""

#: What a command has that is no module run by Python: the current folder is not on its path.
INSTALLED = {"PYTHONSAFEPATH": "1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with modules."""
    made = tmp_path / "project"
    made.mkdir()
    (made / "my_agents.py").write_text(AGENTS)
    (made / "lacking.py").write_text("import missing_on_purpose\n")
    (made / "raising.py").write_text("\n\nraise LookupError('no key')\n")
    (made / "leaving.py").write_text("raise SystemExit(3)\n")
    (made / "garbled.py").write_text("x = 1\ndef\n")
    return made


@pytest.fixture
def forgetful_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that does not wait for a runner for long."""
    server = ServerProcess(tmp_path / "data", "--lease-duration", "2", "--retry-backoff", "0")
    yield server
    server.end()


def _serve(cli: CommandLine, folder: Path, path: str, *options: str, env: Mapping[str, str] = INSTALLED) -> Process:
    """Start a runner and wait until the server has let it attach."""
    process = cli.start("runner", "--import", path, *options, env=env, folder=folder)
    process.wait_for("attached as ")
    return process


def test_agents_of_the_current_folder_are_served(own_cli: CommandLine, folder: Path) -> None:
    runner = _serve(own_cli, folder, "my_agents:agents", "--capacity", "1")
    run = own_cli.ok("run", "greeter", "Ada")
    assert "agent: Hello, Ada.\n" in run.out
    assert "description  Works." in own_cli.ok("agent", "get", "worker").out.replace("          ", " ")
    runner.signal(signal.SIGTERM)
    assert runner.wait() == 0


def test_one_function_is_an_agent_of_its_own_name_or_of_another(own_cli: CommandLine, folder: Path) -> None:
    _serve(own_cli, folder, "my_agents:greet_kindly")
    assert "Hello, Ada." in own_cli.ok("run", "greet-kindly", "Ada").out
    _serve(own_cli, folder, "my_agents:greet_kindly", "--agent", "host")
    assert "Hello, Bo." in own_cli.ok("run", "host", "Bo").out


def test_those_of_a_dict_are_served_that_are_named(own_cli: CommandLine, folder: Path) -> None:
    _serve(own_cli, folder, "my_agents:Box.agents", "--agent", "greeter")
    assert own_cli("agent", "get", "greeter").code == 0
    assert own_cli("agent", "get", "worker").code == 1


def test_agents_of_several_places_are_served_together(own_cli: CommandLine, folder: Path) -> None:
    _serve(own_cli, folder, "my_agents:agents", "--import", "my_agents:greet_kindly")
    for agent in ("greeter", "greet-kindly"):
        assert "Hello, Ada." in own_cli.ok("run", agent, "Ada").out
    _serve(own_cli, folder, "my_agents:deploy", "--import", "my_agents:more", "--agent", "host")
    assert own_cli("agent", "get", "host").code == 0
    assert own_cli("agent", "get", "deploy").code == 1


def test_what_is_missing_on_the_server_is_not_made_unasked(own_cli: CommandLine, folder: Path) -> None:
    _serve(own_cli, folder, "my_agents:agents", "--no-register")
    assert own_cli("agent", "get", "greeter").code == 1


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("my_agents", "--import takes MODULE:ATTRIBUTE"),
        (":agents", "--import takes MODULE:ATTRIBUTE"),
        ("no_such_module:agents", "there is no module 'no_such_module' in "),
        ("my_agents.sub:agents", "there is no module 'my_agents.sub'"),
        ("my_agents:nobody", "my_agents has no 'nobody'"),
        ("my_agents:Box.nobody", "my_agents has no 'Box.nobody'"),
        ("my_agents:number", "neither a function nor a dict of functions, but of type int"),
        ("my_agents:Box", "neither a function nor a dict of functions, but a class"),
        ("my_agents:nothing", "there is no agent in it"),
        ("my_agents:wrong_value", "agent 'x' is not a function, but of type int"),
        ("my_agents:twice", "--import my_agents:twice: "),
        ("my_agents:wrong_name", "7 is no name of an agent, but of type int"),
    ],
)
def test_what_cannot_be_served_is_misuse(cli: CommandLine, folder: Path, path: str, told: str) -> None:
    refused = cli("runner", "--import", path, folder=folder, env=INSTALLED)
    assert refused.code == 2
    assert told in refused.err


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("lacking", "lacking.py, line 1: ModuleNotFoundError: No module named 'missing_on_purpose'"),
        ("raising", "raising.py, line 3: LookupError: no key"),
        ("leaving", "leaving.py, line 1: SystemExit: 3"),
        ("garbled", "garbled.py, line 2: SyntaxError: "),
    ],
)
def test_what_a_module_raises_is_told_with_its_place(cli: CommandLine, folder: Path, module: str, told: str) -> None:
    refused = cli("runner", "--import", f"{module}:agents", folder=folder, env=INSTALLED)
    assert refused.code == 1
    assert told in refused.err


def test_what_the_server_refuses_is_told(cli: CommandLine, folder: Path) -> None:
    refused = cli("runner", "--import", "my_agents:refused", folder=folder, env=INSTALLED)
    assert refused.code == 1
    assert "error: agent 'refused': " in refused.err
    assert "max_attempts" in refused.err


@needs_tls
@pytest.mark.skipif(OPENSSL is None, reason="openssl is missing")
def test_a_runner_encrypts_as_every_command_does(folder: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    certificate, key = (str(file) for file in authority.server())
    own_certificate, own_key = (str(file) for file in authority.client("runner-7"))
    trusted = ("--ca", str(authority.certificate), "--cert", own_certificate, "--key", own_key)
    asking = ("--tls-client-ca", str(authority.certificate))
    server = ServerProcess(tmp_path / "data", "--tls-cert", certificate, "--tls-key", key, *asking)
    cli = CommandLine(server.address)
    try:
        _serve(cli, folder, "my_agents:agents", *trusted)
        assert "agent: Hello, Ada.\n" in cli.ok("run", "greeter", "Ada", *trusted).out
        misuse = cli("runner", "--import", "my_agents:agents", "--ca", key, folder=folder)
        assert (misuse.code, "there is no certificate in it" in misuse.err) == (2, True)
    finally:
        cli.end()
        server.end()


def test_options_that_make_no_sense_are_misuse(cli: CommandLine, folder: Path) -> None:
    function, agents = ("runner", "--import", "my_agents:work"), ("runner", "--import", "my_agents:agents")
    several = cli(*function, "--agent", "a", "--agent", "b", folder=folder)
    assert (several.code, "cannot be several agents" in several.err) == (2, True)
    unknown = cli(*agents, "--agent", "nobody", folder=folder)
    assert (unknown.code, "there are greeter, worker" in unknown.err) == (2, True)
    doubled = cli(*agents, "--import", "my_agents:work", "--import", "my_agents:Box.agents", folder=folder)
    assert (doubled.code, "its agent greeter is one of my_agents:agents too" in doubled.err) == (2, True)
    assert cli(*agents, "--capacity", "0", folder=folder).code == 2
    assert cli(*agents, "--server", "host:99999", folder=folder).code == 2
    assert cli("runner", folder=folder).code == 2


def test_a_new_attempt_is_seen_to_begin_anew(forgetful_server: ServerProcess, folder: Path) -> None:
    cli = CommandLine(forgetful_server.address)
    try:
        first = _serve(cli, folder, "my_agents:agents")
        execution = cli.ok("run", "worker", "do it", "--detach").out.strip()
        lines, changes = cli.start("watch", execution), cli.start("watch", execution, "--changes")
        terminal = cli.open("watch", execution)
        changes.wait_for("This is attempt 1")
        terminal.wait_for("agent: This is attempt 1.")
        first.signal(signal.SIGKILL)
        changes.wait_for("phase=PENDING")
        _serve(cli, folder, "my_agents:agents")
        assert lines.wait() == changes.wait() == terminal.wait() == 0
        told = "attempt 2 begins anew; what attempt 1 said and did is dropped"
        assert f"{told}\nphase IN_PROGRESS\nagent: This is attempt 2.\nCOMPLETED in " in lines.output
        assert f"{told}\n" in terminal.text
        assert "agent: This is attempt 2.\n" in terminal.text
        assert "lost its runner; phase=PENDING" in changes.output
        assert re.search(r"supersedes attempt 1; assigned to \S+; phase=IN_PROGRESS attempt=2\n", changes.output)
        shown = cli.ok("get", execution).out
        assert "attempt 2\n" in shown
        assert "This is attempt 1." not in shown
    finally:
        cli.end()


def test_a_runner_goes_on_with_what_a_person_decided(own_cli: CommandLine, folder: Path) -> None:
    _serve(own_cli, folder, "my_agents:deploy")
    run = own_cli.start("run", "deploy", "do it")
    execution = run.wait_for(r"`runstream approve (aex_\w+) ").group(1)
    own_cli.ok("approve", execution, "--comment", "go")
    assert run.wait() == 0
    assert "✓ deploy env=prod" in run.output
    assert "approved by anonymous: go" in run.output
    assert "agent: Deployed." in run.output
