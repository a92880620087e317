"""What is measured of the life of containers, by the names that --only takes, and what it must reach."""

from comparing.figures import Bound, Row, at_most
from comparing.lives import AtOnce, Exec, Idle, KeepId, Listing, Start, Stop
from comparing.starts import BUBBLEWRAP, PODMAN
from comparing.systems import LAYERFS

PARALLEL, IDLE_COUNT = 32, 100
# Of a median that should be that of another row: what the machine itself varies by.
ABOUT = 1.15


class Group:
    """A case, how often it is measured, and how often for a glance: 0 for only when it is asked for by name."""

    def __init__(self, make, rounds, quick_rounds):
        self.make, self.rounds, self.quick_rounds = make, rounds, quick_rounds


def starts(_):
    def beside(row, _):
        other = row.median(BUBBLEWRAP)
        return None if other is None else 2 * other + 5

    known = Row("`true`, docker-archive", "ms", bounds=[at_most(10), Bound("<= 2 x bubblewrap + 5", beside)])
    return Start(known, Row("`true`, OCI layout", "ms", bounds=[at_most(10)]))


def execs(_):
    return Exec(Row("`exec` of `true`", "ms", bounds=[at_most(5)]))


def listings(quick):
    counts = {LAYERFS: 100, PODMAN: 10} if quick else {LAYERFS: 1000, PODMAN: 100}
    many = f"of {counts[LAYERFS]} containers (podman: {counts[PODMAN]})"
    titles = [f"`ps -a` {many}", "`ps -a` while what serves one is stopped", "`ps -a` while a start is stopped midway"]
    return Listing(counts, *(Row(title, "ms", bounds=[at_most(10)]) for title in titles))


def stops(_):
    after = Row("`stop`, from the end of the program", "ms", bounds=[at_most(10)])
    return Stop(after, Row("`stop`, all of it", "ms"))


def parallel(_):
    title = f"{PARALLEL} starts at once, 99th percentile"
    return AtOnce(PARALLEL, Row(title, "x alone", bounds=[at_most(15)]), Row(f"{title}, as time", "ms"))


def idle(quick):
    counts = {LAYERFS: 20, PODMAN: 5} if quick else {LAYERFS: IDLE_COUNT, PODMAN: 10}
    title = f"private memory of {IDLE_COUNT} idle containers"
    scaled = f"(measured: {counts[LAYERFS]}, podman: {counts[PODMAN]})"
    servers = Row(f"{title}, what serves them {scaled}", "MiB", bounds=[at_most(600)])
    return Idle(IDLE_COUNT, counts, servers, Row(f"{title}, their programs", "MiB"))


def keep_id(_):
    plain = Row("`true`, the large image", "ms")
    same = Bound("as without", lambda _, title: ABOUT * (plain.median(title) or 0))
    titles = [f"{plain.title}, the first `--userns=keep-id`", f"{plain.title}, `--userns=keep-id` again"]
    return KeepId(plain, *(Row(title, "ms", bounds=[same]) for title in titles))


GROUPS = {
    "start": Group(starts, 50, 7),
    "exec": Group(execs, 50, 7),
    "ps": Group(listings, 20, 3),
    "stop": Group(stops, 20, 3),
    "parallel": Group(parallel, 7, 1),
    "idle": Group(idle, 1, 1),
    "keep-id": Group(keep_id, 10, 0),
}
