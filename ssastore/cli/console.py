"""``console``: a link that logs in to the console once, and another admin token."""

from __future__ import annotations

import json

import click


@click.command("console")
@click.option(
    "--rotate", "is_rotating", is_flag=True, help="Another token first: whoever is logged in is not any more."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def console_command(context: str | None, is_rotating: bool, as_json: bool) -> int:
    """Print a link to the console that lets its reader act; it is good once, for ten minutes.

    To look needs no login on this machine. Elsewhere put the host's name into the link, or come by
    `ssh -L`; or log in with the token itself, a line in the file that is named.
    """
    from ssastore.console.token import make_token
    from ssastore.lab.context import find
    from ssastore.system import SystemRandomness

    found = find(context)
    if is_rotating:
        make_token(found.token_path, SystemRandomness())
    url = found.login_url()
    if as_json:
        print(json.dumps({"url": url, "token_file": str(found.token_path)}))
    else:
        print(f"{url}\n  good once, for 10 minutes; the token is in {found.token_path}")
    return 0
