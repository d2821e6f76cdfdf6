"""The setting ``control``: every form, and one line for every mistake."""

from __future__ import annotations

import pytest

from ssastore.control.address import EtcdAddress, parse_control
from ssastore.errors import ConfigError


@pytest.mark.parametrize("path", ["/run/control.sock", "control.sock", "./etcd:/x"])
def test_path_is_the_embedded_store(path: str) -> None:
    assert parse_control(path) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("etcd://db1", EtcdAddress(("http://db1:2379",), "/ssastore/")),
        (
            "etcd://db1:1,db-2.example:2/",
            EtcdAddress(("http://db1:1", "http://db-2.example:2"), "/ssastore/"),
        ),
        ("etcd://[fd00::1]:2379/a/b/", EtcdAddress(("http://[fd00::1]:2379",), "/a/b/")),
        ("etcd://[::1]", EtcdAddress(("http://[::1]:2379",), "/ssastore/")),
        ("etcds://h?ca=/c", EtcdAddress(("https://h:2379",), "/ssastore/", ca="/c")),
        ("etcds://h/p?cert=/c&key=/k", EtcdAddress(("https://h:2379",), "/p/", cert="/c", key="/k")),
    ],
)
def test_url_is_etcd(text: str, expected: EtcdAddress) -> None:
    assert parse_control(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "path of a socket"),
        ("http://h:2379", "etcd://"),
        ("etcd://", "HOST:PORT"),
        ("etcd:///p", "HOST:PORT"),
        ("etcd://h:0", "HOST:PORT"),
        ("etcd://h:65536", "HOST:PORT"),
        ("etcd://h:1,", "HOST:PORT"),
        ("etcd://fd00::1:2379", "HOST:PORT"),
        ("etcd://a b", "HOST:PORT"),
        ("etcd://h,h:2379", "different"),
        ("etcd://" + ",".join(f"h{n}" for n in range(17)), "1 to 16"),
        ("etcd://h/a//b", "prefix"),
        ("etcd://h/ö", "prefix"),
        ("etcd://h/" + "a" * 129, "prefix"),
        ("etcds://h?verify=no", "'verify'"),
        ("etcds://h?ca=/c&ca=/d", "twice"),
        ("etcds://h?ca=", "'ca'"),
        ("etcd://h?ca=/c", "etcds"),
        ("etcds://h?key=/k", "belong together"),
    ],
)
def test_mistake_is_named(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_control(text)


def test_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="secrets file") as caught:
        parse_control("etcd://root:s3cr3t@h:2379/p")
    assert "s3cr3t" not in str(caught.value)
