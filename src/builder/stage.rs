//! What a build has made so far: the config that instructions change, variables, and the layers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::steps::{Form, Step};
use super::words;
use crate::container::Moment;
use crate::layer::LayerSource;
use crate::model::ImageConfig;

/// What shell forms are for, unless `SHELL` says otherwise.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The one stage of a build.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) config: ImageConfig,
    /// Base first.
    pub(super) layers: Vec<LayerSource>,
    /// What `ARG` declared and somebody set.
    pub(super) args: BTreeMap<String, String>,
    pub(super) escape: char,
    /// `CMD` stands in this Dockerfile, so a new entrypoint does not make it meaningless.
    own_cmd: bool,
}

impl Stage {
    pub(super) fn new(config: ImageConfig, layers: Vec<LayerSource>, escape: char) -> Self {
        Self { config, layers, args: BTreeMap::new(), escape, own_cmd: false }
    }

    /// Puts variables in: those of `ENV` win over those of `ARG`.
    pub(super) fn expand(&self, word: &str) -> Result<String, String> {
        words::expand(word, self.escape, &|name| self.variable(name))
    }

    fn variable(&self, name: &str) -> Option<String> {
        let set = self.config.config.env.iter().rev().filter_map(|pair| pair.split_once('='));
        let env = set.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
        env.or_else(|| self.args.get(name).cloned())
    }

    /// The program and arguments of a command.
    pub(super) fn command(&self, form: &Form) -> Vec<String> {
        match form {
            Form::Exec(list) => list.clone(),
            Form::Shell(text) => {
                let mut list = self.shell();
                list.push(text.clone());
                list
            }
        }
    }

    fn shell(&self) -> Vec<String> {
        let set = self
            .config
            .config
            .other
            .get("Shell")
            .and_then(|shell| serde_json::from_value(shell.clone()).ok());
        set.unwrap_or_else(|| SHELL.map(str::to_owned).to_vec())
    }

    /// The directory that relative paths begin at.
    pub(super) fn workdir(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            dir => dir,
        }
    }

    /// Carries out an instruction that only changes the config. Gives back any other.
    pub(super) fn configure<'a>(&mut self, step: &'a Step) -> Result<Option<&'a Step>, String> {
        match step {
            Step::Env(pairs) => {
                // Variables have the values that they had before the whole instruction.
                let pairs = pairs.iter().map(|(key, value)| Ok((self.expand(key)?, self.expand(value)?)));
                for (key, value) in pairs.collect::<Result<Vec<_>, String>>()? {
                    let env = &mut self.config.config.env;
                    env.retain(|pair| pair.split_once('=').is_none_or(|(known, _)| known != key));
                    env.push(format!("{key}={value}"));
                }
            }
            Step::Label(pairs) => {
                for (key, value) in pairs {
                    let (key, value) = (self.expand(key)?, self.expand(value)?);
                    self.config.config.labels.insert(key, value);
                }
            }
            Step::User(user) => self.config.config.user = self.expand(user)?,
            Step::Cmd(form) => {
                self.config.config.cmd = self.command(form);
                self.own_cmd = true;
            }
            Step::Entrypoint(form) => {
                self.config.config.entrypoint = self.command(form);
                if !self.own_cmd {
                    self.config.config.cmd.clear();
                }
            }
            Step::Shell(shell) => self.set("Shell", json!(shell)),
            Step::Expose(ports) => {
                for port in ports {
                    let port = port_of(&self.expand(port)?)?;
                    self.add("ExposedPorts", port)?;
                }
            }
            Step::Volume(volumes) => {
                for volume in volumes {
                    let volume = self.expand(volume)?;
                    self.add("Volumes", volume)?;
                }
            }
            Step::StopSignal(signal) => self.config.config.stop_signal = Some(self.expand(signal)?),
            Step::Healthcheck(check) => self.set("Healthcheck", check.clone()),
            Step::Maintainer(name) => {
                self.config.other.insert("author".to_owned(), json!(name));
            }
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    /// Changes the directory that what follows starts in, and returns it.
    pub(super) fn enter(&mut self, dir: &str) -> Result<String, String> {
        let dir = self.expand(dir)?;
        let from = if dir.starts_with('/') { String::new() } else { self.workdir().to_owned() };
        let mut names: Vec<&str> = Vec::new();
        for name in from.split('/').chain(dir.split('/')) {
            match name {
                "" | "." => {}
                ".." => {
                    names.pop();
                }
                name => names.push(name),
            }
        }
        let entered = format!("/{}", names.join("/"));
        self.config.config.working_dir.clone_from(&entered);
        Ok(entered)
    }

    /// Writes down what was done, as `docker history` shows it.
    pub(super) fn remember(&mut self, text: &str, layer: Option<LayerSource>) {
        let mut entry = Map::new();
        entry.insert("created".to_owned(), json!(Moment::now().to_string()));
        entry.insert("created_by".to_owned(), json!(text));
        if layer.is_none() {
            entry.insert("empty_layer".to_owned(), json!(true));
        }
        if let Some(LayerSource::Tar(tar)) = &layer {
            self.config.rootfs.diff_ids.push(tar.diff_id);
        }
        self.layers.extend(layer);
        let history = self.config.other.entry("history".to_owned()).or_insert_with(|| json!([]));
        match history {
            Value::Array(list) => list.push(Value::Object(entry)),
            // Docker writes null for none.
            other => *other = json!([entry]),
        }
    }

    fn set(&mut self, key: &str, value: Value) {
        self.config.config.other.insert(key.to_owned(), value);
    }

    /// Adds to a set, which Go writes as an object of empty objects.
    fn add(&mut self, key: &str, member: String) -> Result<(), String> {
        let set = self.config.config.other.entry(key.to_owned()).or_insert_with(|| json!({}));
        if set.is_null() {
            *set = json!({});
        }
        let set = set.as_object_mut().ok_or_else(|| format!("the base image's {key} is no object"))?;
        set.insert(member, json!({}));
        Ok(())
    }
}

