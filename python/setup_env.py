"""Make (or find) a Python environment: that of a model family, or of a tool.

    python3 python/setup_env.py [ENVIRONMENT] [--relock]

The environment lives in the user's cache directory under the digest of its lock file and of the
interpreter, so a second checkout costs nothing; its path is printed, and `.venv` in the tree is a link to
`soprano`, which the families `soprano` and `plain` run in. Needs only the
standard library: `uv`, which does the installing, is itself installed from a pinned, hashed file.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENV = HERE / "env"
OLDEST = (3, 11)
# The environment that `.venv` is a link to.
LINKED = "soprano"


def cache_root() -> Path:
    if chosen := os.environ.get("SOPRANO_EXPORT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "soprano-export"


def digest(*files: Path) -> str:
    state = hashlib.sha256()
    for file in files:
        state.update(file.read_bytes())
    state.update(f"{sys.version_info[:3]} {sysconfig.get_platform()}".encode())
    return state.hexdigest()[:16]


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)


def uv(home: Path) -> Path:
    """The pinned `uv`, installed once."""
    lock = ENV / "uv.txt"
    place = home / f"uv-{digest(lock)}"
    tool = place / "bin" / "uv"
    if not tool.exists():
        run(sys.executable, "-m", "venv", "--clear", place)
        run(place / "bin" / "python", "-m", "pip", "install", "-q", "--require-hashes", "-r", lock)
    return tool


def make(name: str) -> Path:
    lock = ENV / f"{name}.lock"
    home = cache_root() / "python"
    home.mkdir(parents=True, exist_ok=True)
    place = home / f"{name}-{digest(lock)}"
    done = place / ".complete"
    with open(home / f"{name}.busy", "w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        if not done.exists():
            print(f"setup: installing {name} into {place}", file=sys.stderr)
            if place.exists():
                shutil.rmtree(place)
            tool = uv(home)
            run(tool, "venv", "-q", "--python", sys.executable, place)
            # --no-deps: the lock is the whole closure, less what soprano.exclude leaves out.
            run(
                tool, "pip", "install", "-q", "--no-deps", "--require-hashes",
                "--python", place / "bin" / "python", "-r", lock,
            )  # fmt: skip
            done.write_text("")
    return place


def relock(name: str) -> None:
    home = cache_root() / "python"
    home.mkdir(parents=True, exist_ok=True)
    exclude = ENV / f"{name}.exclude"
    overrides = ["--overrides", exclude] if exclude.exists() else []
    run(
        uv(home), "pip", "compile", "-q", "--universal", "--python-version", "3.11", "--no-header",
        "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-annotate",
        *overrides, "-o", ENV / f"{name}.lock", ENV / f"{name}.in",
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environment", nargs="?", default=LINKED)
    parser.add_argument("--relock", action="store_true", help="resolve ENVIRONMENT.in anew, then install")
    options = parser.parse_args()
    if sys.version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        print(f"setup: Python {oldest} or newer is needed; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    if not (ENV / f"{options.environment}.in").exists():
        known = ", ".join(sorted(file.stem for file in ENV.glob("*.in")))
        print(f"setup: no environment {options.environment!r}; there are: {known}", file=sys.stderr)
        return 2
    if options.relock:
        relock(options.environment)
    try:
        place = make(options.environment)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"setup: {error}", file=sys.stderr)
        print("hint: it needs the venv module, a reachable package index and 8 GB of disk", file=sys.stderr)
        return 2
    print(place)
    if options.environment != LINKED:
        return 0
    link = ROOT / ".venv"
    if link.is_symlink() or link.exists():
        if link.is_symlink() and link.resolve() == place.resolve():
            return 0
        if not link.is_symlink():
            print(f"setup: {link} is in the way: move it aside", file=sys.stderr)
            return 2
        link.unlink()
    link.symlink_to(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
