"""Every verb on every ONNX file within reach: ONNX's own suite, the fixtures, and seeded random graphs.

    python tests/corpus/run.py [--graphs N] [--seed N] [--only PART] [--case TEXT] [--keep FOLDER] [--jobs N]

README.md beside this file says what is checked and how to read the result. Exit code 1 where anything failed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import known
import onnx
import verbs
from minimize import minimize
from random_graphs import make
from unsigned import overflows

ROOT = Path(__file__).resolve().parent.parent.parent
os.environ.setdefault("SOPRANO_EXPORT_PYTHON", str(ROOT / ".venv"))
KNOWN: list = []


def trial(what, tool: Path, seed: int, keep: Path | None):
    """One model, in a process of the pool: an index of KNOWN, or of a random graph."""
    kind, index = what
    case, rejected = (KNOWN[index], []) if kind == "known" else make(seed, index)
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        try:
            result = verbs.Trial(case, tool, Path(folder), seed).all()
        except Exception as error:
            place = " ".join(traceback.format_exc().splitlines()[-4:])
            result = verbs.Result()
            result.counts["corpus", "failed"] += 1
            result.faults.append(verbs.Fault(case.name, "corpus", f"{type(error).__name__}: {place}", ""))
        if result.faults and keep:
            kept = keep / case.name.replace("/", "_").replace(" ", "_")
            shutil.copytree(Path(folder), kept, dirs_exist_ok=True, symlinks=True)
            if case.file is not None:
                shutil.copy(case.file, kept / "given" / "model.onnx")
            lines = [f"{fault.verb}: {fault.what}\n    {fault.command}\n" for fault in result.faults]
            (kept / "faults.txt").write_text("".join(lines))
    result.rejected = rejected
    return result


def smallest(fault, tool: Path, options) -> str:
    """The text of the smallest graph that shows a fault; it is kept where failing models are."""
    seed, index = map(int, fault.case.split()[1].split("/"))
    case, fault = minimize(make(seed, index)[0], fault, tool, options.seed)
    if options.keep:
        name = f"{fault.case} {fault.verb} {fault.kind}"
        kept = options.keep / (re.sub(r"\W+", "_", name)[:90] + ".onnx")
        kept.write_bytes(case.model.SerializeToString())
    lines = onnx.printer.to_text(case.model).splitlines()
    return "\n".join([*(line[:160] for line in lines if line.strip()), f"{case.storage}: {fault.what[:400]}"])


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=300, help="how many random graphs (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the random graphs (default 0)")
    parser.add_argument("--first", type=int, default=0, help="index of the first random graph")
    parser.add_argument("--tool", type=Path, default=ROOT / "target" / "release" / "soprano-export")
    parser.add_argument("--only", choices=["backend", "fixtures", "random"], help="one part alone")
    parser.add_argument("--case", default="", help="only models whose name has this text")
    parser.add_argument("--keep", type=Path, help="folder for models that fail")
    parser.add_argument("--minimize", action="store_true", help="make one model of each kind of fault small")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    return parser.parse_args()


def main() -> int:
    """Run it all and print tables."""
    options = arguments()
    if not options.tool.is_file():
        print(f"no {options.tool}: cargo build --release --locked")
        return 1
    tool = options.tool.resolve()
    listed = subprocess.run([tool, "pass", "list", "--json"], capture_output=True, text=True, check=True)
    # Surgeries change what a model takes and gives.
    verbs.PASSES[:] = [entry["name"] for entry in json.loads(listed.stdout) if not entry["surgery"]]
    start = time.monotonic()
    if options.only in (None, "fixtures"):
        KNOWN.extend(known.fixtures())
    if options.only in (None, "backend"):
        KNOWN.extend(known.backend())
    work = [("known", at) for at, case in enumerate(KNOWN) if options.case in case.name]
    if options.only in (None, "random"):
        graphs = range(options.first, options.first + options.graphs)
        work += [("random", at) for at in graphs if options.case in ("", f"random {options.seed}/{at}")]

    print(f"{len(work)} models go through every verb", flush=True)
    if overflows():
        print("this processor has no VNNI: full weights of 8 bits are run as unsigned ones", flush=True)
    counts, faults, rejected, outcomes = Counter(), [], Counter(), Counter()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        jobs = [pool.submit(trial, what, tool, options.seed, options.keep) for what in work]
        for job in jobs:
            result = job.result()
            counts.update(result.counts)
            faults += result.faults
            rejected.update(why.split(":")[0] for why in result.rejected)
            outcomes[outcome(result)] += 1

    kinds: dict[tuple, list] = {}
    for fault in faults:
        kinds.setdefault((fault.verb, fault.kind), []).append(fault)
    for (verb, _), those in sorted(kinds.items(), key=lambda item: (item[0][0], -len(item[1]))):
        first = min(those, key=lambda fault: len(fault.command))
        print(f"{len(those):5} {verb}: {first.what[:400]}\n      {first.case}: {first.command}")
        if options.minimize and first.case.startswith("random"):
            print(textwrap.indent(smallest(first, tool, options), "      "))
    print()
    width = max((len(verb) for verb, _ in counts), default=0)
    for (verb, what), count in sorted(counts.items()):
        print(f"{verb:{width}}  {count:6}  {what}")
    drawn = sum(kind == "random" for kind, _ in work)
    if drawn:
        print(f"{drawn} random graphs; {rejected.total()} more drawn were of no use: {dict(rejected)}")
    for reason, count in sorted(outcomes.items()):
        if reason not in ("passed", "failed"):
            print(f"SKIPPED the numbers of {count} models: {reason}")
    print(f"{len(work)} models, {counts.total()} checks, {time.monotonic() - start:.0f} s")
    skipped = outcomes.total() - outcomes["passed"] - outcomes["failed"]
    print(f"{outcomes['passed']} passed, {outcomes['failed']} failed, {skipped} skipped")
    return 1 if outcomes["failed"] or not work else 0


def outcome(result: verbs.Result) -> str:
    """A model counts once: it failed, or was changed and could not be run (and why), or passed."""
    if result.faults:
        return "failed"
    skipped = [what for (_, what) in result.counts if what.startswith("skipped: ")]
    return skipped[0].removeprefix("skipped: ") if skipped else "passed"


if __name__ == "__main__":
    sys.exit(main())
