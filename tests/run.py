"""Run every test, Rust and Python, show what each runner prints, and end with one line that counts them.

Needs only the standard library; `make test` calls it once the Python environment is there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUST = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")
PYTEST = re.compile(r"(\d+) (passed|failed|error|errors|skipped)\b")
SKIPPED = re.compile(r"^SKIPPED ")


def stream(command: list[str], cwd: Path) -> tuple[list[str], int]:
    """Run a command, echo its output as it comes, and return its lines and exit code."""
    print("$ " + " ".join(command), flush=True)
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line.rstrip("\n"))
    return lines, process.wait()


def main() -> int:
    passed = failed = skipped = 0

    lines, status = stream(["cargo", "test", "--release", "--locked", "--no-fail-fast"], ROOT)
    for line in lines:
        if match := RUST.match(line):
            passed += int(match[1])
            failed += int(match[2])
            skipped += int(match[3])
        if SKIPPED.match(line):
            skipped += 1
            passed -= 1
    broken = status != 0

    python = ROOT / ".venv" / "bin" / "python"
    lines, status = stream([str(python), "-m", "pytest", "-q", "-rs"], ROOT / "python")
    for count, word in PYTEST.findall(lines[-1] if lines else ""):
        if word == "passed":
            passed += int(count)
        elif word == "skipped":
            skipped += int(count)
        else:
            failed += int(count)
    broken = broken or status != 0

    if broken and failed == 0:
        print("a test runner itself failed: see above")
        failed = 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
