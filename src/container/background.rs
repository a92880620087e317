//! A container that runs in a process of its own: that keeps what it prints, and lets others be attached to it.

use std::io;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::attaching::{self, Attach, Left, Server};
use super::health::Monitor;
use super::log::LogWriter;
use super::restarting::{self, RestartPolicy, Restarts};
use super::running::{Ran, Ready, RunError, SingleId, finish, run_once};
use super::{Container, ContainerError, Containers, Held, Moment, ProcessId, State, Wishes, documents};
use crate::launcher::{self, BlockedSignals, EarlyUsers, Ended, Events, Input, Output, Plan, Stream};
use crate::mount::Layers;
use crate::sys::message_socket::MessageSocket;
use crate::sys::{daemon, process};

/// Runs a container in a process of its own, and returns when its program runs; what that prints is kept. Gives the layers
/// back, which that process has as well.
///
/// # Errors
/// [`RunError`]; of what happens later the container's state tells.
pub fn run_in_background(
    containers: &Containers,
    mut ready: Ready,
    single_id: SingleId<'_>,
) -> Result<Layers, RunError> {
    ready.users.iter_mut().for_each(EarlyUsers::settle);
    match daemon::fork().map_err(RunError::Fork)? {
        daemon::Forked::Parent(child) => {
            drop(ready.held);
            hear_of_start(child, single_id)?;
            Ok(ready.layers)
        }
        daemon::Forked::Child(notifier) => {
            process::exit_now(in_background(containers, ready, (notifier, None)))
        }
    }
}

/// The same, but attached to it from its beginning. Ends with it, or when it is detached.
///
/// # Errors
/// [`RunError`]
pub fn run_attached(
    containers: &Containers,
    mut ready: Ready,
    how: &Attach,
    single_id: SingleId<'_>,
) -> Result<(Left, Layers), RunError> {
    ready.plan.window = launcher::window();
    ready.users.iter_mut().for_each(EarlyUsers::settle);
    let (here, there) = MessageSocket::pair().map_err(RunError::Fork)?;
    match daemon::fork().map_err(RunError::Fork)? {
        daemon::Forked::Parent(child) => {
            drop(there);
            let container = (*ready.held).clone();
            drop(ready.held);
            hear_of_start(child, single_id)?;
            Ok((attaching::attach_by(&container, here, how)?, ready.layers))
        }
        daemon::Forked::Child(notifier) => {
            drop(here);
            process::exit_now(in_background(containers, ready, (notifier, Some(there))))
        }
    }
}

fn hear_of_start(child: daemon::Waiter, single_id: SingleId<'_>) -> Result<(), RunError> {
    let note = child.wait().map_err(RunError::said)?;
    if !note.is_empty() {
        single_id(&note);
    }
    Ok(())
}

/// Who waits for the start, and whether that one is attached.
type Starting = (daemon::Notifier, Option<MessageSocket>);

fn in_background(containers: &Containers, mut ready: Ready, (notifier, first): Starting) -> u8 {
    ready.plan.output = Output::Taken;
    let must_be_heard = first.is_some();
    let (log, server) = match arrange(&ready, first) {
        Ok(arranged) => arranged,
        Err(error) => {
            let error = RunError::from(error);
            // Nobody is left to hear it when that fails.
            notifier.failed(&error.to_be_said()).ok();
            return error.exit_code();
        }
    };
    let notifier = Some(notifier);
    let mut background = Background {
        notifier,
        must_be_heard,
        is_unheard: false,
        single_id: String::new(),
        log,
        server: Some(server),
        container: (*ready.held).clone(),
        health: None,
    };
    let result = background.run(containers, ready);
    match (&result, background.notifier.take()) {
        (Ok(_), _) => {}
        (Err(error), Some(notifier)) => notifier.failed(&error.to_be_said()).unwrap_or_default(),
        (Err(error), None) => tracing::error!("{error}"),
    }
    background.let_go(&result);
    result.unwrap_or_else(|error| error.exit_code())
}

fn arrange(ready: &Ready, first: Option<MessageSocket>) -> Result<(LogWriter, Server), ContainerError> {
    let limits = ready.held.config().run.as_ref().map(|wishes| wishes.log).unwrap_or_default();
    let path = ready.held.log_path();
    let log = daemon::detach(&path).and_then(|()| LogWriter::open(&path, limits));
    let log = log.map_err(ContainerError::io("write", &path))?;
    restarting::begin(&ready.held).map_err(ContainerError::io("write", ready.held.dir()))?;
    Ok((log, serve(&ready.held, &ready.plan, first)?))
}

fn serve(held: &Held, plan: &Plan, first: Option<MessageSocket>) -> Result<Server, ContainerError> {
    let server = Server::new(held.dir(), (plan.terminal, plan.interactive), first);
    server.map_err(ContainerError::io("make a socket in", held.dir()))
}

struct Background {
    /// Until the program runs.
    notifier: Option<daemon::Notifier>,
    /// Whether it is to end when nobody has waited for its start.
    must_be_heard: bool,
    /// That has come about.
    is_unheard: bool,
    single_id: String,
    log: LogWriter,
    server: Option<Server>,
    container: Container,
    health: Option<Monitor>,
}

