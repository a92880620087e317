//! The starter's work while its container runs: it hears the supervisor, forwards signals, and carries what is written.

use std::fmt;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::cgroup;
use super::connection::Connection;
use super::early_users::EarlyUsers;
use super::ended::{Ended, Leaving};
use super::events::{Events, Input};
use super::failure::{Context as _, Failure, Step};
use super::id_maps::{self, Written};
use super::own_ids::OwnIds;
use super::plan::{Output, Plan, Window};
use super::relay::{self, Relay};
use super::run::{CgroupWish, LaunchError};
use super::signals::BlockedSignals;
use super::streams::Streams;
use super::supervisor::{
    MESSAGE_CGROUP, MESSAGE_EXIT, MESSAGE_NETWORK, MESSAGE_OUT_OF_MEMORY, MESSAGE_PROCESS, MESSAGE_RANGES,
    MESSAGE_READY, MESSAGE_SINGLE, MESSAGE_TERMINAL, MESSAGE_USERS,
};
use crate::sys::message_socket::{Message, MessageSocket};
use crate::sys::process::{self, Child};

/// The starter of a container that is there already.
pub(super) struct Starter<'a> {
    pub(super) plan: &'a Plan,
    pub(super) events: &'a mut dyn Events,
    /// What was made ahead, until the supervisor asks for it.
    pub(super) users: Option<EarlyUsers>,
    pub(super) supervisor: Child,
    pub(super) control: Option<MessageSocket>,
    pub(super) errors: Option<PipeReader>,
    pub(super) signals: BlockedSignals,
    /// The container's first process.
    pub(super) container: Option<(i32, OwnedFd)>,
    /// Whether it has become the program.
    pub(super) running: bool,
    /// When it is killed.
    pub(super) deadline: Option<Instant>,
    pub(super) relay: Option<Relay>,
    pub(super) streams: Option<Streams>,
    /// The container's connection to the world.
    pub(super) network: Connection,
    /// Exit code, and what could not be made safe.
    pub(super) outcome: Option<(u8, String)>,
    pub(super) interrupted: Option<Signal>,
    pub(super) cgroup_wish: CgroupWish<'a>,
    /// To be removed at the end.
    pub(super) cgroup: Option<cgroup::Made>,
}

impl fmt::Debug for Starter<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Starter").field("supervisor", &self.supervisor).finish_non_exhaustive()
    }
}

/// What poll(2) found.
#[derive(Debug, Default)]
struct Found {
    control: bool,
    errors: bool,
    signal: bool,
    supervisor_ended: bool,
    relay: relay::Found,
    streams: bool,
    network: bool,
    /// Of what the caller waits for.
    others: Vec<PollFlags>,
}

/// What reaches the program, by whichever way it reads.
struct Reading<'a> {
    plan: &'a Plan,
    relay: Option<&'a mut Relay>,
    streams: Option<&'a mut Streams>,
}

impl Input for Reading<'_> {
    fn is_ready(&self) -> bool {
        match (&self.relay, &self.streams) {
            (Some(relay), _) => relay.has_passed_all(),
            // Its terminal is not there yet.
            (None, _) if self.plan.terminal => false,
            (None, streams) => streams.as_ref().is_none_or(|streams| streams.has_passed_all()),
        }
    }

    fn give(&mut self, bytes: &[u8]) -> io::Result<()> {
        match (&mut self.relay, &mut self.streams) {
            _ if !self.plan.interactive => Ok(()),
            (Some(relay), _) => relay.give(bytes),
            (None, streams) => streams.as_mut().map_or(Ok(()), |streams| streams.give(bytes)),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match (&mut self.relay, &mut self.streams) {
            _ if !self.plan.interactive => Ok(()),
            (Some(relay), _) => relay.give_end(),
            (None, streams) => streams.as_mut().map_or(Ok(()), |streams| streams.give_end()),
        }
    }

    fn resize(&mut self, window: Window) {
        if let Some(relay) = &self.relay {
            relay.resize_to(window);
        }
    }
}

