//! The table of `layerfs stats`, in docker's columns and words.

use std::time::Duration;

use super::Sample;
use crate::container::view::{Width, aligned};
use crate::container::{ContainerId, size};
use crate::template::{Template, TemplateError};

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    block_io: String,
    cpu: String,
    container: String,
    id: String,
    memory_share: String,
    memory: String,
    name: String,
    network: String,
    pids: String,
}

const HEADINGS: [&str; 8] =
    ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
/// What is not known.
const UNKNOWN: &str = "--";

impl Row {
    /// What a container took between two looks, and has taken until the second.
    #[must_use]
    pub fn of((id, name): (ContainerId, &str), before: Option<&Sample>, now: &Sample, width: Width) -> Self {
        let used = &now.used;
        let limit = match (super::memory_of_machine(), used.memory_max) {
            (Some(all), Some(limit)) => Some(all.min(limit)),
            (all, limit) => all.or(limit),
        };
        let time = before.map(|before| now.taken.duration_since(before.taken));
        let cpu_before = before.and_then(|before| before.used.cpu_micros);
        let id = if width == Width::Full { id.to_string() } else { id.short() };
        Self {
            container: id.clone(),
            id,
            name: name.to_owned(),
            cpu: percent(cpu_share(cpu_before, used.cpu_micros, time)),
            memory: pair(used.memory, limit.filter(|_| used.memory.is_some()), size::memory_in_words),
            memory_share: percent(used.memory.zip(limit)),
            network: pair(now.network.map(|both| both.0), now.network.map(|both| both.1), size::in_words),
            block_io: pair(used.disk.map(|both| both.0), used.disk.map(|both| both.1), size::in_words),
            pids: used.pids.map_or_else(|| UNKNOWN.to_owned(), |pids| pids.to_string()),
        }
    }

    fn fields(&self) -> [(&'static str, &str); 9] {
        [
            ("BlockIO", &self.block_io),
            ("CPUPerc", &self.cpu),
            ("Container", &self.container),
            ("ID", &self.id),
            ("MemPerc", &self.memory_share),
            ("MemUsage", &self.memory),
            ("Name", &self.name),
            ("NetIO", &self.network),
            ("PIDs", &self.pids),
        ]
    }

    fn words(&self) -> serde_json::Value {
        serde_json::Value::from_iter(self.fields())
    }

    fn cells(&self) -> [String; 8] {
        let Self { id, name, cpu, memory, memory_share, network, block_io, pids, .. } = self.clone();
        [id, name, cpu, memory, memory_share, network, block_io, pids]
    }
}

/// The table.
#[must_use]
pub fn rows_as_table(rows: &[Row]) -> String {
    let headings = HEADINGS.map(str::to_owned).to_vec();
    let lines: Vec<_> = [headings].into_iter().chain(rows.iter().map(|row| row.cells().to_vec())).collect();
    aligned(&lines)
}

/// A line for each.
///
/// # Errors
/// [`TemplateError`]
pub fn rows_by_template(rows: &[Row], template: &Template) -> Result<String, TemplateError> {
    rows.iter().map(|row| Ok(template.render(&row.words())? + "\n")).collect()
}

/// A JSON object in each line.
#[must_use]
pub fn rows_as_json(rows: &[Row]) -> String {
    rows.iter().map(|row| format!("{}\n", row.words())).collect()
}

/// Microseconds on processors, of microseconds that went by.
fn cpu_share(before: Option<u64>, now: Option<u64>, time: Option<Duration>) -> Option<(u64, u64)> {
    let micros = u64::try_from(time?.as_micros()).ok()?;
    Some((now?.saturating_sub(before?), micros))
}

/// Two digits behind the point.
fn percent(share: Option<(u64, u64)>) -> String {
    let Some((part, whole)) = share else { return UNKNOWN.to_owned() };
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

fn pair(one: Option<u64>, other: Option<u64>, text: fn(u64) -> String) -> String {
    let text = |number: Option<u64>| number.map_or_else(|| UNKNOWN.to_owned(), text);
    format!("{} / {}", text(one), text(other))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::launcher::Usage;

    #[test]
    fn shares() {
        assert_eq!(percent(cpu_share(Some(100), Some(1_500_100), Some(Duration::from_secs(1)))), "150.00%");
        assert_eq!(percent(cpu_share(Some(0), Some(123), Some(Duration::from_millis(1)))), "12.30%");
        assert_eq!(percent(cpu_share(None, Some(1), Some(Duration::ZERO))), "--");
        assert_eq!(percent(Some((1, 0))), "100.00%", "no time has gone by");
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let of = (ContainerId::parse(&"5a".repeat(32)).unwrap(), "box");
        let nothing = Sample { taken: Instant::now(), used: Usage::default(), network: None };
        let row = Row::of(of, Some(&nothing), &nothing, Width::Short);
        let cells = row.cells();
        assert_eq!(cells[2..], ["--", "-- / --", "--", "-- / --", "-- / --", "--"]);
        let used = Usage {
            cpu_micros: Some(7),
            memory: Some(16 << 20),
            memory_max: Some(64 << 20),
            pids: Some(3),
            disk: Some((0, 2_000_000)),
        };
        let some = Sample { used, network: Some((1090, 0)), ..nothing };
        let row = Row::of(of, None, &some, Width::Short);
        let text = rows_as_table(std::slice::from_ref(&row));
        let line = text.lines().nth(1).unwrap();
        assert!(line.contains("16MiB / 64MiB       25.00%   1.09kB / 0B   0B / 2MB    3"), "{text}");
        assert!(text.starts_with("CONTAINER ID   NAME   CPU %   MEM USAGE / LIMIT   MEM %"), "{text}");
        let by = |text| rows_by_template(std::slice::from_ref(&row), &Template::parse(text).unwrap());
        assert_eq!(by("{{.Name}}\t{{ .PIDs }}!").unwrap(), "box\t3!\n");
        assert!(by("{{.Nome}}").unwrap_err().to_string().contains("Nome"));
        let json = rows_as_json(&[row]);
        assert!(json.contains(r#""MemUsage":"16MiB / 64MiB""#) && json.ends_with("}\n"), "{json}");
    }
}
