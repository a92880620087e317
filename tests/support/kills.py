"""Kills processes of the launcher at random moments, one a round, and looks at what is left.

    kills.py LAYERFS PLACE IMAGE KILLS SEED [FIRST]

PLACE is an empty directory for the store. A round is a container in some phase of its life (it starts, runs, ends, is
stopped, removed, ...), a pause of 0 to 40 ms, and SIGKILL for one of all the processes that there are by then: of the
starter, the supervisor, the first process, a command, pasta, a health check. Then within a second

- `ps -a` says what is true, and every command has ended that waits for nothing that is still there;
- whatever there is of the container can be started, or removed, and its name used again;
- after that nothing is left: no process (this one adopts all orphans), mount, control group, temporary file, volume.

The same seed makes the same choices; the moments are as exact as the machine is. FIRST begins at a later round.
LAYERFS_KILLS_MILLISECONDS is how long it may take until all is true, 1000 unless set.
"""

import ctypes
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

LAYERFS, PLACE, IMAGE = sys.argv[1:4]
KILLS, SEED = int(sys.argv[4]), int(sys.argv[5])
FIRST = int(sys.argv[6]) if len(sys.argv) > 6 else 0
LIMIT = float(os.environ.get("LAYERFS_KILLS_MILLISECONDS", "1000")) / 1000
STORE = os.path.join(PLACE, "store")
LOG = os.path.join(PLACE, "said")
# Of all containers that there were.
IDS = set()
PR_SET_CHILD_SUBREAPER = 36
# Enough to see what is wrong.
WRONG_MAX = 20
ENDED = ("exited", "created")
# What a container that has ended has in its directory; `.new-` and the like are nobody's.
RESTING = {
    "config.json", "state.json", "lock", "log", "mnt", "upper", "work", "unflushed", "stopped", "restarts",
    "ports.json", "health.json",
}
PROGRAM = "trap 'exit 7' TERM; while :; do sleep 0.02; done"
# A program that has no handler yet does not hear its signal.
STOP = ["--stop-timeout", "0"]

os.environ["LAYERFS_ROOT"] = STORE


class Wrong(Exception):
    pass


def processes():
    """All processes of this machine: number -> (parent, state, name)."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        found[int(entry)] = (int(fields[1]), fields[0], name)
    return found


class Commands:
    """Those that this round has started, and all that comes of them."""

    def __init__(self):
        self.started = {}
        self.ended = {}
        self.kept = []
        # Those that were seen below a starter: without it they are children of this process as it was.
        self.supervisors = set()

    def start(self, *words):
        with open(LOG, "ab") as log:
            child = subprocess.Popen([LAYERFS, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.started[child.pid] = words
        # Nobody else collects it, as those do that are forgotten.
        self.kept.append(child)
        return child.pid

    def reap(self):
        """Collects whoever has ended: children of ours, and orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.ended[pid] = os.waitstatus_to_exitcode(status)

    def wait(self, pid, seconds=20):
        end = time.monotonic() + seconds
        while pid not in self.ended:
            self.reap()
            if time.monotonic() > end:
                raise Wrong(f"{self.started[pid]} does not end")
            time.sleep(0.002)
        return self.ended[pid]

    def must(self, *words):
        """A command that has to succeed at once."""
        since = time.monotonic()
        code = self.wait(self.start(*words))
        took = time.monotonic() - since
        if code != 0:
            raise Wrong(f"{words}: exit code {code}")
        if took > 5 * LIMIT:
            raise Wrong(f"{words}: took {took:.1f} s")

    def family(self):
        """All that came of this process: number -> (role, state)."""
        self.reap()
        table = processes()
        roles = {}

        def role(pid):
            if pid in roles or pid not in table:
                return roles.get(pid)
            parent, _, name = table[pid]
            if pid in self.started:
                roles[pid] = "command " + self.started[pid][0]
            elif parent == os.getpid():
                is_starter = name.startswith("layerfs") and pid not in self.supervisors
                roles[pid] = "starter" if is_starter else "orphan"
            else:
                above = role(parent)
                roles[pid] = above and below(above, name)
                if above == "starter" and roles[pid] == "supervisor":
                    self.supervisors.add(pid)
            return roles[pid]

        return {pid: (role(pid), table[pid][1]) for pid in table if role(pid)}


