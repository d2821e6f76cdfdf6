"""``python -m bench``: see README.md in this folder."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench.errors import BenchError
from bench.report import OURS, Report
from bench.run import PRODUCTS, PROTOCOLS, Endpoint, Options, names, run, say
from ssastore.load import MIB, OPS

RESULTS = Path(__file__).parent / "results"

QUICK = (1.0, 3)
FULL = (3.0, 5)
"Seconds and rounds. All targets take 270 s of load, and their start a minute."

SIZE_MAX = 64 * MIB

BASIC = ("get", "put", "overwrite")
"Operations when none is named."


def _within(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    """A converter for argparse that refuses what is out of bounds."""

    def convert(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low} to {high}")
        return value

    convert.__name__ = kind.__name__  # what argparse calls it when it is not even a number
    return convert


def _names(text: str) -> frozenset[str]:
    try:
        return names([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _endpoint(text: str) -> Endpoint:
    name, equals, rest = text.partition("=")
    url, *pids = rest.split(",")
    if not name or not equals or not url or not all(pid.isdigit() for pid in pids):
        raise argparse.ArgumentTypeError(f"{text!r} is not like minio=http://127.0.0.1:9000,4711")
    return Endpoint(name, url, tuple(map(int, pids)))


def parser() -> argparse.ArgumentParser:
    """The options."""
    known = ", ".join((*PROTOCOLS, *OPS, *PRODUCTS))
    made = argparse.ArgumentParser(
        prog="python -m bench", description="ssastore and peers under the same load."
    )
    made.add_argument("--quick", action="store_true", help="3 rounds of 1 s, about a minute in all")
    made.add_argument(
        "--seconds", type=_within(float, 0.2, 60), help=f"length of a round; default {FULL[0]:g}"
    )
    made.add_argument("--rounds", type=_within(int, 1, 50), help=f"how many; default {FULL[1]}")
    made.add_argument(
        "--inflight", type=_within(int, 1, 1024), nargs="+", default=[64], help="callers at once; default 64"
    )
    made.add_argument(
        "--size",
        type=_within(int, 0, SIZE_MAX),
        nargs="+",
        default=[4096],
        help="bytes of a value; default 4096",
    )
    made.add_argument(
        "--only",
        type=_names,
        default=frozenset(),
        metavar="NAMES",
        help=f"of {known}; by commas. Operations otherwise: {', '.join(BASIC)}",
    )
    made.add_argument("--data", type=Path, default=RESULTS, help="folder for the servers' data, on a disk")
    made.add_argument(
        "--pin", action="store_true", help="keep the last core for the client, others for servers"
    )
    made.add_argument(
        "--workers", type=_within(int, 1, 16), default=1, help="processes of a server; default 1"
    )
    made.add_argument(
        "--s3-url",
        type=_endpoint,
        action="append",
        default=[],
        metavar="NAME=URL[,PID]",
        help="an S3 service that runs, and its process; keys: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )
    made.add_argument("--json", action="store_true", help="print lines of JSON instead of the table")
    return made


def options_of(arguments: argparse.Namespace) -> Options:
    """What was asked for; ``--seconds`` and ``--rounds`` win over ``--quick``."""
    seconds, rounds = QUICK if arguments.quick else FULL
    is_named = not arguments.only.isdisjoint(OPS)
    return Options(
        seconds=arguments.seconds or seconds,
        rounds=arguments.rounds or rounds,
        inflight=tuple(arguments.inflight),
        sizes=tuple(arguments.size),
        only=arguments.only if is_named else arguments.only.union(BASIC),
        data=arguments.data,
        pin=arguments.pin,
        workers=arguments.workers,
        endpoints=tuple(arguments.s3_url),
    )


def save(report: Report) -> Path:
    """Write the results; the file's path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("%Y%m%dT%H%M%SZ.jsonl", time.gmtime())
    path.write_text("".join(f"{line}\n" for line in report.json_lines()))
    return path


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM takes the same way out as Ctrl-C: everything that was started is stopped."""
    raise SystemExit(128 + number)


def main() -> int:
    """Run; exit code 0, or 1 when ssastore itself could not be measured."""
    arguments = parser().parse_args()
    signal.signal(signal.SIGTERM, _terminated)
    # A shell starts what it puts in the background with Ctrl-C ignored, and our servers would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        report = run(options_of(arguments))
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted; all servers are stopped")
        return 130
    path = save(report)
    print("\n".join(report.json_lines()) if arguments.json else f"\n{report.table()}")
    say(f"\nresults: {path}")
    return 1 if any(target.startswith(OURS) for target in report.left_out) else 0


if __name__ == "__main__":
    sys.exit(main())
