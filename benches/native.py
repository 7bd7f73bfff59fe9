"""The native exporter beside the PyTorch road, from a checkpoint to rewritten fp32 files, and whole bundles.

Each run is a fresh process with an empty cache; roads take turns. Memory is the largest that the process and
its children had resident, and the part of it that is no file's; a run of its own reads it every 5 ms.
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


def seconds(command: list[str], watch=subprocess.Popen.wait, **how) -> float:
    """Seconds of a command, which must succeed; `watch` returns when the process has ended."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, **how)
        watch(process)
        passed = time.monotonic() - start
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{said.read().decode()}")
    return passed


def memory(command: list[str], **how) -> tuple[int, int]:
    """Peak memory of a command, which must succeed: all, and that of no file."""
    total = anonymous = 0

    def watch(process: subprocess.Popen) -> None:
        nonlocal total, anonymous
        while process.poll() is None:
            now = resident(process.pid)
            total, anonymous = max(total, now[0]), max(anonymous, now[1])
            time.sleep(0.005)

    seconds(command, watch, **how)
    return total, anonymous


def stage(tool: Path, recipe: Path, name: str, **how) -> Path:
    """The folder of a finished stage."""
    plan = subprocess.run(
        [tool, "plan", recipe, "--json"],
        capture_output=True,
        text=True,
        check=True,
        **how,
    ).stdout
    return next(Path(each["folder"]) for each in json.loads(plan)["stages"] if each["stage"] == name)


def roads(tool: Path, checkpoint: Path, folder: Path, rounds: int) -> None:
    """Both roads from a checkpoint to the rewritten graphs: the language model's alone, and both in turn."""
    print("from the checkpoint to rewritten fp32 files on disk, best of", rounds)
    print("graphs      road     seconds of native  file MB  peak MB  own MB nodes")
    for graphs in (("lm",), ("lm", "decoder")):
        best: dict[str, float] = {}
        peak: dict[str, tuple[int, int]] = {}
        made: dict[str, list[Path]] = {}
        for each in range(rounds + 1):
            for road in ROADS:
                cache = folder / f"cache-{road}"
                shutil.rmtree(cache, ignore_errors=True)
                environment = {**os.environ, "SOPRANO_EXPORT_CACHE": str(cache)}
                recipe = folder / f"{road}.yaml"
                chosen = "".join(f"  {graph}: {{exporter: {road}}}\n" for graph in graphs)
                recipe.write_text(f"name: graphs\nsource: {checkpoint}\ngraphs:\n{chosen}")
                commands = [
                    [str(tool), "build", str(recipe), "--until", f"rewrite-{graph}"] for graph in graphs
                ]
                if each == 0:
                    peaks = [memory(command, env=environment) for command in commands]
                    peak[road] = tuple(map(max, *peaks)) if len(peaks) > 1 else peaks[0]
                else:
                    run = sum(seconds(command, env=environment) for command in commands)
                    best[road] = min(best.get(road, run), run)
                made[road] = [
                    stage(tool, recipe, f"rewrite-{graph}", env=environment) / "rewritten.onnx"
                    for graph in graphs
                ]
        for road in ROADS:
            nodes = []
            for file in made[road]:
                shown = subprocess.run(
                    [tool, "inspect", file, "--json"],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                nodes.append(str(sum(json.loads(shown.stdout)["operators"].values())))
            size = sum(file.stat().st_size for file in made[road])
            total, own = peak[road]
            print(
                f"{'+'.join(graphs):11} {road:7} {best[road]:8.2f} {best[road] / best['native']:9.1f} "
                f"{size / 1e6:8.1f} {total / 1e6:8.0f} {own / 1e6:7.0f} {'+'.join(nodes)}"
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
            total, own = memory(command, env=environment, cwd=folder)
            shutil.rmtree(cache)
            shutil.rmtree(folder / f"{recipe}-{references}")
            passed = seconds(command, env=environment, cwd=folder)
            print(
                f"{recipe:13} {references:8} references: {passed:6.2f} s, {total / 1e6:.0f} MB resident, "
                f"{own / 1e6:.0f} MB of its own"
            )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, required=True)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="a full-size Soprano checkpoint's folder",
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
