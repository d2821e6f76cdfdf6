"""``ssastore gateway``: what it is told; at work: tests/lab/test_wire_truth.py, tests/lab/test_front.py."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ssastore.cli import cli
from ssastore.errors import ConfigError
from tests.labs import free_port


@pytest.mark.parametrize(
    "words",
    [[], ["--config", "x.toml", "--listen", "localhost"], ["--config", "x.toml", "ssa://store.example"]],
)
def test_it_is_a_clusters_own_or_a_programs(words: list[str]) -> None:
    wrong = CliRunner().invoke(cli, ["gateway", *words])
    assert wrong.exit_code == 2 and "--config" in wrong.output


def test_beside_a_program_it_wants_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSASTORE_ACCESS_KEY", raising=False)
    words = ["gateway", "--listen", f"localhost:{free_port()}", "ssa://[2001:db8:5a:1::]"]
    wrong = CliRunner().invoke(cli, words)
    assert isinstance(wrong.exception, ConfigError) and "SSASTORE_ACCESS_KEY" in str(wrong.exception)


@pytest.mark.parametrize("listen", ["192.0.2.1:7482", "localhost:0", "localhost:x", ":80"])
def test_where_it_cannot_listen(listen: str) -> None:
    wrong = CliRunner().invoke(cli, ["gateway", "--listen", listen, "ssa://store.example"])
    assert isinstance(wrong.exception, ConfigError)
