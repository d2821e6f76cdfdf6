"""Faults as a process of the world: one after another at random times, each undone after a while.

What is undone: cuts are healed, paused hosts go on, hosts that died are started
again.  ``stop`` undoes all that is left, so a run can ask whether everybody recovers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ssastore.env import spawn
from ssastore.sim.clock import NS_PER_S
from ssastore.sim.control import ControlNetwork
from ssastore.sim.disk import Disk
from ssastore.sim.host import Host
from ssastore.sim.network import Network
from ssastore.sim.seeds import Stream
from ssastore.sim.swarm import Swarm

_RESET_DELAY_NS = 50_000_000
"The two ends of a broken connection hear of it up to this far apart, mostly."

_STALLED_COMMIT_MS = 700
_FAILED_COMMITS_MAX = 3


class Faults:
    """Makes the faults of a swarm happen to hosts.

    Args:
        hosts: that may be paused, killed and powered off; links to all hosts of the network may be cut.
        disks: that may fail. All records that rot are on one of them: what rots on several at once may be
            lost, and nobody can do anything about it.
        control: the way to the control store.
    """

    def __init__(
        self,
        network: Network,
        swarm: Swarm,
        hosts: list[Host],
        disks: list[Disk] | None = None,
        control: ControlNetwork | None = None,
    ) -> None:
        self.happened: dict[str, int] = {}
        "How often each kind did."
        self._network = network
        self._swarm = swarm
        self._hosts = hosts
        self._disks = disks or []
        self._control = control or ControlNetwork()
        self._draw = Stream(network.seed, "faults")
        self._rotting = self._draw.choice(self._disks) if self._disks else None
        self._undo: dict[int, Callable[[], None]] = {}
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._kinds: dict[str, Callable[[], Callable[[], None] | None]] = {
            "reset": self._reset,
            "cut": self._cut,
            "one_way": self._one_way,
            "isolate": self._isolate,
            "clog": self._one_way,
            "pause": self._pause,
            "kill": self._kill,
            "power_off": self._power_off,
            "jump": self._jump,
            "astray": self._astray,
            "disk_full": lambda: self._disk(Disk.fill),
            "disk_error": lambda: self._disk(
                lambda disk: disk.fail(1 + self._draw.below(_FAILED_COMMITS_MAX))
            ),
            "disk_stall": lambda: self._disk(
                lambda disk: disk.stall(1 + self._draw.below(_STALLED_COMMIT_MS))
            ),
            "rot": self._rot,
            "control": self._outage,
        }

    def start(self) -> None:
        """Begin."""
        if self._swarm.weights:
            self._task = spawn("faults", self._run())

    def stop(self) -> None:
        """No more faults, and the ones that last end now."""
        if self._task is not None:
            self._task.cancel()
        for number in list(self._undo):
            self._end(number)

    async def _run(self) -> None:
        kinds, weights = list(self._swarm.weights), list(self._swarm.weights.values())
        while self._count < self._swarm.faults_max:
            await asyncio.sleep(self._draw.span_ns(self._swarm.every_ns) / NS_PER_S)
            self.make(self._draw.choices(kinds, weights)[0])

    def make(self, kind: str) -> None:
        """Let one fault of this kind happen now; nothing happens when there is nothing to break."""
        loop = self._network.loop
        undo = self._kinds[kind]()
        self.happened[kind] = self.happened.get(kind, 0) + 1
        self._count += 1
        if undo is not None:
            mean_ns = self._swarm.lasting_ns // (10 if kind in ("clog", "disk_stall") else 1)
            self._undo[self._count] = undo
            loop.at(loop.now_ns + self._draw.span_ns(mean_ns), self._end, self._count)

    def _end(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    # -- kinds --------------------------------------------------------------------------------------

    def _any_host(self) -> Host:
        return self._draw.choice(self._hosts)

    def _reset(self) -> None:
        host = self._any_host()
        if host.sockets:
            index = self._draw.randrange(len(host.sockets))
            delays_ns = self._draw.span_ns(_RESET_DELAY_NS), self._draw.span_ns(_RESET_DELAY_NS)
            self._network.reset(host, index, delays_ns)

    def _pair(self) -> tuple[Host, Host]:
        one, other = self._draw.sample(list(self._network.hosts.values()), 2)
        return one, other

    def _cut(self) -> Callable[[], None]:
        one, other = self._pair()
        self._note(f"cut {one.name} {other.name}")
        return self._both(self._network.cut([one], [other]), self._network.cut([other], [one]))

    def _one_way(self) -> Callable[[], None]:
        one, other = self._pair()
        self._note(f"cut {one.name} to {other.name}")
        return self._network.cut([one], [other])

    def _isolate(self) -> Callable[[], None]:
        """A part of all hosts on one side, the others on the other."""
        hosts = list(self._network.hosts.values())
        part = self._draw.sample(hosts, self._draw.randint(1, len(hosts) - 1))
        rest = [host for host in hosts if host not in part]
        self._note(f"cut {','.join(host.name for host in part)} off")
        return self._both(self._network.cut(part, rest), self._network.cut(rest, part))

    @staticmethod
    def _both(heal: Callable[[], None], heal_back: Callable[[], None]) -> Callable[[], None]:
        def heal_both() -> None:
            heal()
            heal_back()

        return heal_both

    def _pause(self) -> Callable[[], None]:
        host = self._any_host()
        host.pause()
        return host.resume

    def _kill(self) -> Callable[[], None] | None:
        host = self._any_host()
        if not host.is_running:
            return None
        host.kill()
        return partial(_revive, host)

    def _power_off(self) -> Callable[[], None] | None:
        host = self._any_host()
        if not host.is_running:
            return None
        host.power_off()
        return partial(_revive, host)

    def _jump(self) -> None:
        host = self._any_host()
        to_ms = self._draw.randint(-self._swarm.jump_ms, self._swarm.jump_ms)
        self._note(f"clock of {host.name} is set to {to_ms} ms beside the truth")
        host.clock.set_offset(to_ms)

    def _astray(self) -> Callable[[], None]:
        one, other = self._pair()
        self._note(f"{one.name} has no route to {other.name}")
        return self._network.routing.lose(one.name, other.name)

    def _disk(self, harm: Callable[[Disk], None]) -> Callable[[], None] | None:
        if not self._disks:
            return None
        at = self._draw.randrange(len(self._disks))
        self._note(f"disk {at} fails")
        harm(self._disks[at])
        return self._disks[at].heal

    def _rot(self) -> None:
        if self._rotting is not None:
            key = self._rotting.rot()
            self._note(f"rot of {key.hex() if key else 'nothing'}")

    def _outage(self) -> Callable[[], None]:
        self._note("the control store is away")
        self._control.is_down = True

        def end() -> None:
            self._control.is_down = False

        return end

    def _note(self, what: str) -> None:
        self._network.loop.note(what)


def _revive(host: Host) -> None:
    if not host.is_running:  # A scenario may have started it.
        host.start()