impl Starter<'_> {
    /// Until all is over.
    pub(super) fn serve(&mut self) -> Result<(), LaunchError> {
        loop {
            let found = self.wait().stage("poll")?;
            // First what was said, then the end of who said it.
            if found.control {
                self.hear()?;
            }
            if found.errors {
                self.hear_result_of_start()?;
            }
            if found.network {
                self.network.turn(self.plan)?;
            }
            if found.signal {
                self.take_signals()?;
            }
            self.kill_when_overdue();
            let events = &mut self.events;
            let mut wrote = |stream, bytes: &[u8]| events.wrote(stream, bytes);
            if let Some(relay) = &mut self.relay {
                relay.turn(found.relay, &mut wrote).stage("terminal")?;
            }
            if let (true, Some(streams)) = (found.streams, &mut self.streams) {
                streams.turn(&mut wrote).stage("output")?;
            }
            let (relay, streams) = (self.relay.as_mut(), self.streams.as_mut());
            let mut reading = Reading { plan: self.plan, relay, streams };
            self.events.turn(&found.others, &mut reading).stage("those who are attached")?;
            // It ends within the control group that is removed then.
            let only_leaves = self.outcome.is_some() && self.cgroup.is_none() && self.errors.is_none();
            if only_leaves || (found.supervisor_ended && !found.control && !found.errors) {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> io::Result<Found> {
        let input = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![input(self.signals.as_fd()), input(self.supervisor.pidfd.as_fd())];
        let control = self.control.as_ref().map(|control| input(control.as_fd()));
        let errors = self.errors.as_ref().map(|errors| input(errors.as_fd()));
        let control_at = fds.len();
        fds.extend(control);
        let errors_at = fds.len();
        fds.extend(errors);
        let streams_at = fds.len();
        // What nobody has room for stays where it is.
        let has_room = self.events.has_room();
        fds.extend(self.streams.iter().filter(|_| has_room).flat_map(Streams::interests));
        let network_at = fds.len();
        fds.extend(self.network.interest().map(input));
        let relay_at = fds.len();
        fds.extend(self.relay.iter().filter(|_| has_room).flat_map(Relay::interests));
        let others_at = fds.len();
        fds.extend(self.events.interests());
        match poll(&mut fds, timeout(self.wait_at_most())) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Found::default()),
            Err(error) => return Err(error.into()),
        }
        let any = |range: std::ops::Range<usize>| fds[range].iter().any(|fd| fd.any().unwrap_or(false));
        Ok(Found {
            signal: any(0..1),
            supervisor_ended: any(1..2),
            control: any(control_at..errors_at),
            errors: any(errors_at..streams_at),
            streams: any(streams_at..network_at),
            network: any(network_at..relay_at),
            relay: relay::Found::of(&fds[relay_at..others_at]),
            others: fds[others_at..].iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect(),
        })
    }

    fn wait_at_most(&self) -> Option<Duration> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        left.into_iter().chain(self.events.wait_at_most()).min()
    }

    fn kill_when_overdue(&mut self) {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now())
            && let Some((_, pidfd)) = &self.container
        {
            kill("container", pidfd);
            self.deadline = None;
        }
    }

    /// A message of the supervisor or of the container's first process.
    fn hear(&mut self) -> Result<(), LaunchError> {
        let Some(control) = &self.control else { return Ok(()) };
        let Some(message) = control.receive().stage("listen to the supervisor")? else {
            self.control = None;
            return Ok(());
        };
        match message.bytes.split_at_checked(1) {
            Some((MESSAGE_READY, _)) => self.write_id_maps()?,
            Some((MESSAGE_PROCESS, number)) => self.container = process_of(number, message.fd),
            Some((MESSAGE_USERS, _)) => self.network.enter(message.fd),
            Some((MESSAGE_NETWORK, _)) => self.network.start(self.plan, message.fd)?,
            Some((MESSAGE_CGROUP, _)) => self.give_cgroup()?,
            Some((MESSAGE_OUT_OF_MEMORY, _)) => self.events.out_of_memory(),
            Some((MESSAGE_TERMINAL, _)) => self.start_relay(message)?,
            Some((MESSAGE_EXIT, rest)) => self.outcome = parse_outcome(rest),
            _ => tracing::debug!(?message, "a message that makes no sense"),
        }
        Ok(())
    }

    fn write_id_maps(&mut self) -> Step<()> {
        let written = match self.users.take() {
            Some(users) => users.finish(),
            None => id_maps::write(&self.plan.id_maps, self.supervisor.pid),
        };
        let written = written.stage("write the id maps")?;
        let answer = match &written {
            Written::Ranges => MESSAGE_RANGES,
            Written::Single { reason } if self.plan.own_ids.as_ref().is_some_and(OwnIds::are_many) => {
                let failure = Failure::new("user namespace", &io::Error::other(reason.clone()));
                return Err(Box::new(failure.hint("the container's own ids need those ranges")));
            }
            Written::Single { reason } => {
                self.events.single_id(reason);
                MESSAGE_SINGLE
            }
        };
        let Some(control) = &self.control else { return Ok(()) };
        control.send(answer, None).stage("answer the supervisor")
    }

    fn give_cgroup(&mut self) -> Step<()> {
        let leaf = match self.cgroup_wish {
            CgroupWish::New => {
                self.cgroup = cgroup::make(self.plan, self.supervisor.pid)?;
                self.cgroup.as_ref().map(cgroup::Made::path)
            }
            CgroupWish::Of(leaf) => {
                if let Some(leaf) = leaf {
                    cgroup::bring_near(self.supervisor.pid, leaf)?;
                }
                leaf
            }
        };
        let Some(control) = &self.control else { return Ok(()) };
        let Some(leaf) = leaf else {
            return control.send(MESSAGE_CGROUP, None).stage("answer the supervisor");
        };
        let fd = cgroup::open(leaf).at("open the control group", leaf)?;
        control.send(MESSAGE_CGROUP, Some(fd.as_fd())).stage("answer the supervisor")?;
        self.events.cgroup(leaf);
        Ok(())
    }

    fn start_relay(&mut self, message: Message) -> Step<()> {
        let reads_ours = self.plan.interactive && self.plan.output == Output::Passed;
        if let Some(master) = message.fd {
            self.relay = Some(Relay::new(master, reads_ours).stage("terminal")?);
        }
        Ok(())
    }

    /// The error pipe is closed by execve(2), or brings what went wrong.
    fn hear_result_of_start(&mut self) -> Result<(), LaunchError> {
        let Some(errors) = self.errors.take() else { return Ok(()) };
        if let Some(failure) = Failure::read(errors).stage("read the error record")? {
            return Err(LaunchError::NotStarted(Box::new(failure)));
        }
        // Who it is was said before, but may have come after the look at what there is to hear.
        while self.container.is_none() && self.control.is_some() {
            self.hear()?;
        }
        let Some((program, _)) = self.container else { return Ok(()) };
        self.running = true;
        self.deadline = self.plan.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.events.started(program, self.supervisor.pid).stage("record the start")?;
        Ok(())
    }

    fn take_signals(&mut self) -> Result<(), LaunchError> {
        while let Some(signal) = self.signals.next().stage("signals")? {
            match signal {
                Signal::SIGCHLD => self.network.child_ended(),
                // The last two are of our own doing: a full log, a reader who has gone.
                Signal::SIGURG | Signal::SIGPIPE | Signal::SIGXFSZ => {}
                Signal::SIGWINCH if self.relay.is_some() => self.resize(),
                signal if self.running => self.forward(signal),
                Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT => {
                    self.interrupted = Some(signal);
                    return Err(LaunchError::Interrupted(signal));
                }
                // Before there is a program, there is nobody to take the others.
                _ => {}
            }
        }
        Ok(())
    }

    fn resize(&self) {
        if let Some(relay) = &self.relay {
            relay.resize();
        }
    }

    fn forward(&self, signal: Signal) {
        let Some((_, pidfd)) = &self.container else { return };
        if let Err(error) = process::send_signal(pidfd.as_fd(), signal as i32) {
            tracing::debug!(%error, %signal, "forwarding a signal");
        }
    }

    /// Makes sure that nothing is left but a supervisor that is leaving, and says how it went.
    pub(super) fn end(mut self, result: Result<(), LaunchError>) -> Result<Ended, LaunchError> {
        // Without its starter the supervisor takes everything down by itself. What a program wrote may take long to be
        // made safe; but where none ran there is nothing to wait for.
        self.control = None;
        if result.is_err()
            && !self.running
            && !ends_within(&self.supervisor.pidfd, TAKE_DOWN_WAIT_MILLISECONDS)
        {
            kill("supervisor", &self.supervisor.pidfd);
        }
        let mut supervisor = Some(Leaving(self.supervisor.pid));
        if self.outcome.is_none() || self.cgroup.is_some() {
            supervisor = None;
        }
        // It has died with the supervisor, unless it had cleared its death signal and the supervisor was killed.
        if let (None, Some((_, pidfd))) = (&self.outcome, &self.container) {
            kill("container", pidfd);
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        self.take_rest()?;
        result?;
        match self.outcome {
            Some((code, message)) if message.is_empty() => Ok(Ended { code, _supervisor: supervisor }),
            Some((code, message)) => Err(LaunchError::NotFinished { code, message }),
            None => Err(LaunchError::SupervisorDied),
        }
    }

    /// What was written and not carried on yet.
    fn take_rest(&mut self) -> Step<()> {
        let mut wrote = |stream, bytes: &[u8]| self.events.wrote(stream, bytes);
        if let Some(relay) = self.relay.take() {
            relay.finish(&mut wrote).stage("terminal")?;
        }
        if let Some(streams) = self.streams.take() {
            streams.finish(&mut wrote).stage("output")?;
        }
        Ok(())
    }
}

