"""``filter``: the rule of a service's addresses, judged in the kernel before a host knows of a packet."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import threading
import time
from typing import TYPE_CHECKING

import click

from ssastore.cli.filterorders import attack_command, inject_command, show_command, withdraw_command

if TYPE_CHECKING:
    from ipaddress import IPv6Network

    from ssastore.rules.hashes import ServiceKeys
    from ssastore.rules.record import ServiceRecord

_TICK_S = 0.2
_LINES_MAX = 100
_LAST_S = 1.0


@click.group("filter")
def filter_command() -> None:
    """Judge packets by the rule of their addresses, reject in XDP and queue by class (filter.md)."""


for _order in (inject_command, withdraw_command, attack_command, show_command):
    filter_command.add_command(_order)


@filter_command.command("run")
@click.argument("interface")
@click.option(
    "--service",
    "services",
    metavar="PREFIX/64",
    required=True,
    multiple=True,
    help="The service whose packets are judged; several for sites, or while it is renumbered.",
)
@click.option("--record", metavar="TEXT", required=True, help="Its service record (docs/reference/rules.md).")
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False),
    help="Secrets of keyed rules, one or two lines of 32 hexadecimal digits; read again at SIGHUP.",
)
@click.option(
    "--public", "publics", metavar="HEX", multiple=True, help="A former public key that passes still."
)
@click.option(
    "--inside", metavar="INTERFACE", help="Where packets leave for the service: queue them there by class."
)
@click.option(
    "--pace",
    type=click.IntRange(10, 10_000_000),
    default=2000,
    show_default=True,
    metavar="PACKETS/S",
    help="SYNs of the assumed good; the possibly bad have a tenth.",
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
    services: tuple[str, ...],
    record: str,
    secret_file: str | None,
    publics: tuple[str, ...],
    inside: str | None,
    pace: int,
    is_monitor: bool,
    every_s: float,
    as_json: bool,
) -> None:
    """Drop what breaks the rule at INTERFACE until interrupted; needs root."""
    from ssastore.errors import ConfigError
    from ssastore.filter.desk import Desk
    from ssastore.filter.kernel import Filter
    from ssastore.filter.place import Place
    from ssastore.filter.queues import Paces
    from ssastore.rules.record import record_from_text

    if os.geteuid() != 0:
        raise ConfigError("the filter needs root: the kernel takes no XDP program from a user namespace")
    if inside and is_monitor:
        raise ConfigError("--monitor lets everything pass: it has no queues, so no --inside")
    networks = read_services(services)
    parsed = record_from_text(record)
    keys = read_keys(parsed, publics, secret_file)
    stopped: list[int] = []
    stale: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, _: stopped.append(which))
    signal.signal(signal.SIGHUP, lambda which, _: stale.append(which))
    teller = Teller(as_json)
    with Filter(parsed) as judging:
        place = Place(judging, interface, inside, Paces(pace, max(10, pace // 10)))
        judging.set_keys(networks, time.time(), keys, is_monitor=is_monitor)
        mode = place.attach()
        how = (
            f"{mode} XDP" + (", monitor" if is_monitor else "") + (f", queues at {inside}" if inside else "")
        )
        teller.say(f"judging {', '.join(map(str, networks))} at {interface} ({how}): {parsed}")
        told = time.monotonic()
        with contextlib.closing(Desk(judging, interface)) as desk:
            while not stopped:
                desk.serve(min(_TICK_S, every_s))
                if stale:
                    stale.clear()
                    keys = _read_again(parsed, publics, secret_file, keys, teller)
                # Its clock runs by itself, but clocks are set now and then.
                judging.set_keys(networks, time.time(), keys, is_monitor=is_monitor)
                if news := place.attach_again():
                    teller.say(news)
                if time.monotonic() - told >= every_s:
                    told = time.monotonic()
                    teller.tell(judging.counts() | judging.queue_counts())
        teller.tell(judging.counts() | judging.queue_counts())
    teller.close()


def read_services(texts: tuple[str, ...]) -> list[IPv6Network]:
    """The services' prefixes. Raises ConfigError: one is none, or there are too many."""
    from ssastore.errors import ConfigError
    from ssastore.keyspace import service_network
    from ssastore.rules.record import PREFIXES_MAX

    try:
        networks = list(dict.fromkeys(service_network(text) for text in texts))
    except ValueError as error:
        raise ConfigError(f"--service: {error}") from None
    if len(networks) > PREFIXES_MAX:
        raise ConfigError(f"at most {PREFIXES_MAX} prefixes are judged, got {len(networks)}")
    return networks


class Teller:
    """Prints on a thread of its own: who does not read what is printed must not hold the filter up."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._lines: queue.Queue[str | None] = queue.Queue(_LINES_MAX)
        self._printing = threading.Thread(target=self._print, daemon=True)
        self._printing.start()

    def say(self, line: str | None) -> None:
        """Print a line; dropped when too many wait. None ends the thread."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(line)

    def tell(self, counts: dict[str, int]) -> None:
        """Print counters."""
        told = "  ".join(f"{name} {count}" for name, count in counts.items() if count)
        self.say(json.dumps(counts) if self._as_json else told or "no packets")

    def close(self) -> None:
        """Print what waits, if that is soon done."""
        self.say(None)
        self._printing.join(_LAST_S)

    def _print(self) -> None:
        while (line := self._lines.get()) is not None:
            print(line, flush=True)


def read_keys(record: ServiceRecord, publics: tuple[str, ...], secret_file: str | None) -> ServiceKeys:
    """The keys in use. Raises ConfigError: no key on a line, more than two, none for a keyed rule."""
    from pathlib import Path

    from ssastore.errors import ConfigError
    from ssastore.filter.header import KEYS_IN_USE_MAX
    from ssastore.rules.hashes import ServiceKeys, token_from_text
    from ssastore.rules.rule import Binding

    lines = Path(secret_file).read_text()[:1024].split() if secret_file else []
    secrets = tuple(token_from_text(line) for line in lines)
    former = tuple(token_from_text(public) for public in publics)
    if len(former) + 1 > KEYS_IN_USE_MAX or len(secrets) > KEYS_IN_USE_MAX:
        raise ConfigError(f"at most {KEYS_IN_USE_MAX} keys of a kind are in use at once")
    if not secrets and Binding.KEYED in (record.data.tail, record.front.locator, record.front.tail):
        raise ConfigError("a keyed rule needs a secret in --secret-file")
    return ServiceKeys((record.public, *former), secrets)


def _read_again(
    record: ServiceRecord,
    publics: tuple[str, ...],
    secret_file: str | None,
    former: ServiceKeys,
    teller: Teller,
) -> ServiceKeys:
    from ssastore.errors import ConfigError

    try:
        keys = read_keys(record, publics, secret_file)
    except (ConfigError, OSError, ValueError) as error:
        # Who is at work must not end, or judge by nothing, because of a file that is being written.
        teller.say(f"the former keys stay: {error}")
        return former
    teller.say("keys read again")
    return keys