impl Background {
    fn run(&mut self, containers: &Containers, ready: Ready) -> Result<u8, RunError> {
        let Ready { held, layers, writes, mut plan, mut users } = ready;
        let mut restarts = Restarts::new(policy(&held));
        loop {
            let ran = run_once(&held, (layers.clone(), writes), (&mut plan, users.take()), self);
            let lasted = ran.started.age(Moment::now());
            if let Some(wishes) = wishes_now(&held) {
                restarts.follow(wishes.restart);
                plan.resources = wishes.resources;
            }
            // One that did not even start the first time does not start again.
            let is_wanted = self.health.take().is_some_and(|health| health.wants_restart());
            let again = match self.notifier {
                Some(_) => None,
                None if self.is_unheard => None,
                None if is_wanted => Some(restarts.again(lasted)),
                None => restarts.next(ran.exit_code(), lasted),
            };
            let Some(pause) = again else { return self.end(containers, held, &plan, ran) };
            if !self.pause(&held, &ran, pause)? {
                return self.end(containers, held, &plan, ran);
            }
            note(restarting::note_count(&held, restarts.count()));
            plan.window = None;
            self.server = Some(serve(&held, &plan, None)?);
        }
    }

    /// Waits until it is to run again; whether it is.
    fn pause(&mut self, held: &Held, ran: &Ran, pause: Duration) -> Result<bool, RunError> {
        let failed = || ContainerError::io("wait to run again in", held.dir());
        // Who finds the state wakes us.
        let signals = BlockedSignals::new().map_err(failed())?;
        if restarting::is_stopped(held).map_err(failed())? {
            return Ok(false);
        }
        let waits = ProcessId::current().map_err(failed())?;
        let (exit_code, started) = (ran.exit_code(), ran.started);
        held.set_state(&State::Restarting { waits, exit_code, started, finished: Moment::now() })?;
        if let Err(error) = &ran.result {
            tracing::error!("{error}");
        }
        self.let_go(&ran.result.as_ref().map(Ended::code));
        Ok(restarting::wait(pause, &signals, held).map_err(failed())?)
    }

    fn end(&mut self, containers: &Containers, held: Held, plan: &Plan, ran: Ran) -> Result<u8, RunError> {
        finish(containers, held, plan, &ran)?;
        ran.result.map(|ended| ended.code())
    }

    /// Tells those who are attached how it ended. Who waits for the start has to hear of that before: that one listens to nothing
    /// else.
    fn let_go<E: ToString>(&mut self, how: &Result<u8, E>) {
        if let Some(server) = self.server.take() {
            server.end(how.as_ref().copied().map_err(ToString::to_string));
        }
    }
}

/// As they may have been changed since it was started.
fn wishes_now(held: &Held) -> Option<Wishes> {
    match documents::config(held.dir()) {
        Ok(config) => config.and_then(|config| config.run),
        Err(error) => {
            tracing::warn!(%error, "what was changed of the container is not known");
            None
        }
    }
}

fn policy(held: &Held) -> RestartPolicy {
    held.config().run.as_ref().map(|wishes| wishes.restart).unwrap_or_default()
}

/// What is only shown must not keep the container from going on.
fn note(written: io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(%error, "what is shown of the container is not up to date");
    }
}

impl Events for Background {
    fn single_id(&mut self, reason: &str) {
        reason.clone_into(&mut self.single_id);
    }

    fn started(&mut self, _program: i32, _supervisor: i32) -> io::Result<()> {
        match self.notifier.take().map(|notifier| notifier.ready_but(&self.single_id)) {
            // Who was to be attached has been interrupted.
            Some(Err(error)) if self.must_be_heard => {
                self.is_unheard = true;
                return Err(error);
            }
            Some(Err(error)) => tracing::debug!(%error, "nobody waited for the start"),
            Some(Ok(())) | None => {}
        }
        self.health = Monitor::begin(&self.container)?;
        Ok(())
    }

    /// A log that cannot be written must not keep the program from going on.
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.log.write(stream, bytes, Moment::now()) {
            tracing::error!(%error, bytes = bytes.len(), "what the program wrote is lost");
        }
        if let Some(server) = &mut self.server {
            server.wrote(stream, bytes);
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.server.as_ref().is_none_or(Server::has_room)
    }

    fn interests(&self) -> Vec<PollFd<'_>> {
        let of_server = self.server.as_ref().map(Server::interests).unwrap_or_default();
        // These it finds by itself, so that they may come last.
        let of_health = self.health.as_ref().map(Monitor::interests).unwrap_or_default();
        of_server.into_iter().chain(of_health).collect()
    }

    fn wait_at_most(&self) -> Option<Duration> {
        let of_server = self.server.as_ref().and_then(Server::wait_at_most);
        let of_health = self.health.as_ref().map(Monitor::wait_at_most);
        of_server.into_iter().chain(of_health).min()
    }

    fn turn(&mut self, found: &[PollFlags], input: &mut dyn Input) -> io::Result<()> {
        // A check that cannot be made must not end the container.
        if let Some(health) = &mut self.health
            && let Err(error) = health.turn()
        {
            tracing::error!(%error, "the health of the container is not checked any more");
            self.health = None;
        }
        self.server.as_mut().map_or(Ok(()), |server| server.turn(found, input))
    }
}
