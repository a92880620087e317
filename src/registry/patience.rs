//! How long is waited, and how often something is tried again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// How long is waited for a server, and how often it is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, all addresses of the host together.
    pub connect: Duration,
    /// For the next byte.
    pub idle: Duration,
    /// As [`Self::idle`] where bytes were sent: a server may have to put away gigabytes before it answers.
    pub idle_sent: Duration,
    /// The time in which [`Self::slow_bytes`] have to come once an answer has begun.
    pub slow: Duration,
    /// See there.
    pub slow_bytes: u64,
    /// How often the same thing is asked for.
    pub attempts: u32,
    /// The pause before the second time; each one after it is twice as long.
    pub pause: Duration,
    /// The longest pause, also when the server wants a longer one.
    pub pause_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            idle_sent: Duration::from_secs(300),
            slow: Duration::from_secs(30),
            slow_bytes: 30 << 10,
            attempts: 6,
            pause: Duration::from_millis(500),
            pause_max: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// The pause after this many failures: between half and all of what it doubles to, so that those who were sent away
    /// together do not come back together. `wanted` is what the server asks for.
    pub(super) fn pause(&self, failures: u32, wanted: Option<Duration>) -> Duration {
        let doubled = self.pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.pause_max);
        // Random enough, and needs no library.
        let dice = RandomState::new().hash_one(failures) % 1000;
        let jittered =
            doubled / 2 + doubled.mul_f64(f64::from(u32::try_from(dice).unwrap_or_default()) / 2000.0);
        wanted.map_or(jittered, |wanted| wanted.min(self.pause_max).max(jittered))
    }

    /// For tests: nobody has so much time.
    #[cfg(test)]
    pub(crate) fn short() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_millis(1500),
            idle_sent: Duration::from_millis(1500),
            slow: Duration::from_millis(300),
            slow_bytes: 300,
            attempts: 3,
            pause: Duration::from_millis(4),
            pause_max: Duration::from_millis(20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_bounds() {
        let patience = Patience::default();
        for failures in 1..40 {
            let whole = Duration::from_millis(500 * (1 << (failures - 1).min(16))).min(patience.pause_max);
            let pause = patience.pause(failures, None);
            assert!(pause >= whole / 2 && pause <= whole, "{failures}: {pause:?}");
        }
        assert_eq!(patience.pause(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(patience.pause(1, Some(Duration::from_secs(86_400))), patience.pause_max);
    }
}
