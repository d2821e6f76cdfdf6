"""TLS as settings say it."""

from __future__ import annotations

import os
import stat

from ssastore.config.gatewaysettings import GatewayConfig
from ssastore.config.nodesettings import NodeConfig
from ssastore.errors import ConfigError
from ssastore.transport.tls import Tls, TlsFiles


def load_tls(settings: NodeConfig | GatewayConfig) -> Tls | None:
    """TLS of the native protocol; None when it is off.

    Raises:
        ConfigError: a file is missing, wrong, or a key that others than its owner and group can read.
    """
    if not settings.tls_name:
        return None
    _check_private(settings.tls_key)
    return Tls(TlsFiles(settings.tls_ca, settings.tls_cert, settings.tls_key), settings.tls_name)


def load_s3_tls(settings: GatewayConfig) -> Tls | None:
    """TLS of the S3 interface; None when that is off. Raises ConfigError as ``load_tls``."""
    if not settings.s3_cert:
        return None
    _check_private(settings.s3_key)
    return Tls(TlsFiles(cert=settings.s3_cert, key=settings.s3_key))


def _check_private(path: str) -> None:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    # Its group may: keys of many systems are kept so, for a group that is made for them.
    if mode & 0o007:
        raise ConfigError(f"{path}: readable by others; run: chmod o= {path}")
