//! The table of `layerfs stats`, in docker's columns and words.

use std::time::Duration;

use super::Sample;
use crate::container::ContainerId;
use crate::container::view::Width;

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
            memory: pair(used.memory, limit.filter(|_| used.memory.is_some()), binary),
            memory_share: percent(used.memory.zip(limit)),
            network: pair(now.network.map(|both| both.0), now.network.map(|both| both.1), decimal),
            block_io: pair(used.disk.map(|both| both.0), used.disk.map(|both| both.1), decimal),
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

    fn cells(&self) -> [String; 8] {
        let Self { id, name, cpu, memory, memory_share, network, block_io, pids, .. } = self.clone();
        [id, name, cpu, memory, memory_share, network, block_io, pids]
    }
}

/// The table.
#[must_use]
pub fn rows_as_table(rows: &[Row]) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let mut widths = [0; HEADINGS.len()];
    for line in &lines {
        for (widest, cell) in widths.iter_mut().zip(line) {
            *widest = cell.chars().count().max(*widest);
        }
    }
    let aligned = |line: &[String; HEADINGS.len()]| {
        let padded = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}   "));
        format!("{}\n", padded.collect::<String>().trim_end())
    };
    lines.iter().map(aligned).collect()
}

/// What is in a row by a name that it has not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {{{{{0}}}}}: there are {1}")]
pub struct UnknownField(String, String);

/// A line for each, made of a template in which `{{.Name}}` and the like stand for what is in the row.
///
/// # Errors
/// [`UnknownField`]
pub fn rows_by_template(rows: &[Row], template: &str) -> Result<String, UnknownField> {
    let template = template.replace("\\t", "\t").replace("\\n", "\n");
    let mut text = String::new();
    for row in rows {
        let fields = row.fields();
        let mut rest = template.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let (field, behind) = after.split_once("}}").unwrap_or((after, ""));
            let name = field.trim().strip_prefix('.').unwrap_or_default();
            let found = fields.iter().find(|(one, _)| *one == name);
            let all =
                || fields.iter().map(|(name, _)| format!("{{{{.{name}}}}}")).collect::<Vec<_>>().join(" ");
            let (_, value) = found.ok_or_else(|| UnknownField(field.to_owned(), all()))?;
            text.push_str(before);
            text.push_str(value);
            rest = behind;
        }
        text.push_str(rest);
        text.push('\n');
    }
    Ok(text)
}

/// A JSON object in each line.
#[must_use]
pub fn rows_as_json(rows: &[Row]) -> String {
    let object = |row: &Row| serde_json::Value::from_iter(row.fields());
    rows.iter().map(|row| format!("{}\n", object(row))).collect()
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

/// As docker shows memory: four digits that count.
fn binary(bytes: u64) -> String {
    scaled(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

/// As docker shows traffic: three digits that count.
fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000, ["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

fn scaled(number: u64, base: u64, units: [&str; 7], digits: usize) -> String {
    let mut scale = 1_u64;
    let mut unit = units[0];
    for larger in &units[1..] {
        match scale.checked_mul(base) {
            Some(next) if number >= next => (scale, unit) = (next, larger),
            _ => break,
        }
    }
    let whole = number / scale;
    let behind = digits.saturating_sub(whole.to_string().len());
    let tens = 10_u128.pow(u32::try_from(behind).unwrap_or_default());
    let rounded = (u128::from(number) * tens + u128::from(scale) / 2) / u128::from(scale);
    let text = format!("{}.{:0behind$}", rounded / tens, rounded % tens);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::launcher::Usage;

    #[test]
    fn units_are_dockers() {
        let shown = [0, 1023, 1024, 1536, 64 << 20, 7_700_000_000, u64::MAX].map(binary);
        assert_eq!(shown, ["0B", "1023B", "1KiB", "1.5KiB", "64MiB", "7.171GiB", "16EiB"]);
        let shown = [0, 999, 1000, 1090, 12_345, 123_456, 999_999].map(decimal);
        assert_eq!(shown, ["0B", "999B", "1kB", "1.09kB", "12.3kB", "123kB", "1000kB"]);
    }

    #[test]
    fn shares() {
        assert_eq!(percent(cpu_share(Some(100), Some(1_500_100), Some(Duration::from_secs(1)))), "150.00%");
        assert_eq!(percent(cpu_share(Some(0), Some(123), Some(Duration::from_millis(1)))), "12.30%");
        assert_eq!(percent(cpu_share(None, Some(1), Some(Duration::ZERO))), "--");
        assert_eq!(percent(Some((1, 0))), "10000.00%", "no time has gone by");
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
        let by = |template| rows_by_template(std::slice::from_ref(&row), template);
        assert_eq!(by("{{.Name}}\\t{{ .PIDs }}!"), Ok("box\t3!\n".to_owned()));
        assert!(
            by("{{.Nome}}").unwrap_err().to_string().starts_with("there is no {{.Nome}}: there are {{.Block")
        );
        let json = rows_as_json(&[row]);
        assert!(json.contains(r#""MemUsage":"16MiB / 64MiB""#) && json.ends_with("}\n"), "{json}");
    }
}
