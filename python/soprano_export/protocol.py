"""The channel to the parent: JSON lines on the real stdout, everything else on stderr."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "safetensors",
    "soprano-tts",
    "transformers",
    "huggingface-hub",
)


class ChannelClosed(BaseException):
    """The parent has closed its end; nothing more can be said to it."""


class Channel:
    """Writes events to one file descriptor, a line each, flushed at once."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    @classmethod
    def take_stdout(cls) -> Channel:
        """Keep the real stdout for events and point descriptor 1 at stderr.

        Whatever a library prints afterwards, from Python or from C, lands on stderr.
        """
        descriptor = os.dup(1)
        os.dup2(2, 1)
        return cls(descriptor)

    def send(self, event: str, **fields: Any) -> None:
        """Write one event. Non-finite numbers are not JSON and raise ValueError."""
        line = json.dumps({"event": event, **fields}, allow_nan=False, ensure_ascii=False) + "\n"
        rest = memoryview(line.encode("utf-8", "backslashreplace"))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error


class Job:
    """What a task sees of the world: its output directory, and the channel to report on."""

    def __init__(self, output: Path, send: Callable[..., None]):
        self.output = output
        self._send = send

    def progress(self, step: str, done: int, total: int) -> None:
        """Say that `done` of `total` units of `step` are finished."""
        self._send("progress", step=step, done=done, total=total)

    def write(self, name: str, path: str, data: bytes) -> None:
        """Write `data` to `path` (relative to the output directory) and announce it as artifact `name`."""
        descriptor, temporary = tempfile.mkstemp(prefix=".partial-", dir=self.output)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            self.adopt(name, path, Path(temporary))
        finally:
            Path(temporary).unlink(missing_ok=True)

    def adopt(self, name: str, path: str, temporary: Path) -> None:
        """Move a finished file of the same file system to `path` and announce it as artifact `name`."""
        destination = self.output / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        os.replace(temporary, destination)
        self._send("artifact", name=name, path=path, sha256=digest, bytes=size)


def environment() -> dict[str, Any]:
    """The interpreter and the installed packages that decide an export, without importing any of them."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "packages": packages}
