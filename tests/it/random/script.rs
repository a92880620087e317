//! A script as text.

use crate::support::may_pass_through;

/// The lines of an image, and those of what is done upon it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) image: Vec<String>,
    pub(super) steps: Vec<String>,
}

impl Script {
    pub(super) fn parse(text: &str) -> Self {
        let mut script = Self::default();
        let mut in_steps = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line == "steps" {
                in_steps = true;
            } else if in_steps {
                script.steps.push(line.to_owned());
            } else {
                script.image.push(line.to_owned());
            }
        }
        script
    }

    pub(super) fn text(&self) -> String {
        format!("{}\nsteps\n{}\n", self.image.join("\n"), self.steps.join("\n"))
    }

    /// As whom the last worker acts when the test runs as root; 0 for root.
    pub(super) fn user(&self) -> &str {
        self.word(1).unwrap_or("0")
    }

    /// With which option it is mounted, where that can be done: who has what is written.
    pub(super) fn option(&self) -> Option<&'static str> {
        match self.word(2) {
            Some("back") => Some("writeback"),
            Some("passed") if may_pass_through() => Some("passthrough"),
            _ => None,
        }
    }

    fn word(&self, at: usize) -> Option<&str> {
        let image = self.image.iter().find_map(|line| line.strip_prefix("image "));
        image.and_then(|image| image.split(' ').nth(at))
    }
}
