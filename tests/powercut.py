"""Power cuts without a power switch: what a process wrote is recorded, then disks are made of it.

``record`` runs programs one after the other under strace and keeps all that they did to the files of one
folder.  ``Recording.image`` then makes the folder as a power cut at some moment could have left it: what was
durable by then is there; of everything else each write is dropped, kept, or kept in some of its 512-byte
sectors.

What counts as durable: a write to a file that was opened with O_DSYNC, or was submitted with RWF_DSYNC, when
it returns or is reaped; any other one when a sync of its file returns that began after it.  Sizes and names
of files are taken as durable at once (the store syncs its directory when it makes them).

What programs print on standard output is recorded at its place among the writes: acknowledgements.
Memory-mapped writes are not seen: LMDB's table of readers is left out, and ``writemap`` is off.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SECTOR_BYTES = 512

_CALLS = (
    "openat,close,write,writev,pwrite64,pwritev,lseek,ftruncate,fallocate,fsync,fdatasync,"
    "io_submit,io_getevents"
)
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
_TAIL = re.compile(r", (\d+)")
_RESULT = re.compile(r"\) += (-?\d+|\?)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


def can_record() -> bool:
    """Whether strace is there and may trace."""
    if not shutil.which("strace"):
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0


@dataclass(slots=True)
class Write:
    """One write to a file. Times are places in the recording."""

    file: str
    at: int
    data: bytes
    began: int
    ended: int | None = None
    durable: int | None = None


@dataclass(slots=True)
class Size:
    """A file was made (0) or got a size."""

    file: str
    size: int
    began: int


@dataclass(slots=True)
class Printed:
    """Bytes on standard output."""

    text: bytes
    began: int


@dataclass(slots=True)
class Recording:
    """What happened, in order."""

    events: list[Write | Size | Printed] = field(default_factory=list)
    length: int = 0
    "Moments: a cut is before one of them."

    def printed(self, before: int) -> bytes:
        """What was on standard output when the power went."""
        return b"".join(e.text for e in self.events if isinstance(e, Printed) and e.began < before)

    def image(
        self,
        folder: Path,
        cut: int,
        random: Random,
        *,
        is_lie: Callable[[str], bool] = lambda file: False,
    ) -> None:
        """Make ``folder`` as the cut could have left it; syncs of files with ``is_lie`` did nothing."""
        folder.mkdir()
        contents: dict[str, bytearray] = {}
        for event in self.events:
            if event.began >= cut or isinstance(event, Printed):
                continue
            content = contents.setdefault(event.file, bytearray())
            if isinstance(event, Size):
                del content[event.size :]
                content.extend(bytes(event.size - len(content)))
            elif event.durable is not None and event.durable < cut and not is_lie(event.file):
                _put(content, event.at, event.data)
            else:
                _put_some(content, event, random)
        for file, content in contents.items():
            (folder / file).write_bytes(content)


def _put(content: bytearray, at: int, data: bytes) -> None:
    content.extend(bytes(max(0, at + len(data) - len(content))))
    content[at : at + len(data)] = data


def _put_some(content: bytearray, write: Write, random: Random) -> None:
    """A write that nobody has waited for."""
    fate = random.randrange(3)
    if fate == 0:
        return
    if fate == 1:
        _put(content, write.at, write.data)
        return
    share = random.random()
    first = -(write.at % SECTOR_BYTES)
    for start in range(first, len(write.data), SECTOR_BYTES):
        if random.random() < share:
            piece = write.data[max(0, start) : start + SECTOR_BYTES]
            _put(content, write.at + max(0, start), piece)


def record(commands: Iterable[Sequence[str]], folder: Path, trace: Path) -> Recording:
    """Run ``commands`` and record what they do to the files directly in ``folder``.

    A command may end as it likes; what matters is what it did before.
    """
    recording = Recording()
    for command in commands:
        strace = ["strace", "-f", "-xx", "-s", str(1 << 26), "-e", f"trace={_CALLS}", "-o", str(trace)]
        done = subprocess.run([*strace, *command], capture_output=True)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        with trace.open() as lines:
            _Parser(recording, folder).parse(lines)
    trace.unlink()
    return recording


class _Parser:
    """One traced process, its threads included."""

    def __init__(self, recording: Recording, folder: Path) -> None:
        self._recording = recording
        self._folder = folder
        self._files: dict[int, tuple[str, bool]] = {}
        "By descriptor: name in the folder, whether writes to it are synchronous."
        self._positions: dict[int, int] = {}
        self._begun: dict[str, tuple[str, list[Write], int]] = {}
        "By thread: arguments, writes and place of the call that it is in."
        self._submitted: list[Write] = []

    def parse(self, lines: Iterable[str]) -> None:
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            thread, resumed, name, rest = found.groups()
            if resumed:
                arguments, writes, began = self._begun.pop(thread)
                self._end(resumed, arguments + rest, writes, began)
                continue
            arguments = rest.removesuffix(" <unfinished ...>")
            began = self._now()
            writes = self._begin(name, arguments, began)
            if arguments is rest:
                self._end(name, arguments, writes, began)
            else:
                self._begun[thread] = arguments, writes, began

    def _now(self) -> int:
        self._recording.length += 1
        return self._recording.length - 1

    def _begin(self, name: str, arguments: str, began: int) -> list[Write]:
        """The call has begun: its writes may reach the disk from now on."""
        writes: list[Write] = []
        if name == "io_submit":
            file, _ = self._files[int(_number(arguments, "aio_fildes="))]
            assert "RWF_DSYNC" in arguments
            writes = [Write(file, int(_number(arguments, "aio_offset=")), _data(arguments), began)]
            self._submitted += writes
        elif name in ("write", "writev", "pwrite64", "pwritev"):
            descriptor = int(arguments.split(",", 1)[0])
            if descriptor == 1:
                self._recording.events.append(Printed(_data(arguments), began))
            elif descriptor in self._files:
                at = self._positions.get(descriptor, 0)
                if name.startswith("p"):
                    at = int(_TAIL.findall(arguments, arguments.rindex('"'))[-1])
                writes = [Write(self._files[descriptor][0], at, _data(arguments), began)]
        self._recording.events += writes
        return writes

    def _end(self, name: str, arguments: str, writes: list[Write], began: int) -> None:
        found = _RESULT.search(arguments, arguments.rfind(")"))
        if found is None or found[1] == "?" or int(found[1]) < 0:
            return
        result, ended = int(found[1]), self._now()
        if name == "openat":
            self._opened(arguments, result, began)
        elif name == "io_getevents":
            for write in self._submitted:
                write.ended = write.durable = ended
            self._submitted.clear()
        elif name == "io_submit":
            pass
        elif writes:
            (write,) = writes
            descriptor = int(arguments.split(",", 1)[0])
            write.data = write.data[:result]
            write.ended = ended
            if self._files[descriptor][1]:
                write.durable = ended
            if not name.startswith("p"):
                self._positions[descriptor] = write.at + result
        else:
            self._other(name, arguments, result, began, ended)

    def _opened(self, arguments: str, descriptor: int, began: int) -> None:
        path = Path(_data(arguments).decode())
        if path.parent == self._folder and not path.name.startswith(("lock.", "ssastore.")):
            self._files[descriptor] = path.name, "O_DSYNC" in arguments or "O_SYNC" in arguments
            self._positions[descriptor] = 0
            if "O_CREAT" in arguments and not any(
                isinstance(event, Size) and event.file == path.name for event in self._recording.events
            ):
                self._recording.events.append(Size(path.name, 0, began))
        else:
            self._files.pop(descriptor, None)

    def _other(self, name: str, arguments: str, result: int, began: int, ended: int) -> None:
        fields = arguments.split(",")
        descriptor = int(re.match(r"\d+", fields[0])[0])  # type: ignore[index]
        if descriptor not in self._files:
            return
        file = self._files[descriptor][0]
        if name == "close":
            del self._files[descriptor]
        elif name == "lseek":
            self._positions[descriptor] = result
        elif name == "ftruncate":
            self._recording.events.append(Size(file, int(re.search(r"\d+", fields[1])[0]), ended))  # type: ignore[index]
        elif name == "fallocate":
            size = int(re.search(r"\d+", fields[3])[0])  # type: ignore[index]
            self._recording.events.append(Size(file, size, ended))
        elif name in ("fsync", "fdatasync"):
            for event in self._recording.events:
                if not isinstance(event, Write) or event.file != file or event.durable is not None:
                    continue
                if event.ended is not None and event.ended < began:
                    event.durable = ended


def _number(arguments: str, label: str) -> str:
    start = arguments.index(label) + len(label)
    return re.match(r"\d+", arguments[start:])[0]  # type: ignore[index]


def _data(arguments: str) -> bytes:
    """All strings of a call, joined."""
    pieces = []
    for text, cut in _STRING.findall(arguments):
        assert not cut, "strace has cut a string short"
        pieces.append(bytes.fromhex(text.replace("\\x", "")))
    return b"".join(pieces)