def below(above, name):
    if name in ("pasta", "pasta.avx2", "slirp4netns", "newuidmap", "newgidmap"):
        return name
    if above in ("starter", "command run", "command start", "command restart"):
        return "supervisor"
    return {"supervisor": "first process", "command exec": "exec's middle", "exec's middle": "exec's program"}.get(
        above, "below " + above.removeprefix("below ")
    )


def is_held(entry):
    """Whether somebody has a container for himself."""
    try:
        with open(os.path.join(STORE, "containers", entry, "lock"), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def listed():
    """What `ps -a` says: name -> state."""
    since = time.monotonic()
    done = subprocess.run([LAYERFS, "ps", "-a", "--format", "json"], capture_output=True, text=True, check=False)
    took = time.monotonic() - since
    if done.returncode != 0 or done.stderr:
        raise Wrong(f"ps: {done}")
    if took > LIMIT:
        raise Wrong(f"ps took {took:.1f} s")
    found = json.loads(done.stdout)
    IDS.update(one["Id"] for one in found)
    return {one["Names"][0]: one["State"] for one in found}


class Round:
    def __init__(self, number):
        self.dice = random.Random(f"{SEED} {number}")
        self.number = number
        self.commands = Commands()
        self.name = f"box{number}"
        self.phase = ""
        self.victim = ""
        self.truth_after = 0.0
        self.is_to_go = False

    def chance(self, percent):
        return self.dice.randrange(100) < percent

    def options(self):
        options = ["--name", self.name, *STOP]
        if self.chance(40):
            options += ["-v", "/data"]
        if self.chance(25):
            options += ["--network", self.dice.choice(["private", "slirp4netns"])]
            if self.chance(50):
                options += ["-p", "80"]
        if self.chance(15):
            options += ["--init"]
        if self.chance(15):
            options += ["-t"]
        return options

    def run(self, *more, program=PROGRAM, rm=25):
        options = self.options()
        if self.chance(rm):
            options.append("--rm")
            self.is_to_go = True
        return ["run", *options, *more, IMAGE, "sh", "-c", program]

    def begin(self):
        """The phase in which somebody dies."""
        phases = [
            (6, self.starts),
            (2, self.starts_in_front),
            (1, self.is_created),
            (3, self.starts_again),
            (4, self.runs),
            (4, self.ends),
            (3, self.runs_again_and_again),
            (2, self.is_restarted),
            (3, self.is_entered),
            (2, self.is_attached_to),
            (3, self.is_stopped),
            (4, self.is_removed),
            (1, self.is_checked),
            (1, self.is_renamed),
        ]
        weights = [weight for weight, _ in phases]
        phase = self.dice.choices([phase for _, phase in phases], weights)[0]
        self.phase = phase.__name__
        phase()

    def starts(self):
        self.commands.start(*self.run("-d"))

    def starts_in_front(self):
        self.commands.start(*self.run())

    def is_created(self):
        words = self.run(rm=0)
        self.commands.start("create", *words[1:])

    def starts_again(self):
        words = self.run(rm=0)
        self.commands.must("create", *words[1:])
        self.commands.start("start", self.name)

    def runs(self):
        self.commands.must(*self.run("-d"))

    def ends(self):
        pause = self.dice.randrange(40) / 1000
        self.commands.must(*self.run("-d", program=f"sleep {pause}; exit 7"))

    def runs_again_and_again(self):
        policy = self.dice.choice(["always", "on-failure:3"])
        self.commands.must(*self.run("-d", "--restart", policy, program="exit 7", rm=0))
        time.sleep(self.dice.randrange(200) / 1000)

    def is_restarted(self):
        self.commands.must(*self.run("-d", rm=0))
        self.commands.start("restart", self.name)

    def is_entered(self):
        self.commands.must(*self.run("-d"))
        words = [["true"], ["sleep", "0.02"], ["sh", "-c", "sleep 1000 & sleep 1000"]]
        options = ["-d"] if self.chance(20) else []
        self.commands.start("exec", *options, self.name, *self.dice.choice(words))

    def is_attached_to(self):
        self.commands.must(*self.run("-d"))
        self.commands.start("attach", self.name)

    def is_stopped(self):
        self.commands.must(*self.run("-d"))
        self.commands.start("stop", self.name)

    def is_removed(self):
        force = self.chance(50)
        if force:
            self.commands.must(*self.run("-d"))
            self.commands.start("rm", "-f", "-v", self.name)
        else:
            words = self.run(rm=0)
            self.commands.must("create", *words[1:])
            self.commands.start("rm", "-v", self.name)

    def is_checked(self):
        self.commands.must(*self.run("-d", "--health-cmd", "sleep 0.01", "--health-interval", "20ms"))

    def is_renamed(self):
        self.commands.must(*self.run("-d"))
        self.commands.start("rename", self.name, self.name + "b")

    def kill(self):
        time.sleep(self.dice.randrange(40000) / 1e6)
        while True:
            family = self.commands.family()
            alive = sorted(pid for pid, (_, state) in family.items() if state not in "ZX")
            if not alive:
                self.victim = "nobody"
                return
            # Each role is as likely as any other, however many have it.
            role = self.dice.choice(sorted({family[pid][0] for pid in alive}))
            pid = self.dice.choice([pid for pid in alive if family[pid][0] == role])
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError:
                # newuidmap is root's.
                continue
            self.victim = role
            # Until it is dead it looks alive, and so does what ends with it.
            since = time.monotonic()
            while self.commands.family().get(pid, (role, "X"))[1] not in "ZX" and time.monotonic() - since < LIMIT:
                time.sleep(0.0005)
            return

    def wrong(self, states):
        """What is not as it should be, if anything."""
        family = self.commands.family()
        roles = Counter(role for role, state in family.values() if state not in "ZX")
        zombies = [role for role, state in family.values() if state in "ZX"]
        lives = [name for name, state in states.items() if state not in ENDED]
        pending = [words for pid, words in self.commands.started.items() if pid not in self.commands.ended]
        if not lives:
            if family:
                return f"nothing runs, but there are {family}"
            # Those that hide from their own user are not in the family.
            if any(map(is_held, os.listdir(os.path.join(STORE, "containers")))):
                return "nothing runs, but somebody holds a container"
            return None
        # One in the background has left the command that began it.
        in_front = any(words[0] == "run" and "-d" not in words for words in pending)
        has_starter = roles["starter"] or in_front
        if not has_starter:
            return f"{states} without a starter: {family}"
        if states[lives[0]] in ("running", "paused"):
            if not roles["supervisor"] or not roles["first process"]:
                return f"{states} without all processes: {family}"
        # What the container's own programs do not collect is theirs.
        if any(not role.startswith("below") for role in zombies):
            return f"zombies: {family}"
        waiting = ("run", "attach", "exec")
        if any(words[0] not in waiting for words in pending):
            return f"{pending} go on"
        if self.phase == "is_entered" and "exec" not in {words[0] for words in pending} and roles["exec's program"]:
            return f"what was executed goes on: {family}"
        return None

    def settle(self):
        """Waits until `ps -a` tells the truth, and gives what it says."""
        since = time.monotonic()
        while True:
            states = listed()
            # Once more, so that a state that has just changed does not count.
            wrong = self.wrong(states)
            if wrong is None and listed() == states:
                self.truth_after = time.monotonic() - since
                return states
            if time.monotonic() - since > LIMIT:
                raise Wrong(wrong or f"{states} changes all the time")
            time.sleep(0.002)

    def go_on(self, states):
        """It can be started, or removed, and its name used."""
        names = list(states)
        if len(names) > 1:
            raise Wrong(f"two containers: {states}")
        before = self.dice.choice(["", "sweep"])
        if before and not self.is_to_go:
            self.commands.must("run", "--rm", IMAGE, "true")
            self.check_resting()
        for name in names:
            if states[name] in ENDED:
                how = self.dice.choice(["start", "rm"])
                if how == "start" and not (before and self.is_to_go):
                    self.commands.must("start", name)
                    # One whose program ends at once may have ended.
                    if self.phase not in ("ends", "runs_again_and_again") and listed().get(name) != "running":
                        raise Wrong(f"started, but {listed()}")
                    self.commands.must("rm", "-f", "-v", "--ignore", name)
                else:
                    self.commands.must("rm", "-v", name)
            else:
                self.commands.must("rm", "-f", "-v", "--ignore", name)
        for name in {self.name, *names}:
            self.commands.must("run", "--rm", "--name", name, IMAGE, "true")

    def check_resting(self):
        """A container that has ended keeps nothing of the time when it ran."""
        containers = os.path.join(STORE, "containers")
        for name, state in listed().items():
            if state in ENDED:
                for entry in os.listdir(containers):
                    more = set(os.listdir(os.path.join(containers, entry))) - RESTING
                    if more:
                        raise Wrong(f"container {name} is at rest and has {more}")

    def nothing_left(self):
        since = time.monotonic()
        while family := self.commands.family():
            if time.monotonic() - since > LIMIT:
                raise Wrong(f"processes are left: {family}")
            time.sleep(0.002)
        if left := listed():
            raise Wrong(f"containers are left: {left}")
        containers = os.path.join(STORE, "containers")
        for entry in os.listdir(containers):
            # One that somebody is making just now must not be taken away; after a minute nobody is.
            if entry.startswith(".new-"):
                os.utime(os.path.join(containers, entry), (time.time() - 120, time.time() - 120))
                self.commands.must("run", "--rm", IMAGE, "true")
        for directory in ("containers", "names", "volumes"):
            left = set(os.listdir(os.path.join(STORE, directory))) - {".lock", ".ids-lock"}
            if left:
                raise Wrong(f"left in {directory}: {left}")
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            mounts = [line for line in table if PLACE in line]
        if mounts:
            raise Wrong(f"mounts are left: {mounts}")
        with open(LOG, encoding="utf-8", errors="replace") as log:
            text = log.read()
        if "panicked" in text:
            raise Wrong("somebody panicked")


def groups():
    """Control groups of containers that have been seen."""
    found = set()
    for root, directories, _ in os.walk("/sys/fs/cgroup"):
        found.update(os.path.join(root, name) for name in directories if any(one in name for one in IDS))
    return found


def play(number):
    one = Round(number)
    open(LOG, "wb").close()
    try:
        one.begin()
        one.kill()
        one.go_on(one.settle())
        one.nothing_left()
    except Wrong as wrong:
        with open(LOG, encoding="utf-8", errors="replace") as log:
            said = log.read()
        print(f"round {number}: {one.phase}, {one.victim} was killed: {wrong}\n{said}", flush=True)
        print(f"commands: {one.commands.started}\nended: {one.commands.ended}", flush=True)
        clear(one)
        return None
    return one


def clear(one):
    """So that the next round begins with nothing."""
    for pid, (_, state) in one.commands.family().items():
        if state not in "ZX":
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
    time.sleep(0.3)
    one.commands.reap()
    kept = os.path.join(PLACE, f"wrong-{one.number}")
    os.rename(STORE, kept)
    for group in groups():
        os.rmdir(group)
    warm_up()


def warm_up():
    """With an index nobody makes one in the middle of a round."""
    subprocess.run([LAYERFS, "run", "--rm", "-q", IMAGE, "true"], check=True)


def main():
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print(f"LAYERFS_TEST_SEED={SEED}", flush=True)
    warm_up()
    tally, failed, slowest = Counter(), 0, 0.0
    killed, number = 0, FIRST
    while killed < KILLS:
        one = play(number)
        number += 1
        if one is None:
            failed += 1
            killed += 1
            if failed >= WRONG_MAX:
                break
            continue
        slowest = max(slowest, one.truth_after)
        # Who has come too late plays again.
        if one.victim != "nobody":
            killed += 1
            tally[one.victim] += 1
            tally[one.phase] += 1
    for what, count in sorted(tally.items()):
        print(f"{count:6} {what}")
    if left := groups():
        print(f"control groups are left: {left}")
        failed += 1
    print(f"{killed} kills, {failed} wrong, the truth after at most {slowest * 1000:.0f} ms")
    return 1 if failed else 0


sys.exit(main())
