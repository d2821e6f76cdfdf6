"""One TOML file becomes settings, or one line that says what is wrong and where."""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

from ssastore.config.files import read_small
from ssastore.errors import ConfigError

C = TypeVar("C")


def load(path: str, kind: type[C]) -> C:
    """Settings from a TOML file.

    Raises:
        ConfigError: unreadable, too large, not TOML, an unknown, missing or wrong setting; the
            message names file and line.
    """
    content = read_small(path)
    try:
        text = content.decode()
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8") from None
    except (ValueError, RecursionError) as error:
        mark = "begins with a byte order mark; " if text.startswith("\ufeff") else ""
        raise ConfigError(f"{path}: {mark}{error}") from None
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    types = get_type_hints(kind)
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{where(path, text, name)}: unknown setting {name!r}")
        if type(value) is not types[name]:
            wanted = types[name].__name__
            raise ConfigError(f"{where(path, text, name)}: {name} must be {wanted}, got {value!r}")
    missing = [name for name, field in known.items() if field.default is MISSING and name not in values]
    if missing:
        raise ConfigError(f"{path}: missing {', '.join(missing)}")
    settings: Any = kind(**values)
    try:
        settings.check()
    except ConfigError as error:
        name = str(error).split(" ", 1)[0].rstrip(":")
        raise ConfigError(f"{where(path, text, name)}: {error}") from None
    checked: C = settings
    return checked


def where(path: str, text: str, name: str) -> str:
    """``path:line`` of a setting, table or dotted key, as far as it can be found."""
    setting = re.compile(rf"[\s\[]*[\"']?{re.escape(name)}[\"']?\s*[=.\]]")
    for number, line in enumerate(text.splitlines(), 1):
        if setting.match(line):
            return f"{path}:{number}"
    return path
