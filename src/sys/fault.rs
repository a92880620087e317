//! Where system calls can be made to fail, or the process to die, for tests. In programs nothing of it is left.
//!
//! A test arms the calls of its own thread; each call of [`super::files`] then counts. Death is told as an error from
//! one call on and from all that follow it: cleaning up after a failure fails too, as it would not happen at all.

/// Called before each system call.
#[cfg(not(test))]
#[inline]
pub(super) fn point(_call: &'static str) -> rustix::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use armed::point;
#[cfg(test)]
pub(crate) use armed::{Fault, NEVER, arm, calls, disarm};

#[cfg(test)]
mod armed {
    use std::cell::{Cell, RefCell};

    use rustix::io::Errno;

    /// What happens at the call.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// This call fails, those after it work.
        Error(Errno),
        /// The process is gone: neither this call nor any later one is made.
        Death,
    }

    #[derive(Clone, Copy, Debug)]
    struct Armed {
        fault: Fault,
        /// The number of the call, from 0.
        at: u32,
        /// Calls so far.
        calls: u32,
        hit: Option<&'static str>,
    }

    thread_local! {
        static ARMED: Cell<Option<Armed>> = const { Cell::new(None) };
        static CALLS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }

    /// A number that no call has: none meets the fault.
    pub(crate) const NEVER: u32 = u32::MAX;

    /// Lets call number `at` of this thread, counted from 0, meet the fault.
    pub(crate) fn arm(fault: Fault, at: u32) {
        ARMED.set(Some(Armed { fault, at, calls: 0, hit: None }));
        CALLS.take();
    }

    /// Which calls there were between [`arm`] and [`disarm`].
    pub(crate) fn calls() -> Vec<&'static str> {
        CALLS.with_borrow(Clone::clone)
    }

    /// Ends that. Returns which call met the fault, `None` when there were not so many.
    pub(crate) fn disarm() -> Option<&'static str> {
        ARMED.take().and_then(|armed| armed.hit)
    }

    pub(in crate::sys) fn point(call: &'static str) -> Result<(), Errno> {
        let Some(mut armed) = ARMED.get() else { return Ok(()) };
        let number = armed.calls;
        armed.calls += 1;
        if number == armed.at {
            armed.hit = Some(call);
        }
        ARMED.set(Some(armed));
        CALLS.with_borrow_mut(|calls| calls.push(call));
        match armed.fault {
            Fault::Error(errno) if number == armed.at => Err(errno),
            Fault::Death if number >= armed.at => Err(Errno::IO),
            Fault::Error(_) | Fault::Death => Ok(()),
        }
    }
}
