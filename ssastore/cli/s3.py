"""``ssastore s3``: what S3 tools need to know."""

from __future__ import annotations

import json
import shlex

import click


@click.group("s3")
def s3_command() -> None:
    """Settings for S3 tools."""


@s3_command.command("env")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def env_command(context: str | None, as_json: bool) -> int:
    """Print AWS variables for the lab; paste them, or: eval "$(ssastore s3 env)"."""
    from ssastore.lab.context import find

    found = find(context)
    key, secret = found.access_key()
    where = f"https://localhost:{found.s3_port}" if found.is_https else f"http://127.0.0.1:{found.s3_port}"
    variables = {
        "AWS_ENDPOINT_URL": where,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": found.region,
    }
    if found.is_https and found.tls_ca:
        variables["AWS_CA_BUNDLE"] = found.tls_ca
    if as_json:
        print(json.dumps(variables))
    else:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
    return 0
