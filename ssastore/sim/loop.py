"""The event loop of the simulation: asyncio on virtual time, with nothing of the real world.

What runs when is decided in ``schedule``; here is what asyncio's users call.

Sets of tasks (``TaskGroup`` cancels from one) would be walked in the order of memory
addresses; tasks made here hash by their serial number instead.  The coroutines of
dead processes are kept to the end of the run, so that no ``finally`` of theirs runs
at an unforeseeable moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from math import inf
from typing import Any, NoReturn, Protocol, TypeVar

from ssastore import env
from ssastore.core.replies import Refusal
from ssastore.errors import SsaStoreError
from ssastore.sim.clock import NS_PER_MS, NS_PER_S, HostClock
from ssastore.sim.process import PROCESS, Process
from ssastore.sim.schedule import Schedule
from ssastore.sim.seeds import Stream
from ssastore.sim.trace import Trace
from ssastore.sim.traps import Forbidden

T = TypeVar("T")

STEPS_MAX = 20_000_000
"Callbacks of one run; more means that something turns without end."

VIRTUAL_MS_MAX = 7 * 24 * 3600 * 1000

_FLUSH_STEPS = 4096

_FORESEEN = (SsaStoreError, Refusal, OSError)
"What a task may end with although nobody waits for it any longer."


class Quiescent(Exception):
    """Nothing is left to do and the main task is not done: everybody waits for something that never comes."""


class Runaway(Exception):
    """More callbacks or more virtual time than the run was allowed."""


class _Handle(asyncio.Handle):
    """asyncio's, and no more of it than is used: the loop makes one for every callback."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: Sequence[Any], context: Context) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled, self._callback, self._args = True, None, None  # type: ignore[assignment]


