//! The processes of a running container (`layerfs top`), as the host's `/proc` shows them. Nothing of the container is asked but
//! the names of its users.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{OFlags, ResolveFlags};

use super::inside::Inside;
use super::{ContainerError, Containers, State, view};
use crate::model::DeviceId;
use crate::sys::scoped;

/// `USER_HZ`, which is the same on all machines that this is for (time(7)).
const TICKS_PER_SECOND: u64 = 100;
/// Bytes of a passwd or group file that are read. Real ones have some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a page, in which memory is counted (proc_pid_stat(5)).
const PAGE_KIB: u64 = 4;
/// The driver of pseudo-terminals has these major numbers (Documentation/admin-guide/devices.txt).
const PTS_MAJORS: std::ops::Range<u32> = 136..144;

/// What is shown of each process.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    words: &'static [&'static str],
    heading: &'static str,
    cell: fn(&Process) -> String,
}

/// Podman's, those that can be told from outside.
const COLUMNS: [Column; 18] = [
    Column { words: &["args"], heading: "COMMAND", cell: |one| one.args.clone() },
    Column { words: &["comm"], heading: "COMMAND", cell: |one| one.comm.clone() },
    Column { words: &["etime", "elapsed"], heading: "ELAPSED", cell: |one| duration(one.elapsed) },
    Column { words: &["group", "rgroup"], heading: "GROUP", cell: |one| one.group.clone() },
    Column { words: &["hgroup"], heading: "HGROUP", cell: |one| one.host_gid.to_string() },
    Column { words: &["hpid"], heading: "HPID", cell: |one| one.host_pid.to_string() },
    Column { words: &["huser"], heading: "HUSER", cell: |one| one.host_uid.to_string() },
    Column { words: &["nice"], heading: "NI", cell: |one| one.nice.to_string() },
    Column { words: &["pcpu", "%cpu"], heading: "%CPU", cell: share },
    Column { words: &["pgid"], heading: "PGID", cell: |one| one.pgid.to_string() },
    Column { words: &["pid"], heading: "PID", cell: |one| one.pid.to_string() },
    Column { words: &["ppid"], heading: "PPID", cell: |one| one.ppid.to_string() },
    Column { words: &["rss"], heading: "RSS", cell: |one| one.rss_kib.to_string() },
    Column { words: &["state"], heading: "STATE", cell: |one| one.state.clone() },
    Column { words: &["time"], heading: "TIME", cell: |one| duration(one.time) },
    Column { words: &["tty"], heading: "TTY", cell: |one| terminal(one.tty) },
    Column { words: &["user", "ruser"], heading: "USER", cell: |one| one.user.clone() },
    Column { words: &["vsz"], heading: "VSZ", cell: |one| one.vsz_kib.to_string() },
];
const DEFAULT: [&str; 8] = ["user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args"];

/// A word that is no column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown descriptor {word:?}: there are {}", known().join(", "))]
pub struct UnknownColumn {
    word: String,
}

/// One process. Times are in ticks.
#[derive(Clone, Debug, Default)]
struct Process {
    host_pid: u32,
    host_uid: u32,
    host_gid: u32,
    user: String,
    group: String,
    pid: u32,
    ppid: u32,
    host_ppid: u32,
    pgid: u32,
    state: String,
    tty: u32,
    time: u64,
    elapsed: u64,
    nice: i32,
    vsz_kib: u64,
    rss_kib: u64,
    comm: String,
    args: String,
}

fn known() -> Vec<&'static str> {
    COLUMNS.iter().flat_map(|column| column.words).copied().collect()
}

/// The columns that were asked for, by words between spaces or commas; podman's default for none.
///
/// # Errors
/// [`UnknownColumn`]
pub fn columns(words: &[String]) -> Result<Vec<Column>, UnknownColumn> {
    let asked: Vec<&str> =
        words.iter().flat_map(|words| words.split([',', ' '])).filter(|word| !word.is_empty()).collect();
    let asked = if asked.is_empty() { DEFAULT.to_vec() } else { asked };
    let find = |word: &str| {
        let is_it = |column: &&Column| column.words.iter().any(|known| known.eq_ignore_ascii_case(word));
        COLUMNS.iter().find(is_it).copied().ok_or_else(|| UnknownColumn { word: word.to_owned() })
    };
    asked.into_iter().map(find).collect()
}

