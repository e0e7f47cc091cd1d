"""Run benchmarks one after the other and print their results as one table.

    python benchmarks/run_all.py [SCRIPT ...] [--threads 1]

Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_ONE_THREAD_ONLY = ("logging_cost.py", "fused_head_gpu.py", "training_step_gpu.py", "evaluation.py")
_NO_CLAIM = ("common.py", "run_all.py", "scaling.py")
_OWN_RESULTS = ("opensearch.py", "pruning.py", "words_beside.py")  # they write their own


def run(script: Path, threads: int) -> list[dict[str, object]]:
    """Run one script, showing what it prints; its results."""
    options = [] if script.name in _ONE_THREAD_ONLY else ["--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, str(script), *options]
    print(f"$ python benchmarks/{' '.join([script.name, *options])}", flush=True)
    results = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            if line.startswith("RESULT "):
                results.append({**json.loads(line.removeprefix("RESULT ")), "script": script.name})
            else:
                print(line, end="", flush=True)
    if process.returncode:
        raise SystemExit(f"{script}: exit code {process.returncode}")
    return results


def main() -> None:
    """Run those named on the command line, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scripts", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    scripts = given.scripts or [
        path for path in sorted(_HERE.glob("*.py")) if path.name not in (*_NO_CLAIM, *_OWN_RESULTS)
    ]
    results = [result for script in scripts for result in run(script, given.threads)]
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| claim | ours | stock | ratio | threads | command |\n|---|---|---|---|---|---|")
    for one in results:
        there = one["stock"] is not None
        stock, ratio = (f"{one['stock']:.4g} {one['unit']}", f"× {one['ratio']:.2f}") if there else ("–", "–")
        cells = (one["claim"], f"{one['ours']:.4g} {one['unit']}", stock, ratio, one["threads"])
        print(f"| {' | '.join(map(str, cells))} | `{one['script']}` |")


if __name__ == "__main__":
    main()
