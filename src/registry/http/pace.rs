//! Servers that answer a byte at a time: a time-out for each byte never ends them. Stands below TLS, so handshakes and
//! headers count as well.

use std::io;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use crate::registry::Patience;

/// Makes connections that end when they are too slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    time: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn of(patience: &Patience) -> Self {
        Self { time: patience.slow, bytes: patience.slow_bytes }
    }
}

impl<In: Transport> Connector<In> for Pace {
    type Out = Paced<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Paced { inner, pace: *self, waited: Duration::ZERO, received: 0 }))
    }
}

/// A connection that is timed while an answer comes.
#[derive(Debug)]
pub(super) struct Paced<In> {
    inner: In,
    pace: Pace,
    /// Time that was spent waiting for [`Self::received`]: that which we take ourselves does not count.
    waited: Duration,
    /// Bytes since the beginning of the answer, or of the stretch that is looked at.
    received: u64,
}

impl<In: Transport> Transport for Paced<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        (self.waited, self.received) = (Duration::ZERO, 0);
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let before = self.inner.buffers().input().len();
        let start = Instant::now();
        let progress = self.inner.await_input(timeout)?;
        let received = self.inner.buffers().input().len().saturating_sub(before) as u64;
        // How long a server thinks is another matter: there is a time-out for that.
        if self.received > 0 {
            self.waited += start.elapsed();
        }
        self.received += received;
        if self.waited >= self.pace.time {
            if self.received < self.pace.bytes {
                let reason = format!(
                    "too slow: {} bytes in {} s, at least {} are expected",
                    self.received,
                    self.waited.as_secs_f32(),
                    self.pace.bytes
                );
                return Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, reason)));
            }
            // One byte, so that the next stretch counts from its beginning.
            (self.waited, self.received) = (Duration::ZERO, 1);
        }
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
