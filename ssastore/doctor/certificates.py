"""Certificates of a node's settings: whether they fit one another, and how long they are valid."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from ssastore.authority import Certificate, now_utc, read_certificates
from ssastore.config import NodeConfig, load_tls
from ssastore.doctor.findings import Finding, State, good
from ssastore.errors import ConfigError

_SOON = timedelta(days=30)
_MEND = "ssastore tls issue DIR --name NAME, where the authority is; nodes read the files by themselves"


def look_at_certificates(config: NodeConfig) -> Finding:
    """What the node shows others."""
    if not config.tls_name:
        return good("tls", "off: who is on the wire can read, though not change who is who")
    try:
        load_tls(config)
        own = read_certificates(Path(config.tls_cert).read_bytes(), config.tls_cert)
    except (ConfigError, OSError) as error:
        wanted = "tls_ca, tls_cert and tls_key that fit one another, the key for its owner alone"
        return Finding("tls", State.BAD, str(error), wanted, _MEND)
    return judge_certificate(config.tls_name, own[0], now_utc())


def judge_certificate(name: str, own: Certificate, now: datetime) -> Finding:
    """Of the service's name, valid now, and for a while."""
    found = f"{', '.join(own.names)}, until {own.ends:%Y-%m-%d %H:%M} UTC"
    if name not in own.names:
        return Finding("tls", State.BAD, found, f"a certificate of {name}, which everybody asks for", _MEND)
    if not own.begins <= now < own.ends:
        return Finding("tls", State.BAD, found, "a certificate that is valid now", _MEND)
    if own.ends - now < _SOON:
        return Finding("tls", State.WARN, found, f"{_SOON.days} days or more", _MEND)
    return good("tls", found)
