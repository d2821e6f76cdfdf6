"""``python -m bench.speed``: docs/explanation/speed.md and its plots, from results of real runs.

    python -m bench.speed                          the page, from what is kept in bench/figures
    python -m bench.speed NAME=results/FILE ...    keep these results under these names first

Results are those of ``python -m bench``, or of ``python -m bench.growth --json`` under names that begin
with ``growth``.  Of a run its first line, the summaries and the ratios are kept, under its name until newer
ones are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.goals import Row, case_of, goals, number
from bench.growth import OPS
from bench.plot import Line, log_plot
from bench.report import PROTOCOLS, SCHEMA, WORKS, bytes_text

FIGURES = Path(__file__).with_name("figures")
DOCS = Path(__file__).parents[1] / "docs" / "explanation"
TEMPLATE = Path(__file__).with_name("speed.md.in")
GROWTH = "growth"
"Begins the names of growths."
S3_OURS = "ssastore S3"

_KEPT = ("run", "summary", "ratio")
_COLUMNS = (
    ("ops/s", "ops_per_s"),
    ("p50 ms", "p50_ms"),
    ("p99 ms", "p99_ms"),
    ("server us", "server_cpu_us_per_op"),
    ("client us", "client_cpu_us_per_op"),
    ("busiest %", "busiest_percent"),
    ("MiB", "memory_mib"),
    ("written", "written_bytes_per_byte"),
    ("others %", "others_cpu_percent"),
)
_GROWTH_ROWS = (
    ("filled/s", "fill_per_s"),
    ("MiB", "memory_mib"),
    ("open files", "open_files"),
    ("disk B/copy", "disk_bytes"),
    ("start s", "start_s"),
    ("scrub s", "scrub_s"),
    ("scrub us/copy", "scrub_us"),
)
_PLOT_TOP = 20.0


def middle(figure: Row | float | None) -> float | None:
    """The median of a spread, or the figure itself."""
    found: float | None = figure["median"] if isinstance(figure, dict) else figure
    return found


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# -- where ------------------------------------------------------------------------------------------


def origins(runs: dict[str, list[Row]]) -> str:
    """A line for each run: when, which commit, how; and the machines below."""
    rows, machines = [], dict[str, None]()
    for name, (first, *_) in runs.items():
        about = first["machine"]
        machines |= dict.fromkeys([", ".join(machine.lines(about)[1:]).split(", load average")[0]])
        forms = {target["form"]: None for target in first.get("targets", {}).values() if "form" in target}
        software = ", ".join([f"Python {about['python']}", f"uvloop {about['uvloop']}", *forms])
        how = _how(first) + f"; load {about['load_average']}; {software}"
        rows.append([name, about["started"], f"`{about['commit']}`", how])
    said = "\n".join(f"    {text}" for text in machines)
    return f"{_table(('run', 'when', 'commit', 'how'), rows)}\n\n{said}"


def _how(first: Row) -> str:
    if "points" in first:
        nodes = "1 node" if first["nodes"] == 1 else f"{first['nodes']} nodes"
        return f"{nodes}, R={first['replicas']}, {first['size']} B, 1 worker each"
    work = first["workload"]
    text = f"{work['rounds']} rounds of {work['seconds']:g} s, workers {work['workers']}"
    absent = [f"without {name} ({reason})" for name, reason in first["left_out"].items()]
    return "; ".join([text, *absent])


# -- ours and others --------------------------------------------------------------------------------


def comparison(runs: dict[str, list[Row]]) -> str:
    """The table of all runs but growths: a row for each target and work."""
    rows = []
    for name, (_, *others) in runs.items():
        last = None
        for row in (row for row in others if row["kind"] == "summary"):
            case = case_of(row)
            what = f"{PROTOCOLS[case.protocol]} {WORKS[case.op]}"
            work = f"{what}, {bytes_text(case.size)}, {case.inflight} callers"
            cells = [number(middle(row.get(figure))) for _, figure in _COLUMNS]
            spread = row["ops_per_s"]
            cells[0] += f" ({number(spread['low'])} to {number(spread['high'])})"
            rows.append([f"**{work}**" if case != last else "", row["target"], *cells, name])
            last = case
    return _table(("work", "target", *[heading for heading, _ in _COLUMNS], "run"), rows)


def about_targets(runs: dict[str, list[Row]]) -> str:
    """What each target is, once."""
    found = {
        target: about["about"] for first, *_ in runs.values() for target, about in first["targets"].items()
    }
    return "\n".join(f"- {target}: {text}" for target, text in found.items())


def by_size(runs: dict[str, list[Row]], op: str) -> list[Line]:
    """Each target's server CPU by the size of a value, over that of our S3 gateway with one replica."""
    found: dict[str, dict[int, float]] = {}
    for row in (row for rows in runs.values() for row in rows):
        if row["kind"] == "summary" and (row["protocol"], row["op"]) == ("s3", op):
            us = middle(row["server_cpu_us_per_op"])
            if us is not None and row["size"]:
                found.setdefault(row["target"], {})[row["size"]] = us
    ours = found.get(S3_OURS, {})
    lines = []
    for target, values in found.items():
        points = tuple((size, us / ours[size]) for size, us in sorted(values.items()) if size in ours)
        if points:
            lines.append(Line(target, points))
    return lines


