"""Wall time of rewriting an exported decoder: this tool, onnxslim, and onnx merely loading and saving it.

Each is a fresh process that writes a new file; runs are interleaved and the minimum of each counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOAD_AND_SAVE = "import sys, onnx; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"
ONNXSLIM = "import sys; from onnxslim.cli import main; sys.argv[0] = 'onnxslim'; main()"


def seconds(command: list[str], output: Path) -> float:
    """Runs one command to the end; it must write `output`, which is then removed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - start
    if done.returncode or not output.is_file():
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise RuntimeError(f"exit code {done.returncode}\n{last}")
    output.unlink()
    return elapsed


def table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned text: the first column to the left, all others to the right."""
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
    parser.add_argument("--exported", type=Path, required=True, help="the decoder as exported")
    parser.add_argument("--tool", type=Path, required=True, help="the soprano-export program")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: %(default)s)")
    given = parser.parse_args()
    model = str(given.exported)

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output.onnx"
        commands = {
            "soprano-export": [str(given.tool.resolve()), "pass", "run", model, "-o", str(output)],
            "onnxslim": [sys.executable, "-c", ONNXSLIM, model, str(output)],
            "onnx load and save": [sys.executable, "-c", LOAD_AND_SAVE, model, str(output)],
        }
        best: dict[str, float] = {}
        failures: dict[str, str] = {}
        for _ in range(given.repeats):
            for name, command in commands.items():
                if name in failures:
                    continue
                try:
                    elapsed = seconds(command, output)
                except RuntimeError as failure:
                    failures[name] = str(failure)
                    best.pop(name, None)
                else:
                    best[name] = min(elapsed, best.get(name, elapsed))

    own = best.get("soprano-export")
    rows = []
    for name in commands:
        if name not in best:
            rows.append([name, "failed", ""])
        else:
            rows.append([name, f"{best[name]:.2f}", f"{best[name] / own:.1f}x" if own else ""])
    megabytes = given.exported.stat().st_size / 1e6
    print(f"{given.exported.name}, {megabytes:.1f} MB; wall seconds, minimum of {given.repeats} processes\n")
    print(table(["rewriter", "seconds", "time of ours"], rows))
    for name, failure in failures.items():
        print(f"\n{name}: {failure}")
    sys.exit("soprano-export" in failures)


if __name__ == "__main__":
    main()