/// The table of the processes of a running container.
///
/// The calling process must have one thread.
///
/// # Errors
/// [`ContainerError::NotRunning`]
pub fn table(containers: &Containers, text: &str, columns: &[Column]) -> Result<String, ContainerError> {
    let container = containers.find(text)?;
    let status = container.settled_status()?;
    let not_running =
        || ContainerError::NotRunning { id: container.id(), name: container.config().name.clone() };
    let State::Running { process, .. } = status.state else { return Err(not_running()) };
    let failed = || ContainerError::io("look at the processes of", container.dir());
    let entrance = process.entrance().map_err(failed())?.filter(|_| status.held);
    let (entrance, watched) = entrance.ok_or_else(not_running)?;
    let mut found = all(process.pid, entrance).map_err(failed())?;
    if found.is_empty() {
        return Err(not_running());
    }
    let names = match names(Inside::Running(entrance, watched)) {
        Ok(names) => names,
        Err(error) => {
            tracing::debug!(%error, "the container's users have no names");
            <[HashMap<u32, String>; 2]>::default()
        }
    };
    let [uids, gids] = ["uid_map", "gid_map"]
        .map(|map| fs::read_to_string(format!("/proc/{}/{map}", process.pid)).unwrap_or_default());
    for one in &mut found {
        let named = |map: &str, host: u32, names: &HashMap<u32, String>| match inner_id(map, host) {
            None => "?".to_owned(),
            Some(id) => names.get(&id).cloned().unwrap_or_else(|| id.to_string()),
        };
        one.user = named(&uids, one.host_uid, &names[0]);
        one.group = named(&gids, one.host_gid, &names[1]);
    }
    Ok(view::aligned(&lines(&found, columns)))
}

fn lines(found: &[Process], columns: &[Column]) -> Vec<Vec<String>> {
    let headings = columns.iter().map(|column| column.heading.to_owned()).collect();
    let cells = |one: &Process| columns.iter().map(|column| view::harmless(&(column.cell)(one))).collect();
    std::iter::once(headings).chain(found.iter().map(cells)).collect()
}

/// All processes in the pid namespace of `first`, which is that of `entrance`, by their numbers in it. Those that we may not
/// look at are none of its programs: what a container executes belongs to its user namespace, whose owner, or root, we are.
fn all(first: u32, entrance: u32) -> io::Result<Vec<Process>> {
    let namespace = |pid: u32| fs::metadata(format!("/proc/{pid}/ns/pid")).map(|one| (one.dev(), one.ino()));
    let of_container = namespace(entrance)?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime = uptime.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or_default();
    let uptime = std::time::Duration::try_from_secs_f64(uptime).unwrap_or_default();
    let now = uptime.as_secs() * TICKS_PER_SECOND + u64::from(uptime.subsec_millis()) / 10;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Into a first process of ours nobody may look.
        if pid == first || namespace(pid).is_ok_and(|other| other == of_container) {
            // It may end at any moment.
            found.extend(process(pid, now));
        }
    }
    let numbers: HashMap<u32, u32> = found.iter().map(|one| (one.host_pid, one.pid)).collect();
    for one in &mut found {
        one.ppid = numbers.get(&one.host_ppid).copied().unwrap_or_default();
    }
    found.sort_by_key(|one| one.pid);
    Ok(found)
}

fn process(host_pid: u32, now: u64) -> Option<Process> {
    let read = |file: &str| fs::read(format!("/proc/{host_pid}/{file}")).ok();
    let text = |file: &str| Some(String::from_utf8_lossy(&read(file)?).into_owned());
    let arguments = read("cmdline")?;
    parse(&text("stat")?, &text("status")?, &arguments, (host_pid, now))
}

/// Of `stat`, `status` and `cmdline` of a process (proc(5)).
fn parse(stat: &str, status: &str, cmdline: &[u8], (host_pid, now): (u32, u64)) -> Option<Process> {
    let (start, after_name) = stat.rsplit_once(')')?;
    let comm = start.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    // Counted from the third field.
    let number = |at: usize| -> Option<u64> { fields.get(at - 3)?.parse().ok() };
    let line = |key: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(rest.split_ascii_whitespace().filter_map(|word| word.parse::<u32>().ok()).collect::<Vec<_>>())
    };
    let words = cmdline.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let args = words.collect::<Vec<_>>().join(" ").trim_end().to_owned();
    Some(Process {
        host_pid,
        host_uid: *line("Uid")?.get(1)?,
        host_gid: *line("Gid")?.get(1)?,
        user: String::new(),
        group: String::new(),
        pid: *line("NSpid")?.last()?,
        ppid: 0,
        host_ppid: u32::try_from(number(4)?).ok()?,
        pgid: *line("NSpgid")?.last()?,
        state: (*fields.first()?).to_owned(),
        tty: u32::try_from(number(7)?).ok()?,
        time: number(14)? + number(15)?,
        elapsed: now.saturating_sub(number(22)?),
        nice: fields.get(19 - 3)?.parse().ok()?,
        vsz_kib: number(23)? / 1024,
        rss_kib: number(24)? * PAGE_KIB,
        args: if args.is_empty() { format!("[{comm}]") } else { args },
        comm,
    })
}

