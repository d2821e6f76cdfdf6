"""What a rule binds, and its text: ``source+choices:4+hop:30``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from ssastore.errors import ConfigError

CHOICES_MAX = 16
WORK_BITS_MAX = 20
"A client in Python finds such a nonce in some three seconds; each bit more doubles it."
HOP_S_MAX = 86_400
LOW_BITS_MAX = 59
"One bit below the plane digit is left free, so that a reserved identifier can be avoided."
TEXT_MAX = 100


class Binding(StrEnum):
    """What a part of an address follows."""

    RANDOM = "random"
    "Nothing: any value, drawn uniformly."
    CONTENT = "content"
    "The name of what is asked for (keyspace.py)."
    SOURCE = "source"
    "A hash of the client's /64 that everybody can compute."
    KEYED = "keyed"
    "The same with a secret of that /64: only its holder can compute it."
    MATCH = "match"
    "The 60 bits below the plane digit are the low 60 bits of the client's /64."
    LOW = "low"
    "The low n bits are those of the object's address; the others are random."
    INVERTED = "inverted"
    "The low n bits are those of the object's address, each inverted; the others are random."


HASHED = (Binding.SOURCE, Binding.KEYED)
_WHOLE = (Binding.MATCH, Binding.LOW, Binding.INVERTED)
"Bind the identifier as one, so they are the locator's and the tail's binding at once."


@dataclass(frozen=True, slots=True)
class Rule:
    """What the locator (28 bits below the plane digit) and the tail (32 bits) of an address follow.

    ``choices`` locators are allowed to each client where the locator is hashed.  With ``work_bits`` the
    tail is a nonce whose hash begins with so many zero bits.  ``hop_s`` is the length of an epoch in seconds,
    0 for rules that do not change with time.  ``low_bits`` belongs to LOW and INVERTED.

    Raises:
        ConfigError: the values do not go together.
    """

    locator: Binding
    tail: Binding
    choices: int = 1
    work_bits: int = 0
    hop_s: int = 0
    low_bits: int = 0

    def __post_init__(self) -> None:
        locator, tail = self.locator, self.tail
        if locator is not tail and (locator in _WHOLE or tail not in HASHED):
            raise ConfigError(
                f"no such rule: {locator}+{tail}; only source and keyed can follow another word"
            )
        _in_range("choices", self.choices, 1, CHOICES_MAX)
        _in_range("pow", self.work_bits, 0, WORK_BITS_MAX)
        _in_range("hop", self.hop_s, 0, HOP_S_MAX)
        if locator in (Binding.LOW, Binding.INVERTED):
            _in_range(str(locator), self.low_bits, 1, LOW_BITS_MAX)
        elif self.low_bits:
            raise ConfigError(f"{locator} takes no number")
        if self.choices > 1 and locator not in HASHED:
            raise ConfigError(f"choices needs a locator by source or keyed, not {locator}")
        if (self.hop_s or self.work_bits) and not self.is_hashed:
            raise ConfigError(f"hop and pow need something that is hashed: {locator} is not")
        if self.work_bits and tail not in HASHED:
            raise ConfigError(f"pow needs a tail by source or keyed, not {tail}")

    @property
    def is_hashed(self) -> bool:
        """Whether anything in the address follows the source, so that the network can judge it."""
        return self.locator in HASHED or self.tail in HASHED

    @property
    def needs_name(self) -> bool:
        """Whether the address depends on what is asked for."""
        return self.locator in (Binding.CONTENT, Binding.LOW, Binding.INVERTED)

    def epoch_at(self, unix_s: float) -> int:
        """The epoch of a time in seconds since 1970; 0 for a rule that does not hop."""
        return int(unix_s // self.hop_s) if self.hop_s else 0

    def epochs_allowed(self, epoch: int) -> tuple[int, ...]:
        """The epochs that a check accepts: clocks differ and packets take time, so the neighbours too."""
        if not self.hop_s:
            return (0,)
        return (epoch, epoch - 1, epoch + 1) if epoch else (epoch, epoch + 1)

    def with_limits(self, *, choices: int, work_bits: int, hop_s: int) -> Rule:
        """The rule with these added as far as they apply: a service record has them once."""
        if not self.is_hashed:
            return self
        choices = choices if self.locator in HASHED else 1
        if work_bits and self.tail not in HASHED:
            raise ConfigError(f"pow needs a tail by source or keyed, not {self.tail}")
        return replace(self, choices=choices, work_bits=work_bits, hop_s=hop_s)

    @property
    def words(self) -> str:
        """The rule's text without choices, pow and hop."""
        number = f":{self.low_bits}" if self.low_bits else ""
        return self.locator + number if self.locator is self.tail else f"{self.locator}+{self.tail}"

    def __str__(self) -> str:
        limits = (("choices", self.choices, 1), ("pow", self.work_bits, 0), ("hop", self.hop_s, 0))
        return self.words + "".join(f"+{name}:{value}" for name, value, default in limits if value != default)


def _in_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name} must be {least} to {most}, got {value}")


_LIMITS = {"choices": "choices", "pow": "work_bits", "hop": "hop_s"}


def rule_from_text(text: str) -> Rule:
    """Parse one or two words, then ``choices:N``, ``pow:BITS`` and ``hop:SECONDS`` in any order.

    ``pow`` and ``hop`` alone mean ``source`` with them.

    Raises:
        ConfigError: not such a text, or the parts do not go together.
    """
    if len(text) > TEXT_MAX:
        raise ConfigError(f"a rule has at most {TEXT_MAX} characters, got {len(text)}")
    words: list[Binding] = []
    limits: dict[str, int] = {}
    for part in text.strip().lower().split("+"):
        name, colon, digits = part.strip().partition(":")
        field = _LIMITS.get(name, "low_bits" if name in ("low", "inverted") else "")
        if field:
            if field in limits:
                raise ConfigError(f"{name} is given twice in rule {text!r}")
            limits[field] = _number(name, digits, text)
        elif colon:
            raise ConfigError(f"{name} takes no number in rule {text!r}")
        if name not in _LIMITS:
            words.append(_binding(name, text))
    if not words:
        words = [Binding.SOURCE]
    if len(words) > 2 or (len(words) == 2 and words[0] is words[1]):
        raise ConfigError(
            f"rule {text!r} has too many words: the first is for the locator, a second for the tail"
        )
    return Rule(words[0], words[-1], **limits)


def _binding(name: str, text: str) -> Binding:
    try:
        return Binding(name)
    except ValueError:
        known = ", ".join(Binding)
        raise ConfigError(
            f"no such word in rule {text!r}: {name!r}; known are {known}, choices, pow, hop"
        ) from None


def _number(name: str, digits: str, text: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 6):
        raise ConfigError(f"{name} needs a number in rule {text!r}, as {name}:4")
    return int(digits)
