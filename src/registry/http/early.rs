//! Servers that answer before they have got everything, and hang up: what they say is heard, where it would have been a
//! "broken pipe" (RFC 9112, section 9.5: who sends is to watch for an answer). Stands below TLS.

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Makes connections that are read from after they can be written to no more.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyAnswers;

impl<In: Transport> Connector<In> for EarlyAnswers {
    type Out = Listening<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Listening { inner, is_deaf: false, failure: None }))
    }
}

/// A connection whose other side may have stopped to listen.
#[derive(Debug)]
pub(super) struct Listening<In> {
    inner: In,
    /// Whether the other side takes nothing any more.
    is_deaf: bool,
    /// Why, until that is told because there is no answer.
    failure: Option<Error>,
}

impl<In: Transport> Transport for Listening<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.is_deaf {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(error @ Error::Io(_)) => {
                (self.is_deaf, self.failure) = (true, Some(error));
                Ok(())
            }
            other => other,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let progress = self.inner.await_input(timeout);
        match self.failure.take() {
            Some(failure) if !matches!(progress, Ok(true)) => Err(failure),
            failure => {
                self.failure = failure;
                progress
            }
        }
    }

    fn is_open(&mut self) -> bool {
        !self.is_deaf && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
