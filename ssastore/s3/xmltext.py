"""Text of XML documents: elements and the one escape function. Standard library only.

XML 1.0 has no way at all to carry most control characters, yet a key may hold them.  AWS
writes ``&#x1;``, which no XML 1.0 parser accepts, so that one odd key makes a whole page
unreadable.  Here:

* with ``encoding-type=url``, which SDKs ask for by themselves, keys, prefixes and
  markers are percent-encoded and nothing is lost;
* without it a character that XML cannot carry becomes U+FFFD: the page stays readable,
  and the one key shows that it needs ``encoding-type=url``.  CR, which parsers would turn
  into LF, is written as a character reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

_NEEDS_ESCAPE = re.compile('[&<>"\r\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')
_SAFE = "/-._~"
_NEEDS_ENCODING = re.compile(f"[^A-Za-z0-9{re.escape(_SAFE)}]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;"}


def escape(text: str) -> str:
    """Text between tags."""
    if _NEEDS_ESCAPE.search(text) is None:
        return text
    return _NEEDS_ESCAPE.sub(lambda match: _ESCAPES.get(match.group(), "\ufffd"), text)


def element(name: str, value: str | int | None) -> str:
    """One element with text; nothing at all for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        value = "true" if value else "false"
    return f"<{name}>{escape(str(value))}</{name}>"


def document(root: str, *content: str) -> bytes:
    """A document of S3's namespace; ``content`` is written already."""
    body = "".join(content)
    return f'{_DECLARATION}<{root} xmlns="{_NAMESPACE}">{body}</{root}>'.encode()


def bare_document(root: str, *content: str) -> bytes:
    """One without a namespace, as S3's errors are."""
    return f"{_DECLARATION}<{root}>{''.join(content)}</{root}>".encode()


def written(texts: list[str], encoding_type: str | None) -> list[str]:
    """Many texts as elements have them: encoded, and escaped. One look mostly tells that all can stay."""
    if (_NEEDS_ENCODING if encoding_type else _NEEDS_ESCAPE).search("".join(texts)) is None:
        return texts
    encode = encoder(encoding_type)
    return [escape(encode(text)) for text in texts]


def encoder(encoding_type: str | None) -> Callable[[str], str]:
    """How keys are written: ``encoding_type`` is None or ``url``."""
    if encoding_type is None:
        return str
    return lambda text: quote(text, safe=_SAFE)


def iso8601(at_ms: int) -> str:
    """A time as S3 writes it into XML: UTC with milliseconds."""
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{_to_the_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=4096)
def _to_the_second(seconds: int) -> str:
    # A listing asks for a thousand times, of objects that were often written close together.
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
