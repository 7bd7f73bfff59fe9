"""Run every test, Rust and Python, show what each runner prints, and end with one line that counts them.

Needs only the standard library; `make test` calls it once the Python environment is there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
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


def unpack_registry() -> None:
    """Debian's docker-registry, which publishing is tested against, below target/.

    Unpacked, not installed: that would start a service. Where it can't be had, its tests are skipped, loudly.
    """
    home = ROOT / "target" / "docker-registry"
    if any(map(shutil.which, ("docker-registry", "registry"))) or (home / "usr").is_dir():
        return
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as folder:
        download = ["apt-get", "download", "-qq", "docker-registry"]
        commands = [download, ["apt-get", "update", "-qq"], download]
        try:
            for command in commands if os.geteuid() == 0 else [download]:
                subprocess.run(command, cwd=folder, timeout=300, **quiet)
                if packages := list(Path(folder).glob("*.deb")):
                    home.mkdir(parents=True, exist_ok=True)
                    subprocess.run(["dpkg-deb", "-x", packages[0], home], timeout=300, check=True, **quiet)
                    return
        except (OSError, subprocess.SubprocessError):
            return


def main() -> int:
    passed = failed = skipped = 0
    unpack_registry()

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
    add(lines)
    broken = broken or status != 0

    # What a model of the corpus is put through counts as one test.
    status = 1
    if stream(["cargo", "build", "--release", "--locked", "--quiet"], ROOT)[1] == 0:
        words = shlex.split(os.environ.get("CORPUS", ""))
        lines, status = stream([str(python), "tests/corpus/run.py", *words], ROOT)
        for count, word in PYTEST.findall(lines[-1] if lines else ""):
            passed += int(count) if word == "passed" else 0
            failed += int(count) if word == "failed" else 0
            skipped += int(count) if word == "skipped" else 0
    broken = broken or status != 0

    if broken and failed == 0:
        print("a test runner itself failed: see above")
        failed = 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
