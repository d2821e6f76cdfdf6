"""The command line. Commands live in modules that are imported when they are used.

``ssastore --help`` prints in under 100 ms: nothing heavy is imported at the top of
this module, and a command's module only when that command runs.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

_COMMANDS = {
    "demo": ("demo", "A cluster on this machine, its console, and a guided tour."),
    "up": ("lab", "Start a cluster on this machine, without root."),
    "down": ("lab", "Stop a running lab."),
    "exec": ("lab", "Run a command on a host of the lab."),
    "ready": ("lab", "Wait until every worker of the lab answers."),
    "status": ("lab", "Nodes, prefixes and figures of the lab."),
    "df": ("df", "What is stored, what there is room for, and when it is full."),
    "top": ("top", "What every worker does at this moment."),
    "watch": ("top", "What happens to the cluster, a line each."),
    "metrics": ("top", "A dashboard and alert rules for monitoring."),
    "scrub": ("upkeep", "Read, compare and repair every copy."),
    "recover": ("recover", "Let a node rebuild slices whose state it lost."),
    "plan": ("plan", "Show what must move when nodes come, go or weigh something else."),
    "apply": ("apply", "Carry a plan out."),
    "moves": ("apply", "What is moving, and how far it is."),
    "pause": ("steer", "Let nothing move for a while."),
    "resume": ("steer", "Let slices move again."),
    "abort": ("apply", "Call off what is moving."),
    "split": ("apply", "Cut a group into parts that can move by themselves."),
    "merge": ("apply", "Merge the parts of a group again."),
    "replicas": ("replicas", "How many replicas there are, and more of them."),
    "renumber": ("renumber", "Another service /64 for the running cluster."),
    "sites": ("sites", "Prefixes at which the cluster answers, one for each site."),
    "workers": ("workers", "How many processes share a node, and another number of them."),
    "put": ("objects", "Store files or standard input."),
    "get": ("objects", "Read an object."),
    "ls": ("objects", "List buckets or objects."),
    "rm": ("objects", "Delete objects or an empty bucket."),
    "stat": ("objects", "Show what is known of an object."),
    "mb": ("objects", "Make a bucket."),
    "locate": ("objects", "Compute where a key lives."),
    "explain": ("objects", "Show step by step how a key is found."),
    "trace": ("trace", "Read or write one object, and tell step by step how that went."),
    "quota": ("quota", "How much a bucket may hold."),
    "dns": ("dns", "The name of a service in DNS: write it, check it, serve it."),
    "filter": ("filter", "Judge packets by the rule of their addresses, in the kernel."),
    "console": ("console", "A link that logs in to the console of a gateway."),
    "doctor": ("doctor", "What this host lacks, and the command that mends it."),
    "bundle": ("bundle", "One archive for a report of a fault, without secrets."),
    "rule": ("rule", "Rules for addresses: compute one, check one."),
    "bench": ("bench", "Measure a cluster under load."),
    "s3": ("s3", "Settings for S3 tools."),
    "key": ("key", "Access keys of S3 users, and a cluster's secrets file."),
    "init": ("hosts", "Make a cluster on several hosts; this is the first of them."),
    "config": ("config", "Settings of nodes and gateways: every key, their origins, their schema."),
    "tls": ("tls", "Certificates, by an authority of the cluster's own."),
    "node": ("daemons", "Run a storage node; add, kill, start, remove nodes of the lab."),
    "gateway": ("daemons", "Run an S3 gateway, a cluster's or a program's own."),
    "sidecar": ("sidecar", "A local port for programs that know nothing of rules."),
    "backup": ("backup", "Copy a control store or a node, to be kept elsewhere."),
    "control": ("rebuild", "Form a cluster on several hosts; make a lost control store anew."),
    "sim": ("sim", "Run the cluster on virtual time, under faults, and judge it."),
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"ssastore.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    if not is_wanted or ctx.resilient_parsing:
        return
    from ssastore import __version__
    from ssastore.form import form

    click.echo(f"ssastore {__version__} ({form()})")
    ctx.exit()


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version, and which form of the hot modules runs.",
)
@click.option(
    "--context",
    metavar="NAME",
    envvar="SSASTORE_CONTEXT",
    help="The lab to use; default: the newest. Or FILE.toml: the cluster of the gateway with these settings.",
)
@click.pass_context
def cli(ctx: click.Context, context: str | None) -> None:
    """An object store whose clients compute the IPv6 address of the node that holds an object.

    \b
    Start here:
      ssastore up                        a cluster of 4 nodes, here, without root
      ssastore put photos/cat.jpg FILE   store a file
      ssastore explain photos/cat.jpg    see how it is found
      eval "$(ssastore s3 env)"          and use aws, boto3, rclone

    \b
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 data directory,
    4 not found, 5 may work later, 130 interrupted; exec: the command's own, 126 and 127 as a shell.
    """
    ctx.obj = context


def exit_code(error: BaseException) -> int:
    """The documented exit code of an exception."""
    from ssastore import errors

    if isinstance(error, errors.NotFound):
        return 4
    if isinstance(error, errors.TryLater):
        return 5
    if isinstance(error, errors.DataDirError):
        return 3
    if isinstance(error, errors.ConfigError | errors.RequestError):
        return 2
    return 1


def _prepare_streams() -> None:
    """Make the three standard streams safe to have."""
    # A closed one's number would go to the next file or socket that is opened, and take its place.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        # A key may hold what the terminal's encoding cannot show; that is no reason to fail.
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _explain(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit."""
    from ssastore.errors import SsaStoreError

    _prepare_streams()
    if sys.flags.optimize:
        from ssastore.system import refuse_optimised

        refuse_optimised()
    try:
        code = cli.main(arguments, prog_name="ssastore", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        print("ssastore: interrupted", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SsaStoreError as error:
        print(f"ssastore: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        # The reader has gone (`ssastore ls | head`): nothing more to say. What is still buffered must not
        # fail a second time when Python flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except OSError as error:
        print(f"ssastore: {_explain(error)}", file=sys.stderr)
        sys.exit(1)
