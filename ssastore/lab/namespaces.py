"""Make, enter and join user and network namespaces, without root and without a trace.

No namespace gets a name and nothing is mounted: a namespace lives as long as a
process in it or a file descriptor of it, so a lab vanishes with its processes.

Two kernel rules shape this module. Only a process with one thread may enter a
user namespace, so a lab is entered before any event loop or thread starts. And
the network namespace belongs to the *thread*: a socket stays in the namespace
in which its thread was when it was made, whatever the thread enters later.
That is how a listening socket opened before ``enter_new_user_and_net`` goes on
serving the 127.0.0.1 of the host.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NoReturn, TypeVar

from ssastore.errors import NamespaceRefused

T = TypeVar("T")

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
"linux/sched.h and linux/mount.h."
PR_SET_PDEATHSIG = 1

_ANSWER_SIZE_BYTES = 8

# The thread's own namespace: /proc/self would show that of the first thread.
_OWN_NET = "/proc/thread-self/ns/net"

# os.unshare and os.setns exist from Python 3.12 on only.
_libc = ctypes.CDLL(None, use_errno=True)

# What distributions switch off, the value that means "off", and the remedy.
_CAUSES = (
    (
        "kernel.unprivileged_userns_clone",
        "0",
        "sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "user.max_user_namespaces",
        "0",
        "sysctl -w user.max_user_namespaces=15000",
    ),
    (
        "user.max_net_namespaces",
        "0",
        "sysctl -w user.max_net_namespaces=15000",
    ),
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, "
        "or an AppArmor profile with `userns,` for this Python",
    ),
)


def enter_new_user_and_net() -> None:
    """Move this process into a new user and network namespace, as root of both.

    Where user namespaces are refused and the process is root already, only the network
    namespace is new.  It is tried in a child first: after NamespaceRefused the caller is where
    it was and can go on without a lab.

    Raises:
        NamespaceRefused: the kernel forbids it, or the process has several threads.
    """
    _require_one_thread()
    _enter(_permitted_flags())


def enter_new_net() -> None:
    """The same without a user namespace, for what only root of the machine may do. Needs to be it.

    Raises:
        NamespaceRefused: the kernel forbids it, or the process has several threads.
    """
    _require_one_thread()
    _enter(CLONE_NEWNET)


def in_new_namespaces(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a forked child that is root of new namespaces; its result, or its exception.

    Result and exception come back by pickle. The caller does not move; its other threads do not
    exist in the child.

    Raises:
        NamespaceRefused: as ``enter_new_user_and_net``.
    """
    flags = _permitted_flags()

    def work() -> T:
        _enter(flags)
        return function(*args)

    return _in_child(work)


def new_net_namespace() -> int:
    """A file descriptor of a fresh network namespace, which lives until the descriptor is closed.

    Raises:
        NamespaceRefused: no privilege (enter a user namespace first), or too many namespaces.
    """
    with _keeping_network():
        try:
            _system_call("unshare", CLONE_NEWNET)
        except OSError as error:
            raise NamespaceRefused(_explain(error)) from error
        return os.open(_OWN_NET, os.O_RDONLY)


def enter_network(namespace: int) -> None:
    """Move the calling thread into a network namespace given by descriptor, for good."""
    try:
        _system_call("setns", namespace, CLONE_NEWNET)
    except OSError as error:
        raise NamespaceRefused(f"cannot enter the network namespace: {error.strerror}") from error


@contextmanager
def in_namespace(namespace: int) -> Iterator[None]:
    """The calling thread is in that network namespace inside the ``with`` block.

    Never await inside: whatever the event loop runs meanwhile would be there too.
    """
    with _keeping_network():
        enter_network(namespace)
        yield


def spawn_in(
    namespace: int, argv: Sequence[str], *, pass_fds: Sequence[int] = (), **options: Any
) -> subprocess.Popen[bytes]:
    """Start a command in a network namespace; it is killed when the calling thread ends.

    So call it from a thread that lives as long as the lab does.

    Args:
        namespace: descriptor of the network namespace.
        argv: command and arguments.
        pass_fds: descriptors that the command inherits.
        options: more arguments for ``subprocess.Popen``.
    """
    # A lab that was killed must not leave nodes behind, and nothing but the kernel can see to
    # that; there is no way to ask for it without preexec_fn.
    begin = partial(_begin_child, namespace)
    return subprocess.Popen(argv, pass_fds=pass_fds, preexec_fn=begin, **options)  # noqa: PLW1509


def join(pid: int, namespace: int | None = None) -> None:
    """Enter the user and network namespace of a running lab.

    Args:
        pid: a process of the lab, of the same user (or we are root).
        namespace: number of a descriptor *of that process* that holds the network namespace;
            None for the one the process is in.

    Raises:
        NamespaceRefused: the lab is gone, belongs to somebody else, or we have several threads.
    """
    held = "ns/net" if namespace is None else f"fd/{namespace}"
    join_paths(f"/proc/{pid}/ns/user", f"/proc/{pid}/{held}")


