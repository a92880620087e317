#!/usr/bin/env python3
"""Plays a person at a terminal: dialog.py STEP... -- COMMAND... runs COMMAND on a pty and goes through the steps.

size ROWSxCOLUMNS  sets the size of the terminal; the first one before the command starts
send TEXT          types, with Python's escapes
want PATTERN       waits for output that matches, from where the last one ended
rest SECONDS       lets the command come to what shows nothing
kill SIGNAL        sends a number to the command
code NUMBER        waits for the end, and for this exit code (128+n after signal n)

Says on standard error what did not happen, and exits with 1 then. What it printed after the last match goes to standard output.
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

SECONDS_MAX = 20


def resize(fd, text):
    rows, columns = text.split("x")
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", int(rows), int(columns), 0, 0))


def main(steps, command):
    pid, master = pty.fork()
    if pid == 0:
        if steps[0][0] == "size":
            resize(0, steps[0][1])
        os.execvp(command[0], command)
    seen = bytearray()
    closed = False

    def read(seconds):
        nonlocal closed
        ready, _, _ = select.select([master], [], [], seconds) if not closed else ([], [], [])
        try:
            more = os.read(master, 4096) if ready else b""
        except OSError:  # EIO: the other side is closed
            closed, more = True, b""
        if closed:
            time.sleep(min(seconds, 0.02))
        seen.extend(more)

    def fail(what):
        os.kill(pid, 9)
        sys.exit(f"no {what} in {bytes(seen)!r}")

    for number, (step, text) in enumerate(steps):
        end = time.monotonic() + SECONDS_MAX
        if step == "size":
            if number > 0:
                resize(master, text)
        elif step == "send":
            os.write(master, text.encode().decode("unicode_escape").encode("latin-1"))
        elif step == "rest":
            time.sleep(float(text))
        elif step == "kill":
            os.kill(pid, int(text))
        elif step == "want":
            while not (found := re.search(text.encode(), seen)):
                if time.monotonic() > end:
                    fail(text)
                read(0.1)
            del seen[: found.end()]
        elif step == "code":
            while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
                if time.monotonic() > end:
                    fail("end")
                read(0.05)
            while not closed:
                read(0.1)
            code = os.waitstatus_to_exitcode(ended[1])
            code = 128 - code if code < 0 else code
            if code != int(text):
                sys.exit(f"exit code {code} and not {text}: {bytes(seen)!r}")
        else:
            sys.exit(f"no such step: {step}")
    sys.stdout.buffer.write(seen)


words = sys.argv[1:]
split = words.index("--")
main(list(zip(words[:split:2], words[1:split:2])), words[split + 1 :])
