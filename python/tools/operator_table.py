"""Writes `src/ir/operators.txt`, the forms of ONNX's operators, from the `onnx` package's own schemas.

    python python/tools/operator_table.py > src/ir/operators.txt

Operators that ONNX Runtime alone defines, in ONNX's domain or as ones that the quantizer writes, come
from ONNX Runtime's schemas. `python/tests/test_operator_table.py` compares the file with what this makes.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

OF_RUNTIME = "com.microsoft", ("MatMulNBits",)

HEADER = """\
# Forms of operators by operator set. Made by python/tools/operator_table.py; don't edit.
# Sources: the schemas of onnx {onnx} (Apache-2.0), and under [... runtime] those of onnxruntime
# {runtime} (MIT).
#
# set N types...                  a set of types; tensors by their element type alone
# [DOMAIN OPSET]                  the domain of the lines below, and its newest operator set
# NAME SINCE [deprecated] INPUTS > OUTPUTS : ATTRIBUTES ; VARIABLES
#   inputs and outputs: name:type, optional with ?, any number of one type with *N, of any types with ~N,
#   where N is the least number; attributes: name=type, required with !; variables: name=set
"""

SUFFIXES = {"Single": "", "Optional": "?"}


def short(kind: str) -> str:
    kind = kind.replace(" ", "")
    return kind.removeprefix("tensor(").removesuffix(")") if kind.startswith("tensor(") else kind


def parameter(formal: Any) -> str:
    option = str(formal.option).rsplit(".", 1)[-1]
    homogeneous = getattr(formal, "is_homogeneous", getattr(formal, "isHomogeneous", True))
    suffix = SUFFIXES.get(option)
    if suffix is None:
        suffix = f"{'*' if homogeneous else '~'}{getattr(formal, 'min_arity', 1)}"
    kind = getattr(formal, "type_str", None) or formal.typeStr
    return f"{formal.name}:{short(kind)}{suffix}"


class Sets:
    """The sets of types, each once."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, ...], int] = {}

    def number(self, types: Iterable[str]) -> int:
        return self.numbers.setdefault(tuple(sorted(map(short, types))), len(self.numbers))

    def lines(self) -> Iterator[str]:
        for types, number in self.numbers.items():
            yield f"set {number} {' '.join(types)}"


def line(schema: Any, sets: Sets) -> str:
    parts = [schema.name, str(schema.since_version)]
    if schema.deprecated:
        parts.append("deprecated")
    parts += map(parameter, schema.inputs)
    parts += [">", *map(parameter, schema.outputs), ":"]
    for name, attribute in sorted(schema.attributes.items()):
        kind = str(attribute.type).rsplit(".", 1)[-1].lower()
        parts.append(f"{name}={kind}{'!' if attribute.required else ''}")
    parts.append(";")
    for constraint in schema.type_constraints:
        types = sets.number(constraint.allowed_type_strs)
        parts.append(f"{constraint.type_param_str}={types}")
    return " ".join(parts)


def table() -> str:
    schemas = sorted(
        onnx.defs.get_all_schemas_with_history(), key=lambda s: (s.domain, s.name, s.since_version)
    )
    sets = Sets()
    body = []
    for domain in sorted({s.domain for s in schemas}):
        newest = max(s.since_version for s in schemas if s.domain == domain)
        newest = max(newest, onnx.defs.onnx_opset_version() if domain == "" else 0)
        body.append(f"[{domain or 'ai.onnx'} {newest}]")
        body += [line(s, sets) for s in schemas if s.domain == domain]
    others = sorted(runtime.get_all_operator_schema(), key=lambda s: (s.domain, s.name, s.since_version))
    domain, names = OF_RUNTIME
    body.append(f"[{domain} 1 runtime]")
    body += [line(s, sets) for s in others if s.domain == domain and s.name in names]
    first: dict[str, int] = {}
    for s in schemas:
        if s.domain == "":
            first[s.name] = min(first.get(s.name, s.since_version), s.since_version)
    body.append("[ai.onnx 1 runtime]")
    for s in others:
        before = s.domain == "" and s.since_version < first.get(s.name, s.since_version + 1)
        if before and not s.deprecated and not s.name.endswith("_TRT") and "Memcpy" not in s.name:
            body.append(line(s, sets))
    header = HEADER.format(onnx=onnx.__version__, runtime=onnxruntime.__version__)
    return "\n".join([*header.splitlines(), *sets.lines(), *body, ""])


if __name__ == "__main__":
    print(table(), end="")