class _Timer(asyncio.TimerHandle):
    """The same for timers. When one is due the schedule knows."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: Sequence[Any], context: Context) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled, self._callback, self._args = True, None, None  # type: ignore[assignment]


class NetworkStack(Protocol):
    """What the loop needs of a network."""

    async def connect(
        self, factory: Callable[[], Any], host: str, port: int, local_addr: tuple[str, int] | None
    ) -> tuple[Any, Any]: ...

    async def listen(self, factory: Callable[[], Any], host: str | None, port: int) -> Any: ...


class VirtualTask(asyncio.Task[Any]):
    """A task whose place in a set depends on nothing but the run."""

    __slots__ = ("process", "serial")

    serial: int
    process: Process

    def __hash__(self) -> int:
        return self.serial

    def add_done_callback(self, callback: Any, /, *, context: Context | None = None) -> None:
        """As asyncio's, but for what ``env.spawn`` adds: here the loop keeps tasks, at no callback's cost."""
        if callback != env._running.discard:
            super().add_done_callback(callback, context=context)


class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio event loop on virtual time.

    Args:
        seed: decides every order that asyncio leaves open.
        steps_max, virtual_ms_max: bounds of the run; past them it raises Runaway.
    """

    def __init__(
        self, seed: int, *, steps_max: int = STEPS_MAX, virtual_ms_max: int = VIRTUAL_MS_MAX
    ) -> None:
        super().__init__()
        self.set_debug(False)
        self.schedule = Schedule(Stream(seed, "loop"))
        self.at = self.schedule.at
        "Let something happen to the world at an instant: (due in ns, function, arguments)."
        self.steps = 0
        self.trace = Trace()
        self.errors: list[BaseException] = []
        "What callbacks raised; production would log it and go on."
        self.network: NetworkStack | None = None
        self._steps_max = steps_max
        self._end_ns = virtual_ms_max * NS_PER_MS
        self._task_count = 0
        self._tasks: list[VirtualTask] = []
        self._tasks_swept_at = 1000
        self._is_retired = False
        self.world = Process("world", HostClock(self.schedule))
        self.schedule.add(self.world)

    @property
    def now_ns(self) -> int:
        """The world's time; ``time`` is what the process that asks believes."""
        return self.schedule.now_ns

    def note(self, what: str) -> None:
        """Put an event into trace and story."""
        self.trace.note(self.schedule.now_ns, what)

    # -- callbacks ----------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if context is None:
            process, context = PROCESS.get(), copy_context()
        else:
            process = context.get(PROCESS)
        process = process or self.world
        handle = _Handle(callback, args, context)
        if not process.is_dead and not self._is_retired:
            process.ready.append(handle)
            if not process.is_listed and not process.holds:
                process.is_listed = True
                self.schedule.runnable.append(process)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there are no other threads

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        process = (PROCESS.get() if context is None else context.get(PROCESS)) or self.world
        return self._timer(process, delay, callback, args, context)

    def _timer(
        self,
        process: Process,
        delay: float,
        callback: Callable[..., object],
        args: Sequence[Any],
        context: Context | None,
    ) -> asyncio.TimerHandle:
        timer = _Timer(callback, args, copy_context() if context is None else context)
        if not process.is_dead and not self._is_retired and delay != inf:
            # A wait for more than nothing takes some time: who waits in a loop must get on.
            span_ns = (round(delay * NS_PER_S) or 1) if delay > 0 else 0
            self.schedule.later(process.clock.world_span_ns(span_ns), process, timer)
        return timer

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        process = (PROCESS.get() if context is None else context.get(PROCESS)) or self.world
        return self._timer(process, when - self.time(), callback, args, context)

    def time(self) -> float:
        """The monotonic clock of the host whose process asks."""
        process = PROCESS.get() or self.world
        return process.clock.monotonic_ns() / NS_PER_S

    def create_task(
        self, coro: Any, *, name: object = None, context: Context | None = None, **more: Any
    ) -> Any:
        """As asyncio's; the task is kept until it is done, or to the end of the run."""
        self._task_count += 1
        process = (PROCESS.get() if context is None else context.get(PROCESS)) or self.world
        task = VirtualTask.__new__(VirtualTask)
        # Before it is made: asyncio puts it into a set at once.
        task.serial, task.process = self._task_count, process
        task.__init__(coro, loop=self, name=name, context=context, **more)  # type: ignore[misc]
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_swept_at:
            self.sweep()
            self._tasks_swept_at = 1000 + 2 * len(self._tasks)
        return task

    def sweep(self) -> None:
        """Forget tasks that are done. A bug that one died of is an error: if nobody waits, nobody hears."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task._log_traceback:
                error = task.exception()
                if error is not None and not isinstance(error, _FORESEEN):
                    self.errors.append(error)
                    self.note(f"{task.process} {task.get_name()} died: {type(error).__name__}: {error}")
        self._tasks = [task for task in self._tasks if not task.done()]

    # -- running ------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        """All turns until ``stop``; BaseEventLoop calls this in a loop."""
        schedule, steps = self.schedule, self.trace.steps
        runnable, choose = schedule.runnable, schedule.next
        while not self._stopping:  # type: ignore[attr-defined]
            if not runnable:
                if not schedule.advance():
                    raise Quiescent(self._who_waits())
                if schedule.now_ns > self._end_ns:
                    self._check_bounds()
                continue
            process, handle = choose()
            if handle._cancelled:
                continue
            self.steps += 1
            steps.append(schedule.now_ns << 16 | process.mark)
            try:
                handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler(
                    {"message": "a callback failed", "exception": error, "handle": handle}
                )
            process.steps_left -= 1
            if not process.steps_left:
                schedule.deschedule(process)
            if len(steps) >= _FLUSH_STEPS:
                self._check_bounds()

    def _check_bounds(self) -> None:
        if len(self.trace.steps) >= _FLUSH_STEPS:
            self.trace.flush()
        if self.steps > self._steps_max or self.now_ns > self._end_ns:
            raise Runaway(f"{self.steps} callbacks, {self.now_ns / NS_PER_S:.3f} virtual seconds")

    def _who_waits(self) -> str:
        waiting = [task for task in self._tasks if not task.done()]
        lines = [f"{task.process} {task.get_name()} at {_line_of(task.get_coro())}" for task in waiting]
        return "\n  ".join([f"at {self.now_ns / NS_PER_S:.6f} s; these tasks wait:", *lines])

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what a callback raised: the run is red. Reports of the garbage collector are left out."""
        error = context.get("exception")
        if error is not None and ("handle" in context or "transport" in context):
            self.errors.append(error)
            self.note(f"error {type(error).__name__}: {error}")

    def retire(self) -> None:
        """End: close the coroutines that still wait, without running anything else."""
        self._is_retired = True
        waiting: list[asyncio.Task[Any]] = [task for task in self._tasks if not task.done()]
        for task in waiting:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            try:
                coroutine: Any = task.get_coro()
                coroutine.close()
            except BaseException:  # noqa: S112  # what a coroutine thinks of its end interests nobody now
                continue
        self._tasks.clear()
        self.schedule.clear()
        self.close()

    # -- network ------------------------------------------------------------------------------------

    async def create_connection(
        self,
        protocol_factory: Callable[[], T],
        host: str | None = None,
        port: int | None = None,
        *,
        local_addr: tuple[str, int] | None = None,
        **options: Any,
    ) -> tuple[asyncio.Transport, T]:
        """As asyncio's, to an address written as digits."""
        if self.network is None or host is None or port is None or any(options.values()):
            raise Forbidden(f"create_connection to {host} {port} with {options} is not simulated")
        made: tuple[asyncio.Transport, T] = await self.network.connect(
            protocol_factory, host, port, local_addr
        )
        return made

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], Any],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: Any = None,
        ssl: Any = None,
        **options: Any,
    ) -> Any:
        """As asyncio's; ``sock`` only lends its address. Options of the socket are taken for granted."""
        if self.network is None or ssl is not None:
            raise Forbidden("create_server with TLS, or without a network, is not simulated")
        if sock is not None:
            host, port = sock.getsockname()[:2]
        return await self.network.listen(protocol_factory, host, port or 0)

    # -- what does not exist here -------------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        raise Forbidden(f"{func} on a thread: a simulated run has one")

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> NoReturn:
        raise Forbidden(f"resolving {host!r}: a simulated run knows addresses only")

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        raise Forbidden("signals reach no simulated process")


def _line_of(coroutine: Any) -> str:
    """Where the innermost coroutine of a task stands."""
    while getattr(coroutine.cr_await, "cr_frame", None) is not None:
        coroutine = coroutine.cr_await
    frame = coroutine.cr_frame
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
