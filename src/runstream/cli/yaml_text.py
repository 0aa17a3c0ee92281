"""YAML: read as JSON with comments, written so that it reads back the same.

Only JSON's own values count as such: `no` is a word and `2026-01-31` is text, as in YAML 1.2.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

_ODD_LINE_END: Final = re.compile("[\r\x85\u2028\u2029]")
_SPACE: Final = re.compile(r"\s*")
_STR: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"

#: What a word without quotes may be besides text, and the characters it may begin with.
_WORDS: Final[tuple[tuple[str, str, str], ...]] = (
    ("tag:yaml.org,2002:bool", r"^(?:true|false)$", "tf"),
    ("tag:yaml.org,2002:null", r"^(?:null|~|)$", "n~"),
    ("tag:yaml.org,2002:int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$",
        "-0123456789",
    ),
    (_MERGE, r"^(?:<<)$", "<"),
)


class _Loader(yaml.SafeLoader):
    """The safe loader with JSON's values, with text as the only keys, and no key twice."""

    yaml_implicit_resolvers: dict[str, object] = {}  # noqa: RUF012 — PyYAML's own shape

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 — as PyYAML calls it
    ) -> dict[Hashable, object]:
        """Return the mapping. Raises a `MarkedYAMLError` for a key that stands there twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
            key.tag = _STR
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """The safe dumper that writes text of several lines as a block.

    It quotes what an old YAML reader takes for something else than text, and what the loader does.
    """


for _tag, _pattern, _first in _WORDS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), [*_first])
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), [*_first])
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^$"), [""])


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    if _ODD_LINE_END.search(text):
        return dumper.represent_scalar(_STR, text, style='"')  # the one style that keeps them
    return dumper.represent_scalar(_STR, text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def load_all(text: str) -> list[object]:
    """Return the documents of `text`, JSON or YAML. Raises `ValueError` with the place."""
    try:
        if text.lstrip()[:1] in {"{", "["}:
            try:
                return list(_json_values(text))
            except json.JSONDecodeError:
                pass  # YAML in flow style
        # The loader is a safe one: it makes nothing but dicts, lists and scalars.
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise ValueError(_complaint(error)) from None
    except RecursionError:
        raise ValueError("nested too deep") from None


def _json_values(text: str) -> Iterator[object]:
    """Yield the JSON values that stand one after the other. Raises `json.JSONDecodeError`."""
    decoder = json.JSONDecoder()
    at = _next_value(text, 0)
    while at < len(text):
        value, end = decoder.raw_decode(text, at)
        yield value
        at = _next_value(text, end)


def _next_value(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def dump(value: object) -> str:
    """Return `value` as one YAML document, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def dump_all(values: Iterable[object]) -> str:
    """Return `values` as YAML documents, each after its `---`."""
    return "".join(f"---\n{dump(value)}" for value in values)


def _complaint(error: yaml.YAMLError) -> str:
    """Return what is wrong and where, without the lines themselves: they may hold a secret."""
    problem = getattr(error, "problem", None) or "not YAML"
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{problem}"
