"""One archive for a report of a fault: what it may hold, and what is masked in it.

Secrets are masked in two ways, as each alone would miss some: every value that a secrets file or the
environment holds, wherever it stands and in each spelling that is likely; and whatever looks like a secret,
by the name beside it.  Names of buckets and objects stay: they are what most faults are about.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MASK = "[masked]"
LOG_BYTES = 512 * 1024
"Of each log the end: a day and more of one in which nothing is wrong."

_SECRET_BYTES_MIN = 6
"Shorter values stand in too many places, and are too weak to be secrets."
_SECRET_NAME = re.compile(r"(?i)(secret|token|passw|credential|private|wrapping|signature)")
_NAMED = re.compile(
    r"""(?ix)
    (?P<name> (?:secret|token|passw(?:or)?d|credential|private_key|wrapping) [\w-]{0,64} ["']? \s* [=:] \s*)
    (?P<value> "(?:[^"\\\n]|\\.)*" | '[^'\n]*' | [^\s,;&}\]]+ )"""
)
"""A setting, a field of JSON, a variable: its value is masked, unless it names a file. What stands before the
word does not matter, and what stands behind it is bounded: else the time grows with the square of the longest
word in a log, and who may name an object may choose that."""
_PATTERNS = (
    re.compile(r"(?i)((?:X-Amz-)?Signature=)[^&\s\"',]+"),
    re.compile(r"(?i)(X-Amz-(?:Credential|Security-Token)=)[^&\s\"']+"),
    re.compile(r"(?i)(Authorization[\"']?\s*[:=]\s*[\"']?)[^\n\"']+"),
    re.compile(r"(://)[^/\s@:]+:[^/\s@]+(?=@)"),
    re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]*"),
)
_NAMES_A_FILE = re.compile(r"""["']?(?:[\w.-]*/[\w./-]*|[\w.-]+\.(?:json|toml|pem|key|crt))["']?""")


class Masks:
    """What must not leave this machine."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spelled = {word for secret in secrets for word in _spellings(secret)}
        # Long ones first: a part of a secret may be one, too.
        ordered = sorted(spelled, key=lambda word: (-len(word), word))
        self._values = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, text: str) -> str:
        """The same without secrets."""
        if self._values is not None:
            text = self._values.sub(MASK, text)
        text = _NAMED.sub(_masked_value, text)
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\g<1>{MASK}", text)
        return text


def _masked_value(found: re.Match[str]) -> str:
    value = found["value"]
    if "file" in found["name"].lower() and _NAMES_A_FILE.fullmatch(value):
        return found[0]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{found['name']}{quote}{MASK}{quote}"


def _spellings(secret: str) -> list[str]:
    """As it is, and as bytes of it or from it would be written; none of a short one."""
    if len(secret) < _SECRET_BYTES_MIN:
        return []
    found = [secret, json.dumps(secret)[1:-1]]
    raws = [secret.encode()]
    if re.fullmatch(r"([0-9A-Fa-f]{2})+", secret):
        raws.append(bytes.fromhex(secret))
    for raw in raws:
        found += [raw.hex(), raw.hex().upper(), repr(raw)[2:-1]]
        found += [
            base64.b64encode(raw).decode().rstrip("="),
            base64.urlsafe_b64encode(raw).decode().rstrip("="),
        ]
    return [word for word in found if len(word) >= _SECRET_BYTES_MIN]


def secrets_in(content: Any) -> Iterable[str]:
    """All texts of a decoded secrets file: names of keys are no secrets, everything else is taken for one."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            if name != "user":  # Of etcd; often the name of this very program.
                yield from secrets_in(value)
    elif isinstance(content, list):
        for value in content:
            yield from secrets_in(value)


def secrets_of(paths: Iterable[Path], environment: Mapping[str, str]) -> list[str]:
    """What is secret in these secrets files, and in variables whose names say so.

    Raises:
        OSError, ValueError: a file that is there cannot be read: then nobody knows what to mask.
    """
    found = [value for name, value in environment.items() if _SECRET_NAME.search(name)]
    for path in paths:
        found += secrets_in(json.loads(path.read_text()))
    return found


def tail(path: Path) -> str:
    """The end of a log, from the beginning of a line. Raises OSError."""
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read().decode(errors="replace")
    return text if size <= LOG_BYTES else text.partition("\n")[2]


def archive(folder: str, files: Mapping[str, str], masks: Masks, now_s: int) -> bytes:
    """A .tar.gz of texts below ``folder``, each without secrets; names too."""
    packed = io.BytesIO()
    # The time of the archive alone would make two of the same things differ.
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name, text in sorted(files.items()):
            content = masks.text(text).encode()
            entry = tarfile.TarInfo(f"{folder}/{masks.text(name)}")
            entry.size, entry.mtime, entry.mode = len(content), now_s, 0o600
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
