"""``filter``: the rule of a service's addresses, judged in the kernel before a host knows of a packet."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ssastore.rules.hashes import ServiceKeys
    from ssastore.rules.record import ServiceRecord

_TICK_S = 0.2


@click.group("filter")
def filter_command() -> None:
    """Judge opening packets by the rule of their addresses, in XDP (docs/filter.md)."""


@filter_command.command("run")
@click.argument("interface")
@click.option("--service", metavar="PREFIX/64", required=True, help="The service whose packets are judged.")
@click.option("--record", metavar="TEXT", required=True, help="Its service record (docs/rules.md).")
@click.option(
    "--secret-file",
    "secret_files",
    type=click.Path(exists=True, dir_okay=False),
    multiple=True,
    help="Secrets in use of keyed rules, 32 hexadecimal digits, at most two; read again at SIGHUP.",
)
@click.option(
    "--public", "publics", metavar="HEX", multiple=True, help="A former public key that passes still."
)
@click.option("--monitor", "is_monitor", is_flag=True, help="Count, and let everything pass.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.2, 3600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How often counters are printed.",
)
@click.option("--json", "as_json", is_flag=True, help="Counters as one JSON object a line.")
def run_command(
    interface: str,
    service: str,
    record: str,
    secret_files: tuple[str, ...],
    publics: tuple[str, ...],
    is_monitor: bool,
    every_s: float,
    as_json: bool,
) -> None:
    """Drop what breaks the rule at INTERFACE until interrupted; needs root."""
    from ssastore.errors import ConfigError
    from ssastore.filter.kernel import Filter
    from ssastore.keyspace import service_network
    from ssastore.rules.record import record_from_text

    if os.geteuid() != 0:
        raise ConfigError("the filter needs root: the kernel takes no XDP program from a user namespace")
    try:
        network = service_network(service)
    except ValueError as error:
        raise ConfigError(f"--service: {error}") from None
    parsed = record_from_text(record)
    keys = read_keys(parsed, publics, secret_files)
    stopped: list[int] = []
    stale: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, _: stopped.append(which))
    signal.signal(signal.SIGHUP, lambda which, _: stale.append(which))
    with Filter(parsed) as judging:
        judging.set_keys(network, time.time(), keys, is_monitor=is_monitor)
        mode = judging.attach(interface)
        how = f"{mode} XDP, monitor" if is_monitor else f"{mode} XDP"
        how = f"{mode} XDP, monitor" if is_monitor else f"{mode} XDP"
        print(f"judging {network} at {interface} ({how}): {parsed}", flush=True)
        told = time.monotonic()
        while not stopped:
            time.sleep(min(_TICK_S, every_s))
            if stale:
                stale.clear()
                keys = _read_again(parsed, publics, secret_files, keys)
            judging.set_keys(network, time.time(), keys, is_monitor=is_monitor)
            if time.monotonic() - told >= every_s:
                told = time.monotonic()
                tell(judging.counts(), as_json)
        tell(judging.counts(), as_json)


def read_keys(record: ServiceRecord, publics: tuple[str, ...], secret_files: tuple[str, ...]) -> ServiceKeys:
    """The keys in use. Raises ConfigError: no key in a file, more than two, none for a keyed rule."""
    from pathlib import Path

    from ssastore.errors import ConfigError
    from ssastore.filter.header import KEYS_IN_USE_MAX
    from ssastore.rules.hashes import ServiceKeys, token_from_text
    from ssastore.rules.rule import Binding

    secrets = tuple(token_from_text(Path(file).read_text()[:1024].strip()) for file in secret_files)
    former = tuple(token_from_text(public) for public in publics)
    if len(former) + 1 > KEYS_IN_USE_MAX or len(secrets) > KEYS_IN_USE_MAX:
        raise ConfigError(f"at most {KEYS_IN_USE_MAX} keys of a kind are in use at once")
    if not secrets and Binding.KEYED in (record.data.tail, record.front.locator, record.front.tail):
        raise ConfigError("a keyed rule needs --secret-file")
    return ServiceKeys((record.public, *former), secrets)


def _read_again(
    record: ServiceRecord, publics: tuple[str, ...], secret_files: tuple[str, ...], former: ServiceKeys
) -> ServiceKeys:
    from ssastore.errors import ConfigError

    try:
        keys = read_keys(record, publics, secret_files)
    except (ConfigError, OSError) as error:
        # Who is at work must not end, or judge by nothing, because of a file that is being written.
        print(f"the former keys stay: {error}", file=sys.stderr, flush=True)
        return former
    print("keys read again", flush=True)
    return keys


def tell(counts: dict[str, int], as_json: bool) -> None:
    """One line of counters."""
    if as_json:
        print(json.dumps(counts), flush=True)
    else:
        told = "  ".join(f"{name} {count}" for name, count in counts.items() if count)
        print(told or "no packets", flush=True)