def use_name_server(address: str) -> None:
    """Let this process, and what becomes of it, ask another name server than the rest of the machine.

    By a file of its own in the place of resolv.conf: so any program does, and none need be told.  To be
    called after ``join``.

    Raises:
        NamespaceRefused: the kernel does not let us.
    """
    with NamedTemporaryFile("w", prefix="resolv-") as file:
        file.write(f"nameserver {address}\noptions timeout:1 attempts:3\n")
        file.flush()
        os.chmod(file.name, 0o644)
        try:
            _system_call("unshare", CLONE_NEWNS)
            _mount("/", flags=MS_REC | MS_PRIVATE)
            _mount("/etc/resolv.conf", source=os.path.realpath(file.name), flags=MS_BIND)
        except OSError as error:
            raise NamespaceRefused(f"cannot give a program its own resolv.conf: {error.strerror}") from error


def _mount(target: str, *, source: str = "none", flags: int) -> None:
    if _libc.mount(source.encode(), target.encode(), None, flags, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def join_paths(user_path: str, net_path: str) -> None:
    """As ``join``, with the two namespaces given by path."""
    _require_one_thread()
    try:
        # Both are opened before the first move, after which they might not be readable any more.
        with open(user_path, "rb") as user, open(net_path, "rb") as net:
            # A lab made by root where user namespaces are refused has none of its own, and the
            # kernel does not let a process enter the one it is in.
            if not os.path.samestat(os.fstat(user.fileno()), os.stat("/proc/self/ns/user")):
                _system_call("setns", user.fileno(), CLONE_NEWUSER)
            _system_call("setns", net.fileno(), CLONE_NEWNET)
        _become_root()
    except FileNotFoundError as error:
        raise NamespaceRefused(f"no running lab at {user_path}") from error
    except OSError as error:
        raise NamespaceRefused(f"cannot join the lab at {user_path}: {error.strerror}") from error


def _permitted_flags() -> int:
    """The namespaces that this process may make, found out in a child."""
    try:
        _in_child(partial(_enter, CLONE_NEWUSER | CLONE_NEWNET))
    except NamespaceRefused:
        if os.geteuid() != 0:
            raise
        _in_child(partial(_enter, CLONE_NEWNET))
        return CLONE_NEWNET
    return CLONE_NEWUSER | CLONE_NEWNET


def _enter(flags: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        _system_call("unshare", flags)
        if flags & CLONE_NEWUSER:
            # Without this a member of a group that is denied something could leave the group.
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise NamespaceRefused(_explain(error)) from error


def _become_root() -> None:
    """Take the identity that the lab's user namespace maps: root of the host is nobody there."""
    if os.geteuid() != 0:
        os.setgid(0)
        os.setuid(0)


def _require_one_thread() -> None:
    count = len(os.listdir("/proc/self/task"))
    if count > 1:
        raise NamespaceRefused(
            f"a process with {count} threads cannot enter a user namespace: do it before any starts"
        )


def _explain(error: OSError) -> str:
    found = [remedy for name, off, remedy in _CAUSES if _sysctl(name) == off]
    remedy = "; ".join(found) or (
        "probably a container's seccomp profile forbids it: run on the host, as root, "
        "or with --security-opt seccomp=unconfined"
    )
    return f"this user cannot make namespaces ({error.strerror}): {remedy}"


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


@contextmanager
def _keeping_network() -> Iterator[None]:
    """Bring the calling thread back to its network namespace at the end of the block."""
    home = os.open(_OWN_NET, os.O_RDONLY)
    try:
        yield
    finally:
        try:
            _system_call("setns", home, CLONE_NEWNET)
        finally:
            os.close(home)


def _begin_child(namespace: int) -> None:
    _system_call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _system_call("setns", namespace, CLONE_NEWNET)


def _system_call(name: str, *args: int) -> None:
    if getattr(_libc, name)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _in_child(function: Callable[[], T]) -> T:
    """Call a function in a forked child, which is killed if the caller is interrupted meanwhile."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer_and_exit(function, writer)
    try:
        os.close(writer)
        with open(reader, "rb") as pipe:
            # Not to the end of the pipe, which a process that the child has left behind may hold.
            answer = pipe.read(int.from_bytes(pipe.read(_ANSWER_SIZE_BYTES)))
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
    if not answer:
        raise ChildProcessError(f"the child ended without an answer: wait status {status}")
    # Written by our own child: no outside input reaches this pickle.
    result, failure = pickle.loads(answer)  # noqa: S301
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]


def _answer_and_exit(function: Callable[[], T], writer: int) -> NoReturn:
    """The child's whole life: it must never return into the caller's code."""
    try:
        answer = pickle.dumps((function(), None))
    except BaseException as error:
        error.add_note("in the child:\n" + "".join(traceback.format_tb(error.__traceback__)))
        answer = _pickled_failure(error)
    with open(writer, "wb") as pipe:
        pipe.write(len(answer).to_bytes(_ANSWER_SIZE_BYTES) + answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _pickled_failure(error: BaseException) -> bytes:
    try:
        answer = pickle.dumps((None, error))
        pickle.loads(answer)  # noqa: S301  # some exceptions pickle and then do not unpickle
    except Exception:
        return pickle.dumps((None, RuntimeError("".join(traceback.format_exception(error)))))
    return answer
