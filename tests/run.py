"""Run every test of Rust, Python and the corpus, show what runners print, and count them in one last line.

Needs only the standard library; `make test` calls it once the Python environment is there. The variable
CORPUS holds options of tests/corpus/run.py, such as `--graphs 20 --seed 7`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUST = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")
SUMMARY = re.compile(r"(\d+) (passed|failed|error|errors|skipped)\b")
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


def counted(lines: list[str]) -> Counter:
    """What pytest or the corpus counts in its last line, as passed, failed and skipped."""
    words = {"passed": "passed", "skipped": "skipped"}
    found = Counter()
    for count, word in SUMMARY.findall(lines[-1] if lines else ""):
        found[words.get(word, "failed")] += int(count)
    return found


def main() -> int:
    total, statuses = Counter(), []
    unpack_registry()

    # What the Python exporters refuse in their tests is kept for the native road's, which has the same codes.
    python = str(ROOT / ".venv" / "bin" / "python")
    with tempfile.TemporaryDirectory() as refused:
        os.environ["REFUSED_CHECKPOINTS"] = refused
        lines, status = stream([python, "-m", "pytest", "-q", "-rs"], ROOT / "python")
        statuses.append(status)
        total += counted(lines)
        lines, status = stream(["cargo", "test", "--release", "--locked", "--no-fail-fast"], ROOT)
        statuses.append(status)
    for line in lines:
        if match := RUST.match(line):
            total.update(passed=int(match[1]), failed=int(match[2]), skipped=int(match[3]))
        if SKIPPED.match(line):
            total.update(passed=-1, skipped=1)

    # A model of the corpus counts as one test, whatever number of verbs and forms it went through.
    _, status = stream(["cargo", "build", "--release", "--locked", "--quiet"], ROOT)
    statuses.append(status)
    if status == 0:
        options = shlex.split(os.environ.get("CORPUS", ""))
        lines, status = stream([python, "tests/corpus/run.py", *options], ROOT)
        statuses.append(status)
        total += counted(lines)

    if any(statuses) and not total["failed"]:
        print("a test runner itself failed: see above")
        total["failed"] = 1
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
