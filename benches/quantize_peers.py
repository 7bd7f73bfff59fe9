"""Wall time and peak memory of quantizing a model: this tool and ONNX Runtime's `quantize_dynamic`.

Each is a fresh process that writes a new file; runs are interleaved and the minimum of each counts. Peak
memory is the process's largest resident set, pages of mapped files included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

DYNAMIC = """
import sys, time
from onnxruntime.quantization import QuantType, quantize_dynamic
began = time.perf_counter()
quantize_dynamic(
    sys.argv[1], sys.argv[2], op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8,
    per_channel=len(sys.argv) > 3,
)
print(time.perf_counter() - began)
"""


@dataclass
class Run:
    """What one process took: seconds, and those of the call alone where a Python peer reports them."""

    seconds: float
    megabytes: float
    written: float
    call: float | None = None


def measure(command: list[str], output: Path) -> Run:
    """Runs one command to the end; it must write `output`, which is then removed."""
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        # This child's own figures: RUSAGE_CHILDREN would give the largest of all that ran so far.
        _, status, usage = os.wait4(child.pid, 0)
        elapsed = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().strip().splitlines()
    if child.returncode or not output.is_file():
        raise RuntimeError("\n".join([f"exit code {child.returncode}", *lines[-5:]]))
    written = output.stat().st_size / 1e6
    output.unlink()
    try:
        call = float(lines[-1])
    except (IndexError, ValueError):
        call = None
    return Run(elapsed, usage.ru_maxrss * 1024 / 1e6, written, call)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned text. The parent imports nothing large: a child's peak starts at its parent's memory."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        return "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()

    return "\n".join(line(row) for row in [header, *rows])


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="an fp32 model")
    parser.add_argument("--tool", type=Path, required=True, help="the soprano-export program")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: %(default)s)")
    given = parser.parse_args()
    model = str(given.model)

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output.onnx"
        ours = [str(given.tool.resolve()), "quantize", model, "-o", str(output), "--overwrite"]
        dynamic = [sys.executable, "-c", DYNAMIC, model, str(output)]
        commands = {
            "soprano-export quantize": ours,
            "the same, --two-terms": [*ours, "--two-terms"],
            "quantize_dynamic": dynamic,
            "the same, per channel": [*dynamic, "per channel"],
        }
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        failures: dict[str, str] = {}
        for _ in range(given.repeats):
            for name, command in commands.items():
                if name not in failures:
                    try:
                        runs[name].append(measure(command, output))
                    except RuntimeError as failure:
                        failures[name] = str(failure)

    own = min((run.seconds for run in runs["soprano-export quantize"]), default=None)
    source = given.model.stat().st_size / 1e6
    rows = []
    for name, found in runs.items():
        if name in failures:
            rows.append([name, "failed", *[""] * 5])
            continue
        seconds = min(run.seconds for run in found)
        calls = [run.call for run in found if run.call is not None]
        peak = min(run.megabytes for run in found)
        rows.append(
            [
                name,
                f"{seconds:.2f}",
                f"{seconds / own:.1f}x" if own else "",
                f"{min(calls):.2f}" if calls else "",
                f"{peak:.0f}",
                f"{peak / source:.2f}x",
                f"{found[0].written:.1f}",
            ]
        )
    print(f"{given.model.name}, {source:.1f} MB; minimum of {given.repeats} processes\n")
    header = [
        "quantizer",
        "seconds",
        "time of ours",
        "without imports",
        "peak MB",
        "of the file",
        "written MB",
    ]
    print(table(header, rows))
    for name, failure in failures.items():
        print(f"\n{name}: {failure}")
    sys.exit("soprano-export quantize" in failures)


if __name__ == "__main__":
    main()
