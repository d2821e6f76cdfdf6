"""A machine: addresses, clocks, the process that runs on it, and the ways in which it fails.

kill        the process dies, the kernel closes its connections        (kill -9, a crash)
power_off   process and kernel are gone: peers hear nothing any more   (power cut, panic)
pause       the process stands still, the kernel goes on               (SIGSTOP, a stalled disk)
start       a new process, with nothing but what the old one had on disk
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from ssastore.env import spawn
from ssastore.keyspace import PrefixTable, Slice
from ssastore.sim.clock import HostClock
from ssastore.sim.process import Process
from ssastore.sim.seeds import Stream
from ssastore.sim.sockets import Socket

if TYPE_CHECKING:
    from ssastore.sim.network import Listener, Network

EPHEMERAL_PORT_FIRST = 32768

LOOPBACK = IPv6Address("::1")

Program = Callable[["Host"], Coroutine[Any, Any, Any]]


class Host:
    """One machine. Made by ``Network.host``.

    Args:
        program: what runs when the host is started: ``await program(host)``; none for a host that is
            only worked from outside, with ``spawn``.
    """

    def __init__(
        self, network: Network, name: str, address: IPv6Address, clock: HostClock, program: Program | None
    ) -> None:
        self.network = network
        self.name = name
        self.address = address
        self.clock = clock
        self.program = program
        self.is_up = False
        "Has power; without it the host answers nothing."
        self.is_paused = False
        self.on_down: list[Callable[[], None]] = []
        "Called when the process dies, for what it leaves behind: a store forgets what was not committed."
        self.listeners: list[Listener] = []
        self.sockets: dict[Socket, None] = {}
        self.starts = 0
        self._accepted: PrefixTable[bool] = PrefixTable()
        self._next_port = EPHEMERAL_PORT_FIRST
        self.process = self._new_process()

    def _new_process(self) -> Process:
        label = f"{self.name}.{self.starts}"
        process = Process(label, self.clock, self)
        self.network.loop.schedule.add(process)
        return process

    @property
    def is_running(self) -> bool:
        """Has power and a living process."""
        return self.is_up and not self.process.is_dead

    def randomness(self, purpose: str = "randomness") -> Stream:
        """For the process that runs now; never the same as that of an earlier one."""
        return Stream(self.network.seed, f"{self.process.name} {purpose}")

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> Any:
        """Start a task in the host's process, from outside."""
        return self.process.context.run(spawn, f"{self.name} {name}", work)

    # -- addresses ----------------------------------------------------------------------------------

    def accept(self, piece: Slice) -> None:
        """Answer for every address of a slice (AnyIP). Packets come only where routing sends them."""
        self._accepted[piece] = True

    @property
    def accepted(self) -> PrefixTable[bool]:
        """What ``accept_only`` would have to be told."""
        return self._accepted

    def accept_only(self, pieces: PrefixTable[bool]) -> None:
        """Answer for these slices and no others."""
        self._accepted = pieces.copy()

    def reject(self, piece: Slice) -> None:
        """Answer for no address of a slice any more; connections that are open stay."""
        self._accepted[piece] = False

    def forget_inside(self, piece: Slice) -> None:
        """Treat all of a slice alike again, as was said of it last."""
        for prefix, _ in list(self._accepted.items()):
            if prefix != piece and piece.covers(prefix):
                del self._accepted[prefix]

    def answers(self, address: IPv6Address) -> bool:
        """Whether the address is one of this host's."""
        iid = self.network.iid_of(address)
        if iid is None:
            return address in (self.address, LOOPBACK)
        return bool(self._accepted.lookup(iid))

    def free_port(self) -> int:
        """A port that was not used before."""
        self._next_port += 1
        return self._next_port - 1

    def forget(self, socket: Socket) -> None:
        """The kernel has no such connection any more."""
        self.sockets.pop(socket, None)

    # -- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Power on if need be, and run the program."""
        assert not self.starts or self.process.is_dead, f"{self.name} already runs"
        self.is_up = True
        if self.starts:
            self.process = self._new_process()
        self.starts += 1
        self._note("starts")
        if self.program is not None:
            self.spawn("program", self.program(self))

    def kill(self) -> None:
        """The process is gone; its connections are closed by the kernel."""
        self._note("is killed")
        self._end_process()
        for socket in list(self.sockets):
            socket.close()

    def power_off(self) -> None:
        """Everything is gone, and says nothing."""
        self._note("loses power")
        self.is_up = False
        self._end_process()
        for socket in list(self.sockets):
            socket.vanish()

    def _end_process(self) -> None:
        assert not self.process.is_dead, f"{self.name} does not run"
        self.is_paused = False
        self.network.loop.schedule.kill(self.process)
        self.listeners.clear()
        for clean_up in self.on_down:
            clean_up()

    def pause(self) -> None:
        """Let the process stand still; packets still arrive and connections are still made."""
        if not self.is_paused and self.is_running:
            self._note("pauses")
            self.is_paused = True
            self.network.loop.schedule.hold(self.process)

    def resume(self) -> None:
        """Undo ``pause``."""
        if self.is_paused:
            self._note("goes on")
            self.is_paused = False
            self.network.loop.schedule.release(self.process)

    def _note(self, what: str) -> None:
        self.network.loop.note(f"{self.name} {what}")
