//! Which boot of the machine this is.

/// A number that stays the same until the machine starts again (`/proc/sys/kernel/random/boot_id`, random(4)); 0 when the
/// system does not say.
#[must_use]
pub fn id() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}
