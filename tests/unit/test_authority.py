"""An authority of a cluster's own, judged by OpenSSL, and what doctor says of certificates."""

from __future__ import annotations

import json
import ssl
import stat
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ssastore.authority import (
    CA_DAYS,
    Authority,
    new_key,
    now_utc,
    public_key,
    public_text,
    read_certificates,
)
from ssastore.cli import cli
from ssastore.config import NodeConfig
from ssastore.doctor.certificates import judge_certificate, look_at_certificates
from ssastore.doctor.findings import Finding, State
from ssastore.errors import ConfigError
from ssastore.transport.tls import TlsFiles
from tests.authorities import NAME, Signer


def ssastore(*arguments: str) -> object:
    return cli.main(list(arguments), standalone_mode=False)


def test_what_init_makes_is_a_pair_that_python_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "tls"
    assert ssastore("tls", "init", str(directory), "--name", NAME, "--also", "2001:db8::1") == 0
    assert f'tls_cert = "{directory}/service.pem"' in capsys.readouterr().out
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (own,) = read_certificates((directory / "service.pem").read_bytes(), "")
    assert own.names == (NAME, "2001:db8::1") and not own.is_authority
    assert timedelta(days=729) < own.ends - now_utc() < timedelta(days=731)
    context = ssl.create_default_context(cafile=directory / "ca.pem")
    context.load_cert_chain(directory / "service.pem", directory / "service.key")
    command = ["openssl", "verify", "-x509_strict", "-verify_hostname", NAME, "-purpose", "sslserver"]
    subprocess.run([*command, "-CAfile", directory / "ca.pem", directory / "service.pem"], check=True)
    before = (directory / "ca.pem").read_bytes(), (directory / "service.pem").read_bytes()
    assert ssastore("tls", "init", str(directory), "--name", NAME) == 0
    assert ((directory / "ca.pem").read_bytes(), (directory / "service.pem").read_bytes()) == before
    assert ssastore("tls", "issue", str(directory), "--name", NAME, "--days", "1") == 0
    assert (directory / "service.pem").read_bytes() != before[1]
    capsys.readouterr()
    assert ssastore("tls", "show", str(directory / "service.pem"), "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["names"] == [NAME]


def test_init_again_says_nothing_that_is_not_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "tls"
    assert ssastore("tls", "init", str(directory), "--name", NAME) == 0
    with pytest.raises(ConfigError, match=f"proves {NAME}; `ssastore tls issue`"):
        ssastore("tls", "init", str(directory), "--name", "other.example")
    # As after a crash between the authority and its first certificate.
    (directory / "service.pem").unlink()
    assert ssastore("tls", "init", str(directory), "--name", NAME) == 0
    assert (directory / "service.pem").exists()


def test_files_of_hosts_whose_names_have_dots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "tls"
    assert ssastore("tls", "init", str(directory), "--name", NAME) == 0
    for host in ("n1.a", "n1.b"):
        command = ["tls", "issue", str(directory), "--name", NAME, "--also", host, "--out"]
        assert ssastore(*command, str(tmp_path / host)) == 0
        assert capsys.readouterr().out.endswith(f"{host}.pem\n")
    for host in ("n1.a", "n1.b"):
        (own,) = read_certificates((tmp_path / f"{host}.pem").read_bytes(), "")
        assert own.names == (NAME, host) and (tmp_path / f"{host}.key").exists()


def test_another_directory_s_key_signs_nothing(tmp_path: Path) -> None:
    one, other = Signer(tmp_path / "one"), Signer(tmp_path / "other")
    (one.directory / "ca.key").write_bytes((other.directory / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match=r"not the key of ca\.pem"):
        Authority.load(one.directory)
    with pytest.raises(ConfigError, match="no authority is here"):
        Authority.load(tmp_path)
    (one.directory / "ca.key").write_text("something else")
    with pytest.raises(ConfigError, match="not the files of an authority"):
        Authority.load(one.directory)
    with pytest.raises(FileExistsError):
        Authority.make(one.directory, NAME, now_utc())


@pytest.mark.parametrize("names", [[], ["bücher.example"], ["a", ""]])
def test_what_cannot_be_certified(tmp_path: Path, names: list[str]) -> None:
    authority = Signer(tmp_path / "tls").authority
    with pytest.raises(ConfigError):
        authority.sign(new_key().public_key(), names, now_utc())


def test_public_keys_go_as_text(tmp_path: Path) -> None:
    key = new_key()
    assert public_key(public_text(key)) == key.public_key()
    rsa = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True).stdout
    public = subprocess.run(["openssl", "rsa", "-pubout"], input=rsa, check=True, capture_output=True).stdout
    for text in ("", "nothing", public.decode()):
        with pytest.raises(ConfigError):
            public_key(text)


def test_doctor_says_when_a_certificate_ends(tmp_path: Path) -> None:
    signer = Signer(tmp_path / "tls")
    files = signer.files("store.example", "2001:db8::1")
    (own,) = read_certificates(Path(files.cert).read_bytes(), files.cert)
    for name, days, state in (
        (NAME, 0, State.OK),
        (NAME, 701, State.WARN),
        (NAME, 731, State.BAD),
        (NAME, -1, State.BAD),
        ("other.example", 0, State.BAD),
    ):
        assert judge_certificate(name, own, now_utc() + timedelta(days=days)).state is state, days
    config = NodeConfig("n1", "/c", "/d", "/s")
    assert look_at_certificates(config).found.startswith("off")
    config = NodeConfig(
        "n1", "/c", "/d", "/s", tls_name=NAME, tls_ca=files.ca, tls_cert=files.cert, tls_key=files.key
    )
    assert look_at_certificates(config).state is State.OK
    Path(files.key).write_bytes(Path(signer.files(file="other").key).read_bytes())
    assert look_at_certificates(config).state is State.BAD


@pytest.mark.parametrize(
    ("days_left", "state"), [(61, State.OK), (59, State.WARN), (1, State.WARN), (-1, State.BAD)]
)
def test_doctor_says_when_the_authority_ends(tmp_path: Path, days_left: int, state: State) -> None:
    """With it ends every certificate that it signed, on all hosts at once."""
    signer, newer = Signer(tmp_path / "tls", age_days=CA_DAYS - days_left), Signer(tmp_path / "newer")

    def look(ca: str, files: TlsFiles) -> Finding:
        config = NodeConfig("n1", "/c", "/d", "/s", tls_name=NAME, tls_ca=ca)
        return look_at_certificates(replace(config, tls_cert=files.cert, tls_key=files.key))

    found = look(signer.ca, signer.files())
    assert found.state is state
    assert ("authority" in found.found) == (state is not State.OK)
    # While authorities are exchanged a file has both, of one name: who signed counts.
    both = tmp_path / "both.pem"
    both.write_text(newer.authority.text + signer.authority.text)
    assert look(str(both), signer.files()).state is state
    assert look(str(both), newer.files()).state is State.OK
