"""Namespaces: entered, made, joined and refused."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from ipaddress import IPv6Network
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from ssastore.errors import NamespaceRefused
from ssastore.lab import namespaces
from ssastore.lab.fabric import Fabric
from ssastore.lab.namespaces import (
    enter_new_user_and_net,
    in_namespace,
    join,
    join_paths,
    new_net_namespace,
    spawn_in,
)

pytestmark = pytest.mark.lab

SERVICE = IPv6Network("fd5a:0:0:1::/64")
PORT = 7480

Inside = Callable[..., Any]

forking = multiprocessing.get_context("fork")


def own_namespaces() -> tuple[str, str]:
    return os.readlink("/proc/thread-self/ns/user"), os.readlink("/proc/thread-self/ns/net")


def test_child_is_root_elsewhere_and_the_caller_stays(inside: Inside) -> None:
    before = own_namespaces()
    there, uid = inside(lambda: (own_namespaces(), os.geteuid()))
    assert uid == 0
    assert set(there).isdisjoint(before)
    assert own_namespaces() == before


def test_failure_in_the_child_comes_back_with_its_place(inside: Inside) -> None:
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost") as caught:
        inside(fail)
    assert "in fail" in caught.value.__notes__[0]


def test_failure_that_cannot_be_pickled_is_told_in_words(inside: Inside) -> None:
    class Local(Exception):
        pass

    def fail() -> None:
        raise Local("lost")

    with pytest.raises(RuntimeError, match="Local: lost"):
        inside(fail)


def test_child_that_dies_is_an_error(inside: Inside) -> None:
    with pytest.raises(ChildProcessError, match="without an answer"):
        inside(os._exit, 3)


def test_sockets_stay_where_they_were_made(inside: Inside) -> None:
    """A namespace from a descriptor is another network, and the thread comes back from it."""

    def work() -> None:
        here = own_namespaces()
        fd = new_net_namespace()
        assert own_namespaces() == here
        with in_namespace(fd):
            assert own_namespaces() != here
            elsewhere = socket.socket(socket.AF_INET6)
        assert own_namespaces() == here
        elsewhere.bind(("::", PORT))
        # The same port is free in every network.
        socket.socket(socket.AF_INET6).bind(("::", PORT))

    inside(work)


def test_thread_comes_back_after_a_failure(inside: Inside) -> None:
    def work() -> None:
        here = own_namespaces()
        with pytest.raises(KeyError), in_namespace(new_net_namespace()):
            raise KeyError
        assert own_namespaces() == here

    inside(work)


def test_spawned_command_is_in_the_namespace(inside: Inside) -> None:
    def work() -> str:
        fd = new_net_namespace()
        with spawn_in(fd, ["readlink", "/proc/self/ns/net"], stdout=subprocess.PIPE) as process:
            return f"net:[{os.fstat(fd).st_ino}] {process.communicate()[0].decode()}"

    wanted, found = inside(work).split()
    assert found == wanted


def test_spawned_command_dies_with_its_parent(inside: Inside) -> None:
    """The child holds the pipe's other end, so reading returns when it is gone."""
    reader, writer = os.pipe()

    def work() -> None:
        spawn_in(new_net_namespace(), ["sleep", "200"], pass_fds=[writer])

    inside(work)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_child_may_leave_processes_behind(inside: Inside) -> None:
    """One that holds copies of all its descriptors does not keep the caller waiting."""
    reader, writer = os.pipe()

    def work() -> str:
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        return "answer"

    assert inside(work) == "answer"
    os.close(writer)
    os.close(reader)


def ask(port: int, answers: Connection) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        answers.send(client.recv(9))


def test_listener_opened_before_entering_serves_the_host(inside: Inside) -> None:
    def serve() -> list[str]:
        client, _ = listener.accept()
        client.sendall(b"from here")
        return [name for _, name in socket.if_nameindex()]

    answers, theirs = forking.Pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = forking.Process(target=ask, args=(listener.getsockname()[1], theirs))
        client.start()
        assert inside(serve) == ["lo"]
        assert answers.recv() == b"from here"
        client.join()


# -- joining ----------------------------------------------------------------------------------------