/// The id inside of one that we see, by a map as user_namespaces(7) has it.
fn inner_id(map: &str, host: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let numbers: Vec<u32> = line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [inside, outside, count] = numbers[..] else { return None };
        let offset = host.checked_sub(outside).filter(|offset| *offset < count)?;
        inside.checked_add(offset)
    })
}

/// Of the container's users and groups.
fn names(inside: Inside) -> io::Result<[HashMap<u32, String>; 2]> {
    let (worker, ()) = inside.start((), |root| {
        let files = [read_small(root, "etc/passwd")?, read_small(root, "etc/group")?];
        Ok(serde_json::to_vec(&files)?)
    })?;
    let files: [String; 2] = serde_json::from_slice(&worker.finish()?)?;
    Ok(files.map(|text| {
        let entry = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        // Of several the first one counts.
        text.lines().rev().filter_map(entry).collect()
    }))
}

fn read_small(root: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    // A fifo must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match scoped::open(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
        Ok(file) => fs::File::from(file),
        Err(_) => return Ok(String::new()),
    };
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Of one processor since it began, in percent.
fn share(one: &Process) -> String {
    let thousandths = one.time.saturating_mul(100_000) / one.elapsed.max(1);
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// As Go has it.
fn duration(ticks: u64) -> String {
    let (seconds, rest) = (ticks / TICKS_PER_SECOND, ticks % TICKS_PER_SECOND);
    let fraction = format!(".{rest:02}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}{fraction}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

fn terminal(number: u32) -> String {
    let DeviceId { major, minor } = DeviceId::decode(number);
    match major {
        _ if number == 0 => "?".to_owned(),
        major if PTS_MAJORS.contains(&major) => {
            format!("pts/{}", (major - PTS_MAJORS.start) * 256 + minor)
        }
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_columns() {
        let headings = |words: &[&str]| -> Result<Vec<&str>, UnknownColumn> {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            Ok(columns(&words)?.iter().map(|column| column.heading).collect())
        };
        let default = ["USER", "PID", "PPID", "%CPU", "ELAPSED", "TTY", "TIME", "COMMAND"];
        assert_eq!(headings(&[]).unwrap(), default);
        assert_eq!(headings(&["pid,comm", "HPID"]).unwrap(), ["PID", "COMMAND", "HPID"]);
        let error = headings(&["pid", "-ef"]).unwrap_err().to_string();
        assert!(error.contains("\"-ef\"") && error.contains("ppid"), "{error}");
    }

    #[test]
    fn a_process() {
        let mut fields = vec!["S", "17", "9", "9", "34817"];
        fields.extend(["0"; 6]);
        fields.extend(["150", "50", "0", "0", "20", "-5", "1", "0", "1000", "4096000", "25"]);
        let stat = format!("23 (a) (b) {}", fields.join(" "));
        let status = "Name:\tx\nUid:\t1\t1007\t1\t1\nGid:\t2\t8\t2\t2\nNSpid:\t23\t4\nNSpgid:\t9\t3\n";
        let one = parse(&stat, status, b"prog\0-x\0y\0", (23, 21_000)).unwrap();
        assert_eq!((one.pid, one.host_ppid, one.pgid, one.nice), (4, 17, 3, -5));
        assert_eq!((one.host_uid, one.host_gid, &*one.comm, &*one.args), (1007, 8, "a) (b", "prog -x y"));
        assert_eq!((one.vsz_kib, one.rss_kib), (4000, 100));
        assert_eq!(
            (duration(one.elapsed), duration(one.time), share(&one)),
            ("3m20s".into(), "2s".into(), "1.000".into())
        );
        assert_eq!(terminal(one.tty), "pts/1");
    }

    #[test]
    fn durations() {
        let texts = [0, 5, 150, 6000, 6001, 366_050].map(duration);
        assert_eq!(texts, ["0s", "0.05s", "1.5s", "1m0s", "1m0.01s", "1h1m0.5s"]);
    }

    #[test]
    fn ids_inside() {
        let map = "         0       1001          1\n         1     100000      65536\n";
        assert_eq!(
            [1001, 100_000, 100_032, 5].map(|id| inner_id(map, id)),
            [Some(0), Some(1), Some(33), None]
        );
    }
}
