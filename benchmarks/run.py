"""Measure every job against its baseline: `python benchmarks/run.py [--only NAME] [--runs N] [--json FILE]`.

Ours and the baseline take turns, so that a slow minute of the machine hits both; the medians are compared.
"""

from __future__ import annotations

import argparse
import compileall
import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import services

import catchment
from benchmarks import jobs, measure

SETTINGS = "-c shared_buffers=512MB -c max_wal_size=8GB -c checkpoint_timeout=60min -c maintenance_work_mem=256MB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="part of the name of a job; may be given again")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "latest.json")
    arguments = parser.parse_args()
    lines: list[dict[str, object]] = []
    # As an installed package is; some environments keep Python from doing it when it runs.
    compileall.compile_dir(Path(catchment.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory(prefix="catchment-bench-") as folder, services.postgresql(SETTINGS) as server:
        world = jobs.World(Path(folder), server, services.binaries())
        for job in jobs.all_jobs(world):
            if not arguments.only or any(part in job.name for part in arguments.only):
                lines.append(_measured(job, arguments.runs))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "at": time.strftime("%FT%TZ", time.gmtime()),
    }
    arguments.json.write_text(json.dumps({"machine": machine, "runs": arguments.runs, "jobs": lines}, indent=2) + "\n")
    print(f"\n{len(lines)} jobs, medians of {arguments.runs}; written to {arguments.json}")
    return 0 if all(line["met"] for line in lines) else 1


def _measured(job: jobs.Job, runs: int) -> dict[str, object]:
    mine: list[measure.Sample] = []
    theirs: list[measure.Sample] = []
    for _ in range(runs):
        mine.append(job.ours())
        if job.baseline is not None:
            theirs.append(job.baseline())
    ours, baseline = measure.median(mine), measure.median(theirs) if theirs else None
    assert job.figure is not None
    figure, met = job.figure(ours, baseline)
    base = f"{baseline.wall_s:7.2f} s {baseline.cpu_s:7.2f} CPU s" if baseline else " " * 25
    print(
        f"{'ok  ' if met else 'MISS'} {job.name:<46} {figure:<24} goal {job.goal:<24} ours {ours.wall_s:7.2f} s "
        f"{ours.cpu_s:7.2f} CPU s {ours.peak_mb:6.0f} MB   baseline {base}",
        flush=True,
    )
    return {
        "name": job.name,
        "figure": figure,
        "goal": job.goal,
        "met": met,
        "ours": asdict(ours),
        "baseline": asdict(baseline) if baseline else None,
        "ours_wall_s": [sample.wall_s for sample in mine],
        "baseline_wall_s": [sample.wall_s for sample in theirs],
    }


if __name__ == "__main__":
    sys.exit(main())