def run_lab(reports: Connection) -> None:
    """A process that enters new namespaces, has a node there that answers, and says how to join."""
    enter_new_user_and_net()
    fabric = Fabric.build(SERVICE, ["n1", "client"])
    with in_namespace(fabric.namespace_fd("n1")):
        listener = socket.create_server(("::", PORT), family=socket.AF_INET6)
    reports.send((str(fabric.address_of("n1")), fabric.namespace_fd("client")))
    while True:
        client, _ = listener.accept()
        client.sendall(b"n1")
        client.close()


def visit_lab(reports: Connection, pid: int, namespace: int | None, address: str) -> None:
    join(pid, namespace)
    with socket.create_connection((address, PORT)) as client:
        reports.send((client.recv(2), client.getsockname()[0], os.geteuid()))


def visit_from_two_processes() -> None:
    """A lab in one process is joined by two others: on the host of the client and on the router."""
    reports, theirs = forking.Pipe()
    lab = forking.Process(target=run_lab, args=(theirs,))
    lab.start()
    try:
        assert reports.poll(30), "the lab said nothing"
        address, namespace = reports.recv()
        for number, source in ((namespace, "fd5a::12"), (None, "fd5a::1")):
            visitor = forking.Process(target=visit_lab, args=(theirs, lab.pid, number, address))
            visitor.start()
            assert reports.poll(30), "the visitor said nothing"
            assert reports.recv() == (b"n1", source, 0)
            visitor.join()
    finally:
        lab.kill()  # not SIGTERM: a handler that an event loop left behind would be inherited
        lab.join()


@pytest.mark.usefixtures("inside")
def test_second_process_joins_a_lab() -> None:
    visit_from_two_processes()


def test_lab_without_user_namespace_of_its_own_is_joined(inside: Inside) -> None:
    """As root where user namespaces are refused: lab and visitor are in the same one."""

    def work() -> None:
        forbid("user.max_user_namespaces")
        visit_from_two_processes()

    inside(work)


def test_joining_a_lab_that_is_gone_is_refused(inside: Inside) -> None:
    def work() -> None:
        process = subprocess.Popen(["true"])
        process.wait()
        with pytest.raises(NamespaceRefused, match="no running lab"):
            join(process.pid)

    inside(work)


def test_joining_what_is_no_namespace_is_refused(inside: Inside) -> None:
    def work() -> None:
        with pytest.raises(NamespaceRefused, match="cannot join"):
            join_paths("/proc/self/ns/user", "/proc/self/status")

    inside(work)


# -- refusals ---------------------------------------------------------------------------------------


def forbid(setting: str) -> None:
    """Take away a right from this user namespace and those inside it."""
    Path("/proc/sys", *setting.split(".")).write_text("0")


def test_root_does_without_a_user_namespace_where_it_is_refused(inside: Inside) -> None:
    def work() -> None:
        forbid("user.max_user_namespaces")
        user, net = own_namespaces()
        enter_new_user_and_net()
        assert own_namespaces()[0] == user
        assert own_namespaces()[1] != net
        Fabric.build(SERVICE, ["n1"])

    inside(work)


def test_refusal_names_cause_and_remedy_and_moves_nobody(inside: Inside) -> None:
    def work() -> None:
        forbid("user.max_user_namespaces")
        forbid("user.max_net_namespaces")
        before = own_namespaces()
        with pytest.raises(NamespaceRefused, match=r"No space.*sysctl -w user.max_net_namespaces=") as caught:
            enter_new_user_and_net()
        assert "sysctl -w user.max_user_namespaces=" in str(caught.value)
        with pytest.raises(NamespaceRefused, match=r"sysctl -w user.max_net_namespaces="):
            new_net_namespace()
        assert own_namespaces() == before

    inside(work)


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("kernel.unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "AppArmor profile"),
        ("kernel.unprivileged_userns_clone", "1", "seccomp"),
    ],
)
def test_cause_is_looked_up(monkeypatch: pytest.MonkeyPatch, setting: str, value: str, remedy: str) -> None:
    """Settings of distributions that the machine of the tests need not have."""
    monkeypatch.setattr(namespaces, "_sysctl", {setting: value}.get)
    assert remedy in namespaces._explain(PermissionError(1, "Operation not permitted"))


def test_process_with_threads_is_refused_before_anything_moves() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        for enter in (enter_new_user_and_net, lambda: join(os.getpid())):
            with pytest.raises(NamespaceRefused, match="threads cannot enter"):
                enter()
    finally:
        ended.set()
        thread.join()
