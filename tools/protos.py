"""Makes the Python code below `src/` from the `.proto` files below `protos/`.

`protos/runstream/v1/agent.proto` becomes `src/runstream/v1/agent_pb2.py` and its `.pyi`; a file
with services also becomes `agent_pb2_grpc.py` and its `.pyi`, typed for grpc.aio. Generated code is
never committed and never edited.

Three things stand out:

- The rules in our protos are protovalidate options, so they import `buf/validate/validate.proto`.
  The protovalidate package ships no such file, only a generated module; its descriptor is handed to
  protoc as a descriptor set.
- The Python module of that file goes to `runstream._buf.validate`, and the imports of it are
  rewritten, so that installing Runstream puts no top-level package `buf` beside other projects'.
- A run whose inputs and outputs are as the last run left them does nothing; any other run makes
  everything anew and removes what no `.proto` file stands behind any more.

    python tools/protos.py            bring the generated code up to date
    python tools/protos.py lint       check the protos with buf, without network
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

VALIDATE_PROTO = "buf/validate/validate.proto"
GENERATORS = ("grpcio-tools", "mypy-protobuf", "protovalidate")
STAMP = "runstream/_buf/.stamp.json"
GENERATED_NAME = re.compile(r".+_pb2(_grpc)?\.pyi?")
INIT = '"""Generated from the .proto files of {package}; see tools/protos.py."""\n'
INIT_START = '"""Generated from the .proto files of '


class GenerationError(Exception):
    """The generated code could not be made; the message is what the compiler said."""


def update(root: Path) -> list[Path]:
    """Bring the generated code below `root/src` up to date; return every generated file, in order.

    Doing it again changes nothing. Files are replaced one by one and only where their text differs,
    so a program that imports them meanwhile, or a second run beside this one, never sees half one.
    """
    protos, source = root / "protos", root / "src"
    inputs = _digest_of_inputs(protos)
    outputs = _outputs_of_last_run(source, inputs)
    if outputs is None:
        made = _generate(protos)
        for name, text in made.items():
            _write(source / name, text)
        outputs = sorted(made)
        _remove_stale(source, keep={source / name for name in outputs})
        _write_stamp(source, inputs, outputs)
    return [source / name for name in outputs]


def lint(root: Path, buf: str) -> int:
    """Run `buf lint` over the protos; return its exit status.

    They are compiled here, as buf would fetch the import of validate.proto from its registry. The
    image carries the comments (source info), which one lint category reads.
    """
    protos = root / "protos"
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "runstream.binpb")
        _compile(
            protos,
            _proto_names(protos),
            f"--descriptor_set_out={image}",
            "--include_imports",
            "--include_source_info",
        )
        command = [buf, "lint", str(image), "--config", str(root / "buf.yaml")]
        return subprocess.run(command, check=False, cwd=root).returncode


def _proto_names(protos: Path) -> list[str]:
    return sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))


