"""``console``: a link that logs in to the console once, and another admin token."""

from __future__ import annotations

import json

import click


@click.command("console")
@click.option(
    "--rotate", "is_rotating", is_flag=True, help="Make another admin token first: everybody is logged out."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.pass_obj
def console_command(context: str | None, is_rotating: bool, as_json: bool) -> int:
    """Print a link to the console, a page that shows the cluster; by the link one may also change it there.

    Run it on the gateway's machine, as somebody who can read the admin token: a line in the file that is
    named with the link. The link is good once, for ten minutes, and the login for 12 hours. To look takes no
    login on this machine. From another one use `ssh -L 7481:localhost:7481 HOST`, or put the host's name
    into the link; or type the token into the page.
    """
    from ssastore.console.token import make_token
    from ssastore.lab.context import find
    from ssastore.system import SystemRandomness

    found = find(context)
    if is_rotating:
        make_token(found.token_path, SystemRandomness(), like=found.secrets_file)
    url = found.login_url()
    if as_json:
        print(json.dumps({"url": url, "token_file": str(found.token_path)}))
    else:
        print(f"{url}\n  good once, for 10 minutes; the token is in {found.token_path}")
    return 0
