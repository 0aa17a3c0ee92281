"""Importing: agents and tools out of a person's own module, and what to say when there are none."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runstream.cli.failure import Failure, Misuse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from runstream.runner import ToolRegistry


def agents(path: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the agents at `path`, MODULE:ATTRIBUTE, by their names on the server; with `names` those alone.

    The attribute, which may be one of an attribute, is a mapping of names to functions or a function. That is the
    agent of the one name given, else of its own. Raises `Misuse`, and `Failure` for what the module itself raises.
    """
    found, attribute = _found(path, "my_agents:agents")
    if isinstance(found, Mapping):
        return _chosen(_checked(found, path), names, path)
    if not _is_agent(found):
        raise Misuse(f"--import {path}: is neither a function nor a dict of functions, but {_kind(found)}")
    if len(names) > 1:
        raise Misuse(f"--import {path}: is one function, which cannot be several agents; give one --agent")
    return {names[0] if names else _own_name(found, attribute): found}


def agents_of_all(paths: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Return the agents at several paths, as `agents` returns those of one; with `names` those of them alone.

    A name that stands at two of them is a `Misuse`.
    """
    if len(paths) == 1:
        return agents(paths[0], names)
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    for path in paths:
        for name, agent in agents(path, ()).items():
            if name in places:
                raise Misuse(f"--import {path}: its agent {name} is one of {places[name]} too; name one otherwise")
            found[name], places[name] = agent, path
    return _chosen(found, names, " and ".join(paths))


def tools(path: str) -> ToolRegistry:
    """Return the tools at `path`, MODULE:ATTRIBUTE: a registry, the one of a dispatcher, or of one function.

    Raises `Misuse`, and `Failure` for what the module itself raises.
    """
    # The machinery of tools is loaded here, and only here.
    from runstream.runner import ToolDispatcher, ToolRegistry  # noqa: PLC0415

    found, _ = _found(path, "my_tools:registry")
    if isinstance(found, ToolDispatcher):
        return found.registry
    if isinstance(found, ToolRegistry):
        return found
    if isinstance(found, type) or not callable(found):
        raise Misuse(f"--import {path}: is neither a ToolRegistry nor a function, but {_kind(found)}")
    registry = ToolRegistry()
    try:
        registry.add(found)
    except (TypeError, ValueError) as error:
        raise Misuse(f"--import {path}: {error}") from None
    return registry


def place(error: BaseException) -> str:
    """Return the file and the line in which an error was raised; empty when it was not raised in any."""
    frames = _frames(error)
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def _found(path: str, example: str) -> tuple[object, str]:
    """Return what stands at a path, and its name there."""
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        raise Misuse(f"--import takes MODULE:ATTRIBUTE, as in {example}, not {path!r}")
    return _attribute(_module(module_name), attribute, path), attribute


def _module(name: str) -> ModuleType:
    """Import a module, from the current folder first."""
    folder = os.getcwd()  # noqa: PTH109 — as sys.path has it
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise Misuse(
                f"--import: there is no module {error.name!r} in {folder} or among what is installed"
            ) from None
        raise Failure(_complaint(name, error), code="IMPORT_FAILED") from error
    except (Exception, SystemExit) as error:
        raise Failure(_complaint(name, error), code="IMPORT_FAILED") from error


def _attribute(module: ModuleType, attribute: str, path: str) -> object:
    found: object = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise Misuse(f"--import {path}: {module.__name__} has no {attribute!r}")
        found = getattr(found, name)
    return found


def _checked(listed: Mapping[object, object], path: str) -> dict[str, Any]:
    if not listed:
        raise Misuse(f"--import {path}: there is no agent in it")
    checked = {}
    for name, agent in listed.items():
        if not isinstance(name, str):
            raise Misuse(f"--import {path}: {name!r} is no name of an agent, but {_kind(name)}")
        if not _is_agent(agent):
            raise Misuse(f"--import {path}: agent {name!r} is not a function, but {_kind(agent)}")
        checked[name] = agent
    return checked


def _chosen(listed: dict[str, Any], names: Sequence[str], path: str) -> dict[str, Any]:
    for name in names:
        if name not in listed:
            raise Misuse(f"--agent {name}: {path} has no such agent; there are {', '.join(listed)}")
    return {name: listed[name] for name in names} if names else listed


def _is_agent(found: object) -> bool:
    """Whether it can be called, or holds a function beside what the server is to know of the agent."""
    return not isinstance(found, type) and (callable(found) or callable(getattr(found, "function", None)))


def _own_name(found: object, attribute: str) -> str:
    """Return the slug of a function's name."""
    name = str(getattr(getattr(found, "function", found), "__name__", attribute.rpartition(".")[2]))
    return name.strip("_").lower().replace("_", "-") or name


def _kind(found: object) -> str:
    return "a class" if isinstance(found, type) else f"of type {type(found).__name__}"


def _complaint(module: str, error: BaseException) -> str:
    """Return what a module raised, and where in it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: SyntaxError: {error.msg}"
    where = place(error) if len(_frames(error)) > 1 else f"module {module}"
    return f"{where}: {type(error).__name__}: {error}"


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
