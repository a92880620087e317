#!/usr/bin/env python3
"""Plays a person at a terminal: terminal.py COMMAND... runs it on a pty, and a shell in it through its paces.

Exits with the command's own exit code when all went as it should, else says on standard error what did not.
"""
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

SECONDS_MAX = 30


def main(command):
    pid, master = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    seen = bytearray()

    def want(pattern):
        end = time.monotonic() + SECONDS_MAX
        while not (found := re.search(pattern, seen)):
            ready, _, _ = select.select([master], [], [], max(0, end - time.monotonic()))
            try:
                more = os.read(master, 4096) if ready else b""
            except OSError:  # EIO: the other side is closed
                more = b""
            if not more:
                os.kill(pid, 9)
                sys.exit(f"no {pattern!r} in {bytes(seen)!r}")
            seen.extend(more)
        del seen[: found.end()]

    def send(text):
        os.write(master, text)

    # The words are split so that the echo of the input is not taken for the output.
    send(b"PS1='> '; echo st'art'ed\n")
    want(rb"started\r\n")
    send(b"test -t 0 && test -t 1 && test -t 2 && echo is-a'-t'ty\n")
    want(rb"is-a-tty")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    send(b"until test \"$(stty size)\" = '33 99'; do sleep 0.1; done; echo re'siz'ed\n")
    want(rb"resized")
    send(b"echo sl'eep'ing; sleep 100\n")
    want(rb"sleeping\r\n")
    time.sleep(2)
    send(b"\x03")
    send(b"echo inter'rupt'ed; sleep 100\n")
    want(rb"interrupted\r\n")
    time.sleep(2)
    send(b"\x1a")
    want(rb"Stopped")
    send(b"jobs; kill -9 %1; wait; echo all-g'on'e\n")
    want(rb"all-gone")
    send(b"exit 7\n")
    said = b""
    end = time.monotonic() + SECONDS_MAX
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            sys.exit(os.waitstatus_to_exitcode(status))
        ready, _, _ = select.select([master], [], [], 0.1)
        try:
            if ready:
                said += os.read(master, 4096)
        except OSError:
            time.sleep(0.05)
        # The shell may not have noticed yet that the stopped job is gone.
        if b"stopped jobs" in said:
            said = b""
            send(b"exit 7\n")
    os.kill(pid, 9)
    sys.exit(f"it did not end, but said {said!r}")


main(sys.argv[1:])