/// `PORT[-PORT][/PROTOCOL]`, with the protocol that docker adds.
fn port_of(text: &str) -> Result<String, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let valid = !ports.is_empty() && ports.split('-').all(|port| port.parse::<u16>().is_ok());
    if valid && matches!(protocol, "tcp" | "udp" | "sctp") {
        Ok(format!("{ports}/{protocol}"))
    } else {
        Err(format!("EXPOSE {text}: expected PORT[/tcp|udp|sctp]"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{dockerfile, steps};
    use super::*;

    fn after(text: &str) -> Result<Stage, String> {
        let (lines, escape) = dockerfile::lines(text).unwrap();
        let mut stage = Stage::new(ImageConfig::default(), Vec::new(), escape);
        stage.config.config.cmd = vec!["base".to_owned()];
        for line in lines {
            let step = steps::step(&line, escape).map_err(|error| error.to_string())?;
            match stage.configure(&step)? {
                Some(Step::Workdir(dir)) => {
                    stage.enter(dir)?;
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
        Ok(stage)
    }

    #[test]
    fn variables_are_those_from_before() {
        let stage = after("ENV A=1\nENV A=2 B=$A\nENV C=${B}x\nLABEL l=\"$C $A\"\n").unwrap();
        assert_eq!(stage.config.config.env, ["A=2", "B=1", "C=1x"]);
        assert_eq!(stage.config.config.labels["l"], "1x 2");
    }

    #[test]
    fn entrypoint_and_command() {
        assert!(after("ENTRYPOINT [\"e\"]").unwrap().config.config.cmd.is_empty());
        assert_eq!(after("CMD x\nENTRYPOINT [\"e\"]").unwrap().config.config.cmd, ["/bin/sh", "-c", "x"]);
        assert_eq!(after("SHELL [\"/b\"]\nCMD x").unwrap().config.config.cmd, ["/b", "x"]);
    }

    #[test]
    fn directories_add_up() {
        for (text, expected) in
            [("WORKDIR a", "/a"), ("WORKDIR /a/b\nWORKDIR ../c", "/a/c"), ("ENV D=/x\nWORKDIR $D/", "/x")]
        {
            assert_eq!(after(text).unwrap().workdir(), expected);
        }
    }

    #[test]
    fn sets() {
        let stage = after("EXPOSE 80 53/udp\nVOLUME [\"/v\"]\nVOLUME /w /x").unwrap();
        assert_eq!(stage.config.config.other["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(stage.config.config.other["Volumes"], json!({"/v": {}, "/w": {}, "/x": {}}));
        assert!(after("EXPOSE 99999").is_err());
    }
}