# -- growth -----------------------------------------------------------------------------------------


def growth_table(growths: dict[str, list[Row]]) -> str:
    """All labs, a row for each count of objects."""
    headings = ["nodes, R", "objects", *[f"{op} us" for op in OPS], *[heading for heading, _ in _GROWTH_ROWS]]
    rows = [
        [
            f"{growth['nodes']}, {growth['replicas']}",
            f"{point['objects']:,}",
            *[number(point["server_us"][op]) for op in OPS],
            *[number(point[figure]) for _, figure in _GROWTH_ROWS],
            name,
        ]
        for name, (growth, *_) in growths.items()
        for point in growth["points"]
    ]
    return _table([*headings, "run"], rows)


def moves(growths: dict[str, list[Row]]) -> str:
    """What a new node got, in runs that came so far."""
    lines = []
    for name, (growth, *_) in growths.items():
        if "moved" not in growth:
            continue
        records, rate = growth["moved"], growth["moved"] / growth["move_s"]
        lines.append(
            f"- {name}: {records:,} records to a new node, {rate:,.0f}/s, {growth['move_us']:.0f} us each"
        )
    return "\n".join(lines)


def growth_plot(growth: Row) -> str:
    """Nominal CPU by the number of objects."""
    lines = [
        Line(op, tuple((point["objects"], point["server_us"][op]) for point in growth["points"]))
        for op in OPS
    ]
    top = 1.2 * max(y for line in lines for _, y in line.points)
    title = f"Server CPU (list: of an entry), {growth['nodes']} nodes, R={growth['replicas']}"
    return log_plot(title, "nominal us", lines, top=round(top, -1), bottom=0.0, x_name="objects")


# -- the page ---------------------------------------------------------------------------------------


def keep(name: str, path: Path, folder: Path) -> None:
    """Copy what is kept of a file of results. Raises ValueError for one that is none."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if name.startswith(GROWTH):
        kept = [row for row in rows if "points" in row]
    else:
        kept = [row for row in rows if row.get("kind") in _KEPT]
        if kept and kept[0].get("schema") != SCHEMA:
            raise ValueError(f"{path}: not of schema {SCHEMA}")
    if not kept:
        raise ValueError(f"{path}: holds no results")
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in kept))


def known(folder: Path) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """Runs and growths by name, in the order of their names."""
    found = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("*.jsonl"))
    }
    runs = {name: rows for name, rows in found.items() if not name.startswith(GROWTH)}
    return runs, {name: rows for name, rows in found.items() if name.startswith(GROWTH)}


def pages(folder: Path) -> dict[str, str]:
    """The page and its plots by file name, from what is kept."""
    runs, growths = known(folder)
    parts = {
        "ORIGINS": origins(runs | growths),
        "COMPARISON": comparison(runs),
        "TARGETS": about_targets(runs),
        "GOALS": _table(("goal", "wanted", "found", "reached", "run"), goals(runs, growths)),
        "GROWTH": growth_table(growths),
        "MOVES": moves(growths),
    }
    page = TEMPLATE.read_text()
    for name, text in parts.items():
        page = page.replace(f"@{name}@", text)
    made = {"speed.md": page}
    for op in ("get", "put"):
        if lines := by_size(runs, op):
            title = f"S3 {op.upper()}: server CPU over that of ssastore S3"
            made[f"speed-s3-{op}.svg"] = log_plot(
                title, "times", lines, top=_PLOT_TOP, bottom=0.0, x_name="bytes of a value"
            )
    for name, (growth, *_) in growths.items():
        if f"speed-{name}.svg" in page:
            made[f"speed-{name}.svg"] = growth_plot(growth)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; exit code 0, or 2 for results that are none."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.speed", description="docs/explanation/speed.md from results."
    )
    parser.add_argument("results", nargs="*", metavar="NAME=FILE", help="results to keep under a name")
    parser.add_argument("--figures", type=Path, default=FIGURES, metavar="DIR", help="where they are kept")
    parser.add_argument("--write", type=Path, default=DOCS, metavar="DOCS", help="where the page goes")
    options = parser.parse_args(arguments)
    try:
        for text in options.results:
            name, _, path = text.partition("=")
            keep(name, Path(path), options.figures)
    except (OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    for name, text in pages(options.figures).items():
        (options.write / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
