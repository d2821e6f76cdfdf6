"""Certificates of a node's settings: whether they fit one another, and how long all of them are valid."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from ssastore.authority import Certificate, now_utc, read_certificates, read_issuer
from ssastore.config import NodeConfig, load_tls
from ssastore.doctor.findings import Finding, State, good
from ssastore.errors import ConfigError

_SOON = timedelta(days=30)
_AUTHORITY_SOON = timedelta(days=60)
"Longer: another one has to get to all hosts and clients before it signs."
_MEND = "ssastore tls issue DIR --name NAME, where the authority is; nodes read the files by themselves"
_MEND_AUTHORITY = (
    "ssastore tls init NEW_DIR --name NAME, then both ca.pem on all hosts: docs/how-to/tls.md, Renewal"
)


def look_at_certificates(config: NodeConfig) -> Finding:
    """What the node shows others."""
    if not config.tls_name:
        return good("tls", "off: who is on the wire can read, though not change who is who")
    try:
        load_tls(config)
        text, authorities = Path(config.tls_cert).read_bytes(), Path(config.tls_ca).read_bytes()
        own = read_certificates(text, config.tls_cert)
        issuer = read_issuer(text, authorities, config.tls_ca)
    except (ConfigError, OSError) as error:
        wanted = "tls_ca, tls_cert and tls_key that fit one another, the key for its owner and group alone"
        return Finding("tls", State.BAD, str(error), wanted, _MEND)
    found = judge_certificate(config.tls_name, own[0], now_utc())
    if found.state is State.OK and issuer is not None:
        return judge_authority(issuer, now_utc()) or found
    return found


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


def judge_authority(issuer: Certificate, now: datetime) -> Finding | None:
    """Of who signed: with it end all certificates that it signed. None: it is valid for a while."""
    if issuer.ends - now >= _AUTHORITY_SOON:
        return None
    found = f"the authority that signed it: until {issuer.ends:%Y-%m-%d %H:%M} UTC"
    state = State.BAD if issuer.ends <= now else State.WARN
    return Finding("tls", state, found, f"{_AUTHORITY_SOON.days} days or more", _MEND_AUTHORITY)
