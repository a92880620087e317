"""Runs a command and prints how many seconds it took, of each when several are to run at once: {} in it is the number
of each. With the id of a process it also prints how many of the seconds came after the end of that one.
"""

import argparse
import os
import select
import signal
import sys
import time

SILENT = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


def stop(number, _):
    sys.exit(f"ended by {signal.Signals(number).name}")


def spawn(command, number):
    arguments = [word.replace("{}", str(number)) for word in command]
    return time.monotonic(), os.posix_spawnp(arguments[0], arguments, os.environ, file_actions=SILENT)


def wait(begun):
    """Waits for all of them, in the order in which they end."""
    while begun:
        pid, status = os.wait()
        seconds = time.monotonic() - begun.pop(pid)
        if status != 0:
            sys.exit(f"exit code {os.waitstatus_to_exitcode(status)}")
        yield seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", metavar="COUNT", type=int, default=1)
    parser.add_argument("--seconds", metavar="MOST", type=int, required=True)
    parser.add_argument("--after", metavar="PID", type=int)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"{options.command[0]}: not done after {options.seconds} s"))
    signal.alarm(options.seconds)
    process = None if options.after is None else os.pidfd_open(options.after)
    begun = {}
    try:
        for number in range(options.at_once):
            moment, pid = spawn(options.command, number)
            begun[pid] = moment
        if process is not None:
            select.select([process], [], [])
            ended = time.monotonic()
        for seconds in wait(begun):
            print(seconds)
        if process is not None:
            print(time.monotonic() - ended)
    finally:
        for pid in begun:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
