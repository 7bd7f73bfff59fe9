"""Publish, fetch and verify a bundle through a real OCI registry on the loopback interface: seconds, peak
memory of our process, and what a killed upload and a killed download have to do again.

Needs Debian's docker-registry, and the disk three times the bundle's size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

MB = 1_000_000


def make(folder: Path, sizes: dict[str, int]) -> None:
    """A bundle of random files: its digests are in order, its models are none."""
    draw = random.Random(0)
    files, sums = {}, {}
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for start in range(0, size, MB):
                block = draw.randbytes(min(MB, size - start))
                file.write(block)
                digest.update(block)
        files[name] = {"sha256": digest.hexdigest(), "bytes": size}
        sums[name] = digest.hexdigest()
    manifest = {
        "format": 1,
        "name": "large",
        "key": hashlib.sha256(b"").hexdigest(),
        "tool": {"name": "soprano-export", "version": "0"},
        "checkpoint": {"source": "local", "files": []},
        "architecture": {},
        "environment": {},
        "artifacts": [],
        "files": files,
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (folder / "manifest.json").write_text(text)
    sums["manifest.json"] = hashlib.sha256(text.encode()).hexdigest()
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    (folder / "SHA256SUMS").write_text(lines)


class Registry:
    """docker-registry with a store of its own."""

    def __init__(self, program: str, root: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self.store = root / "store"
        storage = {"filesystem": {"rootdirectory": str(self.store)}}
        settings = {"version": "0.1", "log": {"level": "error"}, "storage": storage}
        config = root / "registry.yml"
        config.write_text(json.dumps({**settings, "http": {"addr": self.host, "secret": "s"}}))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([program, "serve", str(config)], **quiet)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(self.host.rpartition(":")[2]))) == 0:
                    return
            time.sleep(0.02)
        raise SystemExit(f"{program} doesn't start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def held(folder: Path) -> int:
    """Bytes of the files below a folder, while they may come and go."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


class Tool:
    """Our program, in a cache of its own."""

    def __init__(self, path: Path, root: Path):
        self.path = path.resolve()
        self.root = root
        self.environment = {**os.environ, "SOPRANO_EXPORT_CACHE": str(root / "cache")}

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [self.path, *arguments],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[float, float, str]:
        """(seconds, peak resident memory in MB, stdout); the run must succeed."""
        start, peak = time.perf_counter(), 0
        process = self.start(*arguments)
        # What wait4 tells would count this interpreter too, of which the process was a copy at first.
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
            peak = max(peak, int(found[1]) if found else 0)
            time.sleep(0.002)
        seconds = time.perf_counter() - start
        out, err = process.communicate()
        if process.returncode:
            raise SystemExit(f"{' '.join(arguments)}: exit {process.returncode}\n{err}")
        return seconds, peak * 1024 / MB, out

    def killed(self, folder: Path, after: int, *arguments: str) -> int:
        """Kill a run once a folder holds so many bytes more than before; returns how many it then holds."""
        before = held(folder)
        process = self.start(*arguments)
        while held(folder) - before < after and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            raise SystemExit("the run was over before it could be killed")
        return held(folder) - before


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, required=True, help="soprano-export")
    parser.add_argument("--megabytes", type=int, default=450, help="(default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Measures and prints."""
    given = arguments()
    unpacked = Path(__file__).resolve().parent.parent / "target/docker-registry/usr/bin"
    places = os.pathsep.join([os.environ.get("PATH", ""), str(unpacked)])
    program = shutil.which("docker-registry", path=places) or shutil.which("registry", path=places)
    if not program:
        print("SKIPPED publishing: no docker-registry; apt-get install docker-registry")
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        total = given.megabytes * MB
        shares = {"onnx/lm_fp32.onnx": 0.62, "onnx/decoder_fp32.onnx": 0.23, "onnx/lm_int8.onnx": 0.15}
        make(root / "large", {name: int(share * total) for name, share in shares.items()})
        tool, registry = Tool(given.tool, root), Registry(program, root)
        try:
            measure(tool, registry, root, total)
        finally:
            registry.stop()


def measure(tool: Tool, registry: Registry, root: Path, total: int) -> None:
    """Everything, in one registry."""
    place = f"oci://{registry.host}/voices/large"
    print(f"a bundle of {total / MB:.0f} MB through docker-registry on the loopback interface\n")
    print(f"{'':24}{'seconds':>9}{'MB/s':>7}{'peak MB':>9}")
    for what, call in {
        "publish": ["publish", "large", f"{place}:v1"],
        "publish, nothing new": ["publish", "large", f"{place}:v2"],
        "fetch": ["fetch", f"{place}:v1", "-o", "got"],
        "verify": ["verify", "got"],
    }.items():
        seconds, peak, _ = tool.run(*call)
        print(f"{what:24}{seconds:9.2f}{total / MB / seconds:7.0f}{peak:9.1f}")
    shutil.rmtree(root / "got")

    # Another repository: blobs of one are not those of the other.
    place = f"oci://{registry.host}/voices/again"
    store = registry.store / "docker/registry/v2"
    shutil.rmtree(store)
    come = tool.killed(registry.store, int(0.6 * total), "publish", "large", f"{place}:v1")
    seconds, peak, out = tool.run("publish", "large", f"{place}:v1", "--json")
    result = json.loads(out)
    print(
        f"\nupload killed at {come / MB:.0f} MB: {result['kept'] / MB:.0f} MB were there, "
        f"{result['sent'] / MB:.0f} MB sent, in {seconds:.2f} s, peak {peak:.1f} MB"
    )
    come = tool.killed(root, int(0.6 * total), "fetch", f"{place}:v1", "-o", "got")
    seconds, peak, _ = tool.run("fetch", f"{place}:v1", "-o", "got")
    print(f"download killed at {come / MB:.0f} MB: done {seconds:.2f} s later, peak {peak:.1f} MB")
    same = all(
        (root / "got" / path.relative_to(root / "large")).read_bytes() == path.read_bytes()
        for path in (root / "large").rglob("*")
        if path.is_file()
    )
    print("what came is what went" if same else "DIFFERENT")


if __name__ == "__main__":
    main()
