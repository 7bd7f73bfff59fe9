"""One model of the corpus: its bytes, what it is fed, and how it stands in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper


@dataclass
class Case:
    """A model, and the sets of inputs it is run with: each gives a feed by the names of inputs."""

    name: str
    model: onnx.ModelProto
    feeds: list[Callable[[], dict]] = field(default_factory=list)
    # Outputs that differ from run to run, and are never zero.
    random: frozenset[str] = frozenset()
    # Half-precision arithmetic: the last bits depend on how a runtime fuses it.
    half: bool = False
    # How a file holds it: "plain", "external", "linked" (to another folder's files), "packed", "loose".
    storage: str = "plain"
    # A stored file that is taken as it is, rather than written.
    file: Path | None = None
    # Which part of the corpus it is from.
    part: str = "random"
    # Every form and check, rather than those that a one-node model needs.
    whole: bool = True

    def write(self, folder: Path) -> Path:
        """Put the model into an empty folder, and return the path of its file."""
        path = folder / "model.onnx"
        if self.file is not None:
            return self.file
        if self.storage in ("external", "linked"):
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            external_data_helper.convert_model_to_external_data(
                model, location="weights.bin", size_threshold=64, convert_attribute=False
            )
            store = folder
            if self.storage == "linked":
                store = folder.parent / "blobs"
                store.mkdir()
            onnx.save_model(model, store / path.name)
            if self.storage == "linked":
                for name in (path.name, "weights.bin"):
                    if (store / name).exists():
                        (folder / name).symlink_to(Path("..") / "blobs" / name)
        elif self.storage in ("packed", "loose"):
            path.write_bytes(encoded(self.model, self.storage == "packed"))
        else:
            path.write_bytes(self.model.SerializeToString(deterministic=True))
        return path


def varint(value: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encoded(message, together: bool) -> bytes:
    """A message with every list of numbers packed, or none, whatever onnx.proto says of each.

    Readers of protobuf take both; writers that go by proto3, or by their own schema, write one of the two.
    """
    out = bytearray()
    for where, value in message.ListFields():
        key = where.number << 3
        if where.message_type is not None:
            for one in [value] if hasattr(value, "ListFields") else value:
                inner = encoded(one, together)
                out += varint(key | 2) + varint(len(inner)) + inner
            continue
        wire, write = scalar(where)
        several = [value] if isinstance(value, (bytes, str, int, float)) else value
        if wire == 2:
            for data in map(write, several):
                out += varint(key | 2) + varint(len(data)) + data
        elif several is value and together:
            data = b"".join(map(write, value))
            out += varint(key | 2) + varint(len(data)) + data
        else:
            for one in several:
                out += varint(key | wire) + write(one)
    return bytes(out)


def scalar(where) -> tuple[int, Callable]:
    """The wire type of a field, and how one of its values is written."""
    kind = where.type
    if kind == where.TYPE_FLOAT:
        return 5, lambda value: np.float32(value).tobytes()
    if kind == where.TYPE_DOUBLE:
        return 1, lambda value: np.float64(value).tobytes()
    if kind == where.TYPE_STRING:
        return 2, lambda value: value.encode() if isinstance(value, str) else value
    if kind == where.TYPE_BYTES:
        return 2, bytes
    return 0, lambda value: varint(int(value))
