"""``rule``: addresses under a rule, and verdicts on them, without any cluster."""

from __future__ import annotations

import json
import time
from ipaddress import IPv6Address
from re import fullmatch
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ssastore.rules.hashes import ServiceKeys
    from ssastore.rules.rule import Rule


class _Rule(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    name = "rule"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Rule:
        from ssastore.errors import ConfigError
        from ssastore.rules.rule import rule_from_text

        try:
            return rule_from_text(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class _Address(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(IPv6Address(str(value).removesuffix("/64")))
        except ValueError:
            self.fail(f"{value!r} is no IPv6 address", param, ctx)


class _Hex(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """``digits`` hexadecimal digits at most."""

    name = "hex"

    def __init__(self, digits: int) -> None:
        self._digits = digits

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if fullmatch(f"[0-9a-fA-F]{{1,{self._digits}}}", text):
            return int(text, 16)
        return self.fail(f"{value!r} is not {self._digits} hexadecimal digits", param, ctx)


def _key_in(file: IO[str], what: str) -> bytes:
    from ssastore.errors import ConfigError
    from ssastore.rules.hashes import KEY_BYTES

    try:
        key = bytes.fromhex(file.read(1024).strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"the {what} must be {2 * KEY_BYTES} hexadecimal digits")
    return key


class _UnixTime(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            # No number, or no time: not a number is neither below nor above anything.
            if 0 <= (unix_s := float(str(value))) < 1e12:
                return unix_s
        except ValueError:
            pass
        return self.fail(f"{value!r} is no time in seconds since 1970", param, ctx)


_rule = click.argument("rule", type=_Rule())
_source = click.option(
    "--source", type=_Address(), required=True, help="The client's address; its first 64 bits count."
)
_at = click.option(
    "--at", "unix_s", type=_UnixTime(), metavar="UNIX_S", help="Time of the epoch; default: now."
)
_position = click.option(
    "--position", type=_Hex(15), metavar="HEX", help="60 bits of the object, as ssastore explain shows them."
)
_public = click.option(
    "--public", type=_Hex(32), metavar="HEX", default="0", help="The service's public key; default: zeros."
)


@click.group("rule")
def rule_command() -> None:
    """Rules for addresses: what a client connects to, and what the network lets pass.

    \b
    RULE is one or two words, the second for the tail of the address:
      random content source keyed match low:N inverted:N
      content+source content+keyed source+keyed random+source ...
    and choices:N, pow:BITS, hop:SECONDS: source+choices:4+hop:30. See docs/reference/rules.md.
    """


@rule_command.command("show")
@_rule
def show_command(rule: Rule) -> None:
    """Say what a rule asks, and how often a guess passes."""
    from ssastore.rules.hashes import ServiceKeys
    from ssastore.rules.verdict import blind_rate, stranger_rate

    click.echo(f"rule      {rule}")
    click.echo(f"locator   {rule.locator}" + (f", {rule.choices} to choose from" if rule.choices > 1 else ""))
    click.echo(f"tail      {'a nonce, ' if rule.work_bits else ''}{rule.tail}")
    if rule.work_bits:
        click.echo(
            f"work      2^{rule.work_bits} = {2**rule.work_bits:,} hashes for each address, in the mean"
        )
    if rule.hop_s:
        click.echo(f"epochs    {rule.hop_s} s each; an address passes for at most {2 * rule.hop_s} s")
    keys = ServiceKeys(secrets=(bytes(16),))
    click.echo(f"a guess passes with probability {blind_rate(rule, keys):.3g}")
    click.echo(f"who computes what everybody can, with {stranger_rate(rule, keys):.3g}")


@rule_command.command("address")
@_rule
@click.argument("service", type=_Address())
@_source
@click.option("--plane", type=_Hex(1), default="f", help="Digit of the plane; default: f, the front plane.")
@_position
@click.option("--free", type=_Hex(16), metavar="HEX", help="The random bits; default: drawn.")
@_at
@_public
@click.option(
    "--token-file", type=click.File(), help="The client's token, 32 hexadecimal digits; - reads stdin."
)
def address_command(
    rule: Rule,
    service: int,
    source: int,
    plane: int,
    position: int | None,
    free: int | None,
    unix_s: float | None,
    public: int,
    token_file: IO[str] | None,
) -> None:
    """Print an address of SERVICE that a client may use."""
    from ssastore.rules.address import address_under
    from ssastore.rules.hashes import ClientKeys
    from ssastore.system import SystemRandomness

    keys = ClientKeys(public.to_bytes(16, "big"), _key_in(token_file, "token") if token_file else b"")
    iid = address_under(
        rule,
        plane,
        source >> 64,
        free=int.from_bytes(SystemRandomness().bytes(8), "big") if free is None else free,
        position=position,
        epoch=rule.epoch_at(time.time() if unix_s is None else unix_s),
        keys=keys,
    )
    click.echo(IPv6Address(service >> 64 << 64 | iid))


def _service_keys(publics: tuple[int, ...], files: tuple[IO[str], ...]) -> ServiceKeys:
    from ssastore.rules.hashes import PUBLIC_KEY, ServiceKeys

    public = tuple(key.to_bytes(16, "big") for key in publics) or (PUBLIC_KEY,)
    return ServiceKeys(public, tuple(_key_in(file, "secret") for file in files))


@rule_command.command("check")
@_rule
@click.argument("destination", type=_Address())
@_source
@_position
@_at
@click.option(
    "--public", type=_Hex(32), multiple=True, metavar="HEX", help="Public keys in use; default: zeros."
)
@click.option(
    "--secret-file", type=click.File(), multiple=True, help="Secrets in use, 32 hexadecimal digits."
)
@click.pass_context
def check_command(
    ctx: click.Context,
    rule: Rule,
    destination: int,
    source: int,
    position: int | None,
    unix_s: float | None,
    public: tuple[int, ...],
    secret_file: tuple[IO[str], ...],
) -> None:
    """Print the verdict on a packet to DESTINATION. Exit code 1: it breaks the rule."""
    from ssastore.rules.verdict import check

    verdict = check(
        rule,
        source >> 64,
        destination & (1 << 64) - 1,
        epoch=rule.epoch_at(time.time() if unix_s is None else unix_s),
        keys=_service_keys(public, secret_file),
        position=position,
    )
    click.echo(verdict)
    if verdict.is_break:
        ctx.exit(1)


@rule_command.command("token")
@click.argument("source", type=_Address())
@click.option("--secret-file", type=click.File(), required=True, help="The secret, 32 hexadecimal digits.")
def token_command(source: int, secret_file: IO[str]) -> None:
    """Print the token of the clients in one /64, for keyed rules."""
    from ssastore.rules.hashes import token_of

    click.echo(token_of(_key_in(secret_file, "secret"), source >> 64).hex())


@rule_command.command("vectors")
@click.option(
    "--count", type=click.IntRange(1, 1_000_000), default=3, show_default=True, help="Of each rule."
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Another one draws others."
)
def vectors_command(count: int, seed: int) -> None:
    """Print test vectors as JSON, for another implementation of docs/reference/rules.md."""
    from ssastore.rules.vectors import as_json

    click.echo("[\n" + ",\n".join(json.dumps(entry) for entry in as_json(count, seed)) + "\n]")
