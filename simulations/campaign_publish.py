"""Make the committed results of a campaign: the table, the plan and one trace per run.

    python simulations/campaign_publish.py DIR

copies what `gabactl cmapss campaign run -o DIR` has done so far to simulations/results/campaign, and can be
run again as it goes on. Gradient norms are kept at every step; the other columns too, unless
--every N thins them out to every N-th step (the averages and weights of GABA follow from the norms:
`gabactl check`). It refuses to make more than --limit MB.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from gabactl.base.errors import InputError
from gabactl.nn.campaigns import CampaignResults, collect_results, save_results
from gabactl.traces import Trace, read_trace, write_parquet

DONE = ("finished", "stopped early", "diverged")


def thin(trace: Trace, every: int) -> Trace:
    """All norms, and the other columns at every n-th step and the last one."""
    keep = (trace.step - 1) % every == 0
    keep[-1] = True
    columns = {}
    present = dict(trace.present)
    for name in ("raw", "ema", "weights", "losses"):
        values = getattr(trace, name)
        if values is not None:
            columns[name] = np.where(keep[:, None], values, np.nan)
            present[name] = present[name] & keep
    if trace.wall_time is not None:
        columns["wall_time"] = np.where(keep, trace.wall_time, np.nan)
    return replace(trace, present=present, **columns)


def publish(folder: Path, target: Path, every: int = 1, limit: float = 6.0) -> CampaignResults:
    """Write the table, the plan and the traces of the runs that ended."""
    results = collect_results(folder)
    traces = target / "traces"
    traces.mkdir(parents=True, exist_ok=True)
    places = []
    for row in results.records():
        if row["status"] not in DONE or row["trace"] is None:
            places.append(None)
            continue
        file = traces / f"{row['run']}.parquet"
        source = folder / row["trace"]
        if every == 1:
            shutil.copyfile(source, file)
        else:
            write_parquet(thin(read_trace(source), every), file)
        places.append(f"traces/{file.name}")
    for file in traces.glob("*.parquet"):
        if f"traces/{file.name}" not in places:
            file.unlink()
    shutil.copyfile(folder / "campaign.toml", target / "campaign.toml")
    published = replace(results, table={**results.table, "trace": places})
    save_results(published, target / "results.parquet")
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file()) / 1e6
    print(f"{target}: {size:.2f} MB, {len(places) - places.count(None)} traces")
    if size > limit:
        raise InputError(f"{target}: {size:.1f} MB are more than {limit:g}: thin with --every 10")
    return published


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).parent / "results" / "campaign"
    )
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--limit", type=float, default=6.0, help="MB")
    given = parser.parse_args()
    try:
        print(publish(given.folder, given.output, given.every, given.limit))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
