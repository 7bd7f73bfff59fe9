"""The native exporter beside the PyTorch road, from a checkpoint to rewritten fp32 files, and whole bundles.

Each run is a fresh process with an empty cache; roads take turns. Memory is the largest that the process and
its children had resident: all of it, and the part that is no file's (read every 5 ms).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

ROADS = ("native", "torch")


def children(pid: int) -> list[int]:
    """A process and those below it."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in below for each in children(int(child)))]


def resident(pid: int) -> tuple[int, int]:
    """Bytes that a process and those below it have in memory: all, and those of no file."""
    total = anonymous = 0
    for each in children(pid):
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
        anonymous += sizes.get("RssAnon", 0)
        total += sum(sizes.values())
    return total, anonymous


def measured(command: list[str], **how) -> tuple[float, int, int]:
    """Seconds and peak memory of a command, which must succeed."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, **how)
        total = anonymous = 0
        while process.poll() is None:
            now = resident(process.pid)
            total, anonymous = max(total, now[0]), max(anonymous, now[1])
            time.sleep(0.005)
        seconds = time.monotonic() - start
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{said.read().decode()}")
    return seconds, total, anonymous


def stage(tool: Path, recipe: Path, name: str, **how) -> Path:
    """The folder of a finished stage."""
    plan = subprocess.run(
        [tool, "plan", recipe, "--json"], capture_output=True, text=True, check=True, **how
    ).stdout
    return next(Path(each["folder"]) for each in json.loads(plan)["stages"] if each["stage"] == name)


def roads(tool: Path, checkpoint: Path, folder: Path, rounds: int) -> None:
    """Both roads from a checkpoint to the rewritten graphs."""
    print("from the checkpoint to rewritten fp32 files on disk, best of", rounds)
    print("graph     road     seconds of native  file MB  peak MB  own MB nodes")
    for graph in ("lm", "decoder"):
        best: dict[str, tuple[float, int, int]] = {}
        made: dict[str, Path] = {}
        for _ in range(rounds):
            for road in ROADS:
                cache = folder / f"cache-{road}"
                shutil.rmtree(cache, ignore_errors=True)
                environment = {**os.environ, "SOPRANO_EXPORT_CACHE": str(cache)}
                recipe = folder / f"{road}.yaml"
                recipe.write_text(
                    f"name: {graph}\nsource: {checkpoint}\ngraphs:\n  {graph}: {{exporter: {road}}}\n"
                )
                command = [str(tool), "build", str(recipe), "--until", f"rewrite-{graph}"]
                run = measured(command, env=environment)
                best[road] = min(best.get(road, run), run)
                made[road] = stage(tool, recipe, f"rewrite-{graph}", env=environment) / "rewritten.onnx"
        for road in ROADS:
            seconds, total, own = best[road]
            shown = subprocess.run(
                [tool, "inspect", made[road], "--json"], capture_output=True, text=True, check=True
            )
            nodes = sum(json.loads(shown.stdout)["operators"].values())
            size = made[road].stat().st_size
            print(
                f"{graph:9} {road:7} {seconds:8.2f} {seconds / best['native'][0]:9.1f} {size / 1e6:8.1f} "
                f"{total / 1e6:8.0f} {own / 1e6:7.0f} {nodes}"
            )


def bundles(tool: Path, folder: Path) -> None:
    """Whole bundles where no Python is: fp32 and INT8 of both graphs, validated in tract, packed."""
    home = folder / "home"
    home.mkdir()
    print("\nwhole bundles without Python")
    for recipe in ("soprano-mini", "soprano-1.1"):
        for references in ("float64",) if recipe == "soprano-1.1" else ("pytorch", "float64"):
            cache = folder / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            environment = {
                name: str(path) for name, path in (("HOME", home), ("SOPRANO_EXPORT_CACHE", cache))
            }
            environment["PATH"] = os.environ["PATH"]
            command = [
                str(tool),
                "build",
                recipe,
                "--references",
                references,
                "--onnx-only",
                "--no-speed-gate",
            ]
            command += ["--output", str(folder / f"{recipe}-{references}")]
            seconds, total, own = measured(command, env=environment, cwd=folder)
            print(
                f"{recipe:13} {references:8} references: {seconds:6.2f} s, {total / 1e6:.0f} MB resident, "
                f"{own / 1e6:.0f} MB of its own"
            )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, required=True)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a full-size Soprano checkpoint's folder"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=["roads", "bundles"])
    options = parser.parse_args()
    tool = options.tool.resolve()
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "bundles":
            roads(tool, options.checkpoint.resolve(), Path(folder), options.rounds)
        if options.only != "roads":
            bundles(tool, Path(folder))


if __name__ == "__main__":
    main()