def _digest_of_inputs(protos: Path) -> str:
    """Digest all that decides what is generated: protos, this program, versions of generators."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in GENERATORS:
        digest.update(f"\0{name}=={metadata.version(name)}".encode())
    for name in _proto_names(protos):
        text = (protos / name).read_bytes()
        digest.update(f"\0{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def _outputs_of_last_run(source: Path, inputs: str) -> list[str] | None:
    """Return the generated files if they are what these inputs made, else None."""
    try:
        stamp = json.loads((source / STAMP).read_text("utf-8"))
        outputs: dict[str, str] = stamp["outputs"]
        fresh = stamp["inputs"] == inputs and all(
            _digest_of(source / name) == digest for name, digest in outputs.items()
        )
    except (OSError, ValueError, LookupError):
        return None
    return sorted(outputs) if fresh else None


def _write_stamp(source: Path, inputs: str, outputs: list[str]) -> None:
    stamp = {"inputs": inputs, "outputs": {name: _digest_of(source / name) for name in outputs}}
    _write(source / STAMP, json.dumps(stamp, indent=1) + "\n")


def _digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _generate(protos: Path) -> dict[str, str]:
    """Return the text of every generated file, by its path below `src`."""
    names = _proto_names(protos)
    with tempfile.TemporaryDirectory() as folder:
        _compile(
            protos,
            [*names, VALIDATE_PROTO],
            f"--plugin=protoc-gen-mypy={_plugin('protoc-gen-mypy')}",
            f"--python_out={folder}",
            f"--mypy_out=quiet:{folder}",
        )
        if services := [name for name in names if _declares_service(protos / name)]:
            _compile(
                protos,
                services,
                f"--plugin=protoc-gen-mypy_grpc={_plugin('protoc-gen-mypy_grpc')}",
                f"--grpc_python_out={folder}",
                f"--mypy_grpc_out=quiet,only_async:{folder}",
            )
        made = {
            _into_our_package(path.relative_to(folder).as_posix()): _into_our_package(path.read_text("utf-8"))
            for path in Path(folder).rglob("*.py*")
        }
    return made | _package_files(made)


def _declares_service(proto: Path) -> bool:
    return re.search(r"^\s*service\s+\w+\s*\{", proto.read_text("utf-8"), re.MULTILINE) is not None


def _compile(protos: Path, names: list[str], *options: str) -> None:
    """Run protoc over the named files; raises GenerationError with what it said."""
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder, "validate.binpb")
        descriptors.write_bytes(_validate_descriptor_set())
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}"]
        command += [f"--descriptor_set_in={descriptors}", *options, *names]
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
    if ran.returncode != 0:
        raise GenerationError(ran.stderr.strip())
    if ran.stderr.strip():
        print(ran.stderr.strip(), file=sys.stderr)


def _validate_descriptor_set() -> bytes:
    """Return a FileDescriptorSet with the installed protovalidate's file and what it imports."""
    # Imported here: the usual run has nothing to do and would spend most of its time on these.
    from google.protobuf import (  # noqa: PLC0415
        descriptor_pb2,
        duration_pb2,
        field_mask_pb2,
        timestamp_pb2,
    )
    from protovalidate._gen.buf.validate import validate_pb  # noqa: PLC0415

    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    return files.SerializeToString(deterministic=True)


def _plugin(name: str) -> Path:
    """Find a protoc plugin where its own distribution was installed, whatever PATH says."""
    for file in metadata.files("mypy-protobuf") or ():
        if file.name == name:
            return Path(file.locate()).resolve()
    raise GenerationError(f"mypy-protobuf is installed without its command {name}")


def _into_our_package(text: str) -> str:
    """Move `buf.validate` to `runstream._buf.validate`, in a generated path or its text."""
    text = re.sub(r"^buf/validate/(?=validate_pb2)", "runstream/_buf/validate/", text)
    text = re.sub(
        r"^from buf\.validate import ",
        "from runstream._buf.validate import ",
        text,
        flags=re.MULTILINE,
    )
    return text.replace("'buf.validate.validate_pb2'", "'runstream._buf.validate.validate_pb2'")


def _package_files(made: dict[str, str]) -> dict[str, str]:
    """Return an `__init__.py` for every generated package; that of `runstream` is hand-written."""
    folders = {parent for name in made for parent in Path(name).parents if len(parent.parts) > 1}
    return {(folder / "__init__.py").as_posix(): INIT.format(package=".".join(folder.parts)) for folder in folders}


def _write(path: Path, text: str) -> None:
    if path.exists() and path.read_text("utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", delete=False) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _remove_stale(source: Path, keep: set[Path]) -> None:
    """Remove generated files that are not to be kept, and the folders that this leaves empty."""
    for path in sorted(source.rglob("*.py*"), reverse=True):
        if path in keep or not path.is_file() or not _is_generated(path):
            continue
        path.unlink()
        if {entry.name for entry in path.parent.iterdir()} <= {"__pycache__"}:
            shutil.rmtree(path.parent)


def _is_generated(path: Path) -> bool:
    if path.name == "__init__.py":
        return path.read_text("utf-8").startswith(INIT_START)
    return GENERATED_NAME.fullmatch(path.name) is not None


def main() -> int:
    """Run from the command line; the exit status is 0 when all is well."""
    root = Path(__file__).resolve().parent.parent
    try:
        if sys.argv[1:] == ["lint"]:
            return lint(root, str(Path(sys.executable).parent / "buf"))
        update(root)
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
