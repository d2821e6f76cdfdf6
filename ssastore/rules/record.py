"""The record that a service publishes as TXT at ``_ssa.NAME``, beside its prefixes:

v=SSA1; port=7480; replicas=3; data=content; front=source; hop=30
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network
from re import fullmatch

from ssastore.errors import ConfigError
from ssastore.keyspace import FRONT_PLANE, REPLICAS_ALLOWED, is_reserved_iid, plane_of, service_network
from ssastore.rules.address import is_unbound
from ssastore.rules.hashes import KEY_BYTES, PUBLIC_KEY, ServiceKeys
from ssastore.rules.rule import Binding, Rule, rule_from_text
from ssastore.rules.verdict import Verdict, check

VERSION = "SSA1"
RECORD_BYTES_MAX = 1024
PREFIXES_MAX = 16
NATIVE_PORT = 7480

_BY_NAME = Rule(Binding.CONTENT, Binding.CONTENT)
_ANY = Rule(Binding.RANDOM, Binding.RANDOM)


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """What a client must know of a service besides its prefixes.

    ``data`` is the rule of planes 0 to ``replicas`` - 1, ``front`` that of the front plane. ``public``
    is the key of hashes that everybody can compute (16 bytes).  ``prefixes`` are the service's, for
    zones that cannot hold APL records.

    Raises:
        ConfigError: the values do not go together.
    """

    port: int = NATIVE_PORT
    replicas: int = 1
    data: Rule = _BY_NAME
    front: Rule = _ANY
    public: bytes = PUBLIC_KEY
    prefixes: tuple[IPv6Network, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"port must be 1 to 65535, got {self.port}")
        if self.replicas not in REPLICAS_ALLOWED:
            raise ConfigError(f"replicas must be one of {REPLICAS_ALLOWED}, got {self.replicas}")
        if self.data.locator is not Binding.CONTENT:
            raise ConfigError(f"the locator of data follows the name of what is stored: no rule {self.data}")
        if self.front.low_bits:
            raise ConfigError(f"a part of the front plane is for clients without a rule: not {self.front}")
        if len(self.public) != KEY_BYTES:
            raise ConfigError(f"the public key has {KEY_BYTES} bytes, got {len(self.public)}")
        if self.data != self.data.with_limits(**self._limits()):
            raise ConfigError(
                f"hop and pow are the same for all rules of a service: {self.data}, {self.front}"
            )

    def _limits(self) -> dict[str, int]:
        told = self.front if self.front.is_hashed else self.data
        return {"choices": told.choices, "work_bits": told.work_bits, "hop_s": told.hop_s}

    def rule_of(self, iid: int) -> Rule | None:
        """The rule of an address; None for a plane that the service does not have."""
        plane = plane_of(iid)
        if plane == FRONT_PLANE:
            return _ANY if is_unbound(iid) else self.front
        return self.data if plane < self.replicas else None

    def check(
        self, source: int, iid: int, *, unix_s: float, keys: ServiceKeys, position: int | None = None
    ) -> Verdict:
        """The verdict on a packet to any address of the service; arguments as of ``verdict.check``."""
        if is_reserved_iid(iid):
            return Verdict.RESERVED
        rule = self.rule_of(iid)
        if rule is None:
            return Verdict.PLANE
        return check(rule, source, iid, epoch=rule.epoch_at(unix_s), keys=keys, position=position)

    def __str__(self) -> str:
        """The record's text.  Defaults are left out, but for those that every reader wants."""
        limits = self._limits()
        told = {
            "v": VERSION,
            "port": self.port,
            "replicas": self.replicas,
            "data": self.data.words,
            "front": self.front.words,
            "choices": limits["choices"] if limits["choices"] > 1 else "",
            "pow": limits["work_bits"] or "",
            "hop": limits["hop_s"] or "",
            "key": self.public.hex() if self.public != PUBLIC_KEY else "",
            "prefix": ",".join(map(str, self.prefixes)),
        }
        return "; ".join(f"{name}={value}" for name, value in told.items() if value != "")


def record_from_text(text: str) -> ServiceRecord:
    """Parse a record. Fields that this version does not know are ignored, words of a rule are not.

    Raises:
        ConfigError: it is no record of this version, or its values are wrong.
    """
    if len(text) > RECORD_BYTES_MAX:
        raise ConfigError(f"a service record has at most {RECORD_BYTES_MAX} bytes, got {len(text)}")
    fields: dict[str, str] = {}
    for item in text.split(";"):
        name, equals, value = (piece.strip() for piece in item.partition("="))
        if not item.strip():
            continue
        if not equals:
            raise ConfigError(f"not a field of a service record: {item.strip()!r}")
        if name.lower() in fields:
            raise ConfigError(f"{name} is given twice in the service record")
        if not fields and (name.lower(), value) != ("v", VERSION):
            raise ConfigError(f"a service record begins with v={VERSION}, got {item.strip()!r}")
        fields[name.lower()] = value
    if not fields:
        raise ConfigError("the service record is empty")
    return _record(fields)


def _record(fields: Mapping[str, str]) -> ServiceRecord:
    choices, work_bits = _number(fields, "choices", 1), _number(fields, "pow", 0)
    hop_s = _number(fields, "hop", 0)
    # In their ranges, also where no rule has a use for them.
    Rule(Binding.SOURCE, Binding.SOURCE, choices, work_bits, hop_s)

    def rule(name: str, default: str) -> Rule:
        parsed = rule_from_text(fields.get(name, default))
        if str(parsed) != parsed.words:
            raise ConfigError(
                f"choices, pow and hop are fields of their own in a service record: {name}={parsed}"
            )
        return parsed.with_limits(choices=choices, work_bits=work_bits, hop_s=hop_s)

    key = fields.get("key", PUBLIC_KEY.hex())
    if not fullmatch(f"[0-9a-fA-F]{{{2 * KEY_BYTES}}}", key):
        raise ConfigError(f"key must be {2 * KEY_BYTES} hexadecimal digits, got {key!r}")
    return ServiceRecord(
        port=_number(fields, "port", NATIVE_PORT),
        replicas=_number(fields, "replicas", 1),
        data=rule("data", "content"),
        front=rule("front", "random"),
        public=bytes.fromhex(key),
        prefixes=_prefixes(fields),
    )


def _prefixes(fields: Mapping[str, str]) -> tuple[IPv6Network, ...]:
    if "prefix" not in fields:
        return ()
    try:
        # In the order of preference; who is named twice is meant once.
        found = dict.fromkeys(service_network(text.strip()) for text in fields["prefix"].split(","))
    except ValueError as error:
        raise ConfigError(f"prefix of the service record: {error}") from None
    if len(found) > PREFIXES_MAX:
        raise ConfigError(f"the service record has {len(found)} prefixes, more than {PREFIXES_MAX}")
    return tuple(found)


def _number(fields: Mapping[str, str], name: str, default: int) -> int:
    text = fields.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise ConfigError(f"{name} must be a number in a service record, got {text!r}")
    return int(text)
