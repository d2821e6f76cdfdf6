"""The service of the filter's measurements and its clients: ``serve``, ``ask`` (known good), ``knock`` (new).

A server of one thread that answers 1,000 bytes to 100. It keeps 4,000 connections: the oldest that has not
asked anything makes room, so that those who open connections and never use them cost it little.
"""

from __future__ import annotations

import gc
import json
import resource
import select
import socket
import struct
import sys
import time
from collections import OrderedDict

PORT = 7480
_ASKED, _ANSWER = b"a" * 100, b"b" * 1000
_CONNECTIONS_MAX = 4000
_ACCEPTED_AT_ONCE = 1
"Between two looks at those who are there already."
_RESET = struct.pack("ii", 1, 0)


def serve() -> None:
    """Answer until killed."""
    gc.disable()  # Its pauses are nothing of what is measured.
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    listening = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("::", PORT))
    listening.listen(4096)
    listening.setblocking(False)
    polling = select.epoll()
    polling.register(listening, select.EPOLLIN)
    silent: OrderedDict[int, socket.socket] = OrderedDict()
    at_work: dict[int, socket.socket] = {}
    print("serving", flush=True)
    while True:
        is_waiting = False
        for number, _ in polling.poll():
            if number == listening.fileno():
                is_waiting = True
            elif not _answered(number, silent, at_work):
                closed = silent.pop(number, None) or at_work.pop(number)
                closed.close()
        for _ in range(_ACCEPTED_AT_ONCE if is_waiting else 0):
            try:
                found, _ = listening.accept()
            except OSError:
                break
            found.setblocking(False)
            silent[found.fileno()] = found
            polling.register(found, select.EPOLLIN)
            if len(silent) > _CONNECTIONS_MAX:
                _, oldest = silent.popitem(last=False)
                oldest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                oldest.close()


def _answered(number: int, silent: dict[int, socket.socket], at_work: dict[int, socket.socket]) -> bool:
    asking = at_work.get(number) or silent[number]
    try:
        if not asking.recv(4096):
            return False
        asking.send(_ANSWER)
    except OSError:
        return False
    if silent.pop(number, None) is not None:
        at_work[number] = asking
    return True


def _connect(address: str, within_s: float) -> socket.socket:
    asking = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    asking.settimeout(within_s)
    asking.connect((address, PORT))
    asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return asking


def _turn(asking: socket.socket) -> None:
    asking.sendall(_ASKED)
    left = len(_ANSWER)
    while left:
        if not (piece := asking.recv(left)):
            raise ConnectionError
        left -= len(piece)


def ask(address: str, seconds: float) -> None:
    """Eight connections in turn, a question a millisecond; begins when a line is read."""
    gc.disable()
    connections = [_connect(address, 3.0) for _ in range(8)]
    for asking in connections:
        _turn(asking)
    print("ready", flush=True)
    sys.stdin.readline()
    took, failed, number = [], 0, 0
    begun = time.perf_counter()
    while (asked := time.perf_counter()) - begun < seconds:
        try:
            _turn(connections[number % len(connections)])
        except OSError:
            failed += 1
        took.append(time.perf_counter() - asked)
        number += 1
        time.sleep(max(0.0, begun + number / 1000 - time.perf_counter()))
    took.sort()
    print(
        json.dumps(
            {
                "count": len(took),
                "failed": failed,
                "p50_us": took[len(took) // 2] * 1e6,
                "p99_us": took[len(took) * 99 // 100] * 1e6,
                "p999_us": took[len(took) * 999 // 1000] * 1e6,
            }
        )
    )


def knock(address: str, seconds: float) -> None:
    """New connections with one question each, ten a second; how many are answered within a second."""
    sys.stdin.readline()
    tried = answered = 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        tried += 1
        try:
            with _connect(address, 0.9) as asking:
                _turn(asking)
                answered += 1
        except OSError:
            pass
        time.sleep(0.1)
    print(json.dumps({"tried": tried, "answered": answered}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["ask", where, how_long]:
            ask(where, float(how_long))
        case ["knock", where, how_long]:
            knock(where, float(how_long))