/// How long a supervisor whose container did not start may take to clean up.
const TAKE_DOWN_WAIT_MILLISECONDS: u16 = 5000;

fn ends_within(pidfd: &OwnedFd, milliseconds: u16) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::from(milliseconds)), Ok(count) if count > 0)
}

fn kill(who: &str, pidfd: &OwnedFd) {
    if let Err(error) = process::send_signal(pidfd.as_fd(), Signal::SIGKILL as i32) {
        tracing::debug!(%error, who, "killing");
    }
}

/// A little later rather than too early, when there would be nothing to do yet.
fn timeout(at_most: Option<Duration>) -> PollTimeout {
    let milliseconds = |time: Duration| i32::try_from(time.as_millis() + 1).unwrap_or(i32::MAX);
    at_most.map_or(PollTimeout::NONE, |time| {
        PollTimeout::try_from(milliseconds(time)).unwrap_or(PollTimeout::MAX)
    })
}

/// Whoever is in a pid namespace between ours and the container's does not know the number.
fn process_of(number: &[u8], pidfd: Option<OwnedFd>) -> Option<(i32, OwnedFd)> {
    let pidfd = pidfd?;
    let number = match number {
        // One that has ended already has none.
        [] => Some(process::number_of(pidfd.as_fd()).unwrap_or_default()),
        number => parse_number(number),
    };
    number.map(|number| (number, pidfd))
}

fn parse_number(bytes: &[u8]) -> Option<i32> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn parse_outcome(bytes: &[u8]) -> Option<(u8, String)> {
    let text = String::from_utf8_lossy(bytes);
    let (code, message) = text.split_once(' ')?;
    Some((code.parse().ok()?, message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message() {
        assert_eq!(parse_outcome(b"7 "), Some((7, String::new())));
        assert_eq!(parse_outcome(b"0 no space left"), Some((0, "no space left".into())));
        assert_eq!(parse_outcome(b"300 "), None);
        assert_eq!(parse_outcome(b""), None);
        assert_eq!(parse_number(b"42"), Some(42));
    }
}
