"""The build hook: generates the code of `protos/` before hatchling packs or links the project."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from types import ModuleType


class GeneratedCode(BuildHookInterface):  # type: ignore[type-arg]
    """Brings the generated code up to date for a wheel, an sdist and an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Generate, and list the files for the archive, which leaves out what git ignores."""
        root = Path(self.root)
        for path in _generator(root).update(root):
            build_data["artifacts"].append("/" + path.relative_to(root).as_posix())


def _generator(root: Path) -> ModuleType:
    """Load tools/protos.py by its path: during a build the project's folder is not importable."""
    spec = importlib.util.spec_from_file_location("runstream_protos", root / "tools" / "protos.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"no tools/protos.py below {root}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
