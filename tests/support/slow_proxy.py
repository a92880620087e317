#!/usr/bin/env python3
"""A slow, distant line on this machine: passes TCP connections on to a port here.

    slow_proxy.py LISTEN_PORT TARGET_PORT [--mbit 100] [--delay-ms 20] [--count FILE] [--cut-file PATH]

All connections together share one line of that rate in each direction, and take turns on it; after a pause at most 64 KiB
go at once. Every byte arrives half of the delay later, so a round trip takes the delay longer, and so does the setting up
of a connection. What headers of TCP would take is not counted, and there is no slow start.

The port that it listens on is the first line that it prints; 0 chooses one. `--mbit 0` is a line without a limit. FILE has
the bytes that went over the line since the beginning, or since the last SIGUSR1:

    up BYTES down BYTES connections COUNT

up is to the target, down comes from there. It is written anew whenever that has changed, ten times a second at most.
While PATH exists there is no line: connections are cut, and new ones refused. Ends on SIGTERM and SIGINT.
"""

import argparse
import asyncio
import contextlib
import os
import selectors
import signal
import socket
import struct

HOST = "127.0.0.1"
# What a connection sends in its turn.
PIECE_BYTES = 16 << 10
BURST_BYTES = 64 << 10
# What may be on its way over one connection in one direction, as windows of receivers limit it.
UNDERWAY_BYTES_MAX = 4 << 20
# What the system keeps in addition, for those who read slowly.
SOCKET_BYTES = 256 << 10
# What it takes by itself to pass something on.
OWN_SECONDS = 0.0005
COUNT_SECONDS = 0.1
CUT_SECONDS = 0.02
# For SO_LINGER: what closes drops what is left, and says so.
RESET = struct.pack("ii", 1, 0)


class Way:
    """One direction of the line. Whoever wants to send gets the time after all that were there before."""

    def __init__(self, bits_per_second, seconds):
        self.byte_seconds = 8 / bits_per_second if bits_per_second else 0
        self.seconds = max(0, seconds - OWN_SECONDS)
        self.free = 0.0
        self.bytes = 0

    async def send(self, count):
        """Waits until so many bytes are on the line, and gives the moment at which they arrive."""
        now = asyncio.get_running_loop().time()
        self.free = max(self.free, now - BURST_BYTES * self.byte_seconds) + count * self.byte_seconds
        # Another one may move it on while this waits.
        sent = max(self.free, now)
        self.bytes += count
        if sent > now:
            await asyncio.sleep(sent - now)
        return sent + self.seconds


class Line:
    """Both directions, and all connections that are open."""

    def __init__(self, target, mbit, delay):
        self.target, self.delay = target, delay
        self.up, self.down = Way(mbit * 1e6, delay / 2), Way(mbit * 1e6, delay / 2)
        self.connections = 0
        self.open = set()

    def counted(self):
        return f"up {self.up.bytes} down {self.down.bytes} connections {self.connections}\n"

    def reset(self):
        self.up.bytes = self.down.bytes = self.connections = 0

    def accept(self, client):
        task = asyncio.get_running_loop().create_task(self.serve(client))
        self.open.add(task)
        task.add_done_callback(self.open.discard)

    async def cut(self):
        tasks = list(self.open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def serve(self, client):
        self.connections += 1
        loop = asyncio.get_running_loop()
        server = socket.socket()
        sockets = (client, server)
        try:
            for end in sockets:
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
            begun = loop.time()
            # Its first packet is on its way to the target.
            await asyncio.sleep(self.delay / 2)
            await loop.sock_connect(server, (HOST, self.target))
            answered = max(0, begun + self.delay - loop.time())
            await both(self.carry(client, server, self.up, answered), self.carry(server, client, self.down, 0))
        except OSError:
            reset(sockets)
        except asyncio.CancelledError:
            reset(sockets)
            raise
        finally:
            for end in sockets:
                end.close()

    async def carry(self, source, to, way, after):
        """All that comes from one end, to the other."""
        await asyncio.sleep(after)
        underway, room = asyncio.Queue(), asyncio.Semaphore(UNDERWAY_BYTES_MAX // PIECE_BYTES)
        await both(self.take(source, way, underway, room), self.deliver(to, underway, room))

    async def take(self, source, way, underway, room):
        loop = asyncio.get_running_loop()
        while True:
            await room.acquire()
            data = await loop.sock_recv(source, PIECE_BYTES)
            due = await way.send(len(data))
            underway.put_nowait((due, data))
            if not data:
                return

    async def deliver(self, to, underway, room):
        loop = asyncio.get_running_loop()
        while True:
            due, data = await underway.get()
            wait = due - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            if not data:
                to.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(to, data)
            room.release()


async def both(*parts):
    """Does all of them; when one fails, the others are given up."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def reset(sockets):
    """Their closing is told as an error, not as an end."""
    for end in sockets:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def bound(port):
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    end.bind((HOST, port))
    return end


class Door:
    """Where connections come in. The port stays ours while nobody listens."""

    def __init__(self, port, line):
        self.line = line
        self.keeper = bound(port)
        self.port = self.keeper.getsockname()[1]
        self.listener = None

    def open(self):
        if self.listener is None:
            self.listener = bound(self.port)
            self.listener.listen(128)
            self.listener.setblocking(False)
            asyncio.get_running_loop().add_reader(self.listener, self.enter)

    def enter(self):
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = self.listener.accept()
            self.line.accept(client)

    async def close(self):
        if self.listener is not None:
            asyncio.get_running_loop().remove_reader(self.listener)
            self.listener.close()
            self.listener = None
        await self.line.cut()


class Counter:
    """The file that says how much went over the line."""

    def __init__(self, line, path):
        self.line, self.path = line, path
        self.written = None

    def write(self):
        text = self.line.counted()
        if self.path is None or text == self.written:
            return
        new = f"{self.path}.new"
        with open(new, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(new, self.path)
        self.written = text

    def reset(self):
        self.line.reset()
        self.write()

    async def keep(self):
        while True:
            self.write()
            await asyncio.sleep(COUNT_SECONDS)


async def watch(door, path):
    """Opens and closes the door as the file says."""
    while True:
        if os.path.lexists(path):
            await door.close()
        else:
            door.open()
        await asyncio.sleep(CUT_SECONDS)


async def run(arguments):
    loop = asyncio.get_running_loop()
    line = Line(arguments.target_port, arguments.mbit, arguments.delay_ms / 1000)
    counter = Counter(line, arguments.count)
    door = Door(arguments.listen_port, line)
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    loop.add_signal_handler(signal.SIGUSR1, counter.reset)
    counter.write()
    tasks = [loop.create_task(counter.keep())]
    if arguments.cut_file is None:
        door.open()
    else:
        tasks.append(loop.create_task(watch(door, arguments.cut_file)))
    print(door.port, flush=True)
    # Whoever keeps time, or the file, may fail: then there is no sense in going on.
    await asyncio.wait([*tasks, loop.create_task(end.wait())], return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await door.close()
    counter.write()
    for task in failed:
        task.result()


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("listen_port", type=int)
    parser.add_argument("target_port", type=int)
    parser.add_argument("--mbit", type=float, default=100)
    parser.add_argument("--delay-ms", type=float, default=20)
    parser.add_argument("--count", metavar="FILE")
    parser.add_argument("--cut-file", metavar="PATH")
    return parser.parse_args()


def main():
    # epoll(7) waits for whole milliseconds, which would be an error of a tenth.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    try:
        loop.run_until_complete(run(parse()))
    finally:
        loop.close()


if __name__ == "__main__":
    main()
