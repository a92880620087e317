//! Programs beside the one that a container runs.

use std::io;
use std::path::PathBuf;

use super::command_line;
use super::running::RunError;
use super::{Container, ContainerError, Containers, State, Wishes};
use crate::launcher::{self, Events, Plan};
use crate::sys::process::Watched;
use crate::sys::{daemon, process};

/// A running container, and what is to run in it.
#[derive(Debug)]
pub struct Execution {
    program: (u32, Watched),
    cgroup: Option<PathBuf>,
    plan: Plan,
}

/// Finds a running container. Of `wishes` counts what a program has for itself; the rest is as the container was made.
///
/// # Errors
/// [`ContainerError::NotRunning`], [`ContainerError::Paused`]
pub fn prepare(containers: &Containers, text: &str, wishes: Wishes) -> Result<Execution, ContainerError> {
    Execution::of(&containers.find(text)?, wishes)
}

/// The process by which it is joined, and its control group.
fn running(container: &Container) -> Result<((u32, Watched), Option<PathBuf>), ContainerError> {
    let status = container.settled_status()?;
    let joined = match &status.state {
        State::Running { process, cgroup, .. } if status.held => {
            let entrance = process.entrance().map_err(failed(container))?;
            entrance.map(|entrance| (entrance, cgroup.clone()))
        }
        _ => None,
    };
    let name = || container.config().name.clone();
    let running = joined.ok_or_else(|| ContainerError::NotRunning { id: container.id(), name: name() })?;
    if status.is_paused() {
        return Err(ContainerError::Paused { id: container.id(), name: name() });
    }
    Ok(running)
}

fn failed(container: &Container) -> impl FnOnce(io::Error) -> ContainerError {
    ContainerError::io("look at the process of", container.dir())
}

fn plan(container: &Container, wishes: Wishes) -> io::Result<Plan> {
    let config = container.config();
    let made = config.run.clone().unwrap_or_default();
    let arguments = wishes.command;
    let together = Wishes {
        env: made.env.iter().chain(&wishes.env).cloned().collect(),
        user: wishes.user.or(made.user),
        workdir: wishes.workdir.or(made.workdir),
        terminal: wishes.terminal,
        interactive: wishes.interactive,
        ..made
    };
    let process = &config.image.process;
    let mut plan = command_line::plan(
        &config.id.to_string(),
        container.dir().join("mnt"),
        arguments,
        process,
        &together,
    )?;
    // It was made when the container began.
    plan.create_cwd = false;
    // That is of the container.
    plan.timeout = None;
    Ok(plan)
}

/// Hears when the program runs.
struct Heard(Option<daemon::Notifier>);

impl Events for Heard {
    fn started(&mut self, _program: i32, _between: i32) -> io::Result<()> {
        self.0.take().map_or(Ok(()), daemon::Notifier::ready)
    }
}

impl Execution {
    /// As [`prepare`], of a container that was found.
    pub(super) fn of(container: &Container, wishes: Wishes) -> Result<Self, ContainerError> {
        let (program, cgroup) = running(container)?;
        let plan = plan(container, wishes).map_err(failed(container))?;
        Ok(Self { program, cgroup, plan })
    }

    /// Everything that the program starts stays below it for as long as it lives.
    pub(super) fn keeping_orphans(mut self) -> Self {
        self.plan.subreaper = true;
        self
    }

    /// Runs the program to its end; gives its exit code.
    ///
    /// # Errors
    /// [`RunError`]
    pub fn run(&self) -> Result<u8, RunError> {
        self.run_and_tell(None)
    }

    /// Starts the program, and returns when it runs.
    ///
    /// # Errors
    /// [`RunError`]
    pub fn start(&mut self) -> Result<(), RunError> {
        match daemon::fork().map_err(RunError::Fork)? {
            daemon::Forked::Parent(child) => match child.wait() {
                Ok(_) => Ok(()),
                Err(said) => Err(RunError::said(said)),
            },
            daemon::Forked::Child(notifier) => {
                // Nobody reads what it says, and nobody writes to it.
                self.plan.interactive = false;
                let detached = daemon::detach(std::path::Path::new("/dev/null")).map_err(RunError::Fork);
                let run = detached.and_then(|()| self.run_and_tell(Some(notifier)));
                process::exit_now(run.unwrap_or_else(|error| error.exit_code()))
            }
        }
    }

    fn run_and_tell(&self, notifier: Option<daemon::Notifier>) -> Result<u8, RunError> {
        let mut heard = Heard(notifier);
        let (pid, watched) = &self.program;
        let result = launcher::exec(&self.plan, (*pid, watched), self.cgroup.as_deref(), &mut heard)
            .map_err(RunError::from);
        if let (Err(error), Some(notifier)) = (&result, heard.0.take()) {
            // Nobody is left to hear it when that fails.
            notifier.failed(&error.to_be_said()).ok();
        }
        result
    }
}
