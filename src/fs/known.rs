//! What is known of a node's object in the upper without asking for it again. Each question is a system call by way of
//! `/proc`; stat(2) is a tenth of that, and is always asked.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::node::Node;
use super::xattr::CAPABILITY;
use super::{Fs, FsError};
use crate::model::posix_acl;
use crate::upper::{Recorded, UpperAttr};

/// Answers, for the few nodes that are asked often. They hold until the next [`Changing`]; while there is one, everything
/// is asked.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Counts what made answers void: one that was on its way meanwhile is not kept.
    changes: u32,
    /// How many changes are being made.
    open: u32,
    answers: Option<Box<Answers>>,
}

#[derive(Debug, Default)]
struct Answers {
    /// What is recorded of owner and mode.
    recorded: Option<Recorded>,
    /// The default ACL of a directory; inside, `None` when it has none.
    default_acl: Option<Option<Arc<[u8]>>>,
    /// It has no file capabilities. That it has some is not kept: the system takes them away by itself.
    is_incapable: bool,
}

/// While this lives, owner, mode or extended attributes of an object are being changed.
#[derive(Debug)]
#[must_use]
pub(super) struct Changing<'a>(&'a Node);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.known().open -= 1;
    }
}

impl Known {
    /// Where to keep an answer that was asked for when there had been so many changes; `None` when it is void by now.
    fn answers_after(&mut self, changes: u32) -> Option<&mut Answers> {
        (self.open == 0 && self.changes == changes).then(|| &mut **self.answers.get_or_insert_default())
    }
}

impl Node {
    /// To be called before a change, and kept until it is made or has failed.
    pub(super) fn changing(&self) -> Changing<'_> {
        let mut known = self.known();
        *known = Known { changes: known.changes.wrapping_add(1), open: known.open + 1, answers: None };
        Changing(self)
    }

    /// Asks, unless `kept` gives the answer, and keeps what is said.
    fn known_or<T: Clone>(
        &self,
        kept: impl Fn(&mut Answers) -> &mut Option<T>,
        ask: impl FnOnce() -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        let changes = {
            let mut known = self.known();
            if let Some(answer) = known.answers.as_mut().and_then(|answers| kept(answers).clone()) {
                return Ok(answer);
            }
            known.changes
        };
        let answer = ask()?;
        if let Some(answers) = self.known().answers_after(changes) {
            *kept(answers) = Some(answer.clone());
        }
        Ok(answer)
    }

    /// Says what is known of an object that has just been created, and has no attributes but those of its directory.
    pub(super) fn is_new(&self, recorded: Recorded) {
        if let Some(answers) = self.known().answers_after(0) {
            *answers = Answers { recorded: Some(recorded), is_incapable: true, default_acl: None };
        }
    }
}

impl Fs {
    /// What stat(2) says of a node's object in the upper, recorded owners applied.
    pub(super) fn upper_attr(&self, node: &Node, pinned: &OwnedFd) -> Result<UpperAttr, FsError> {
        let upper = self.upper()?;
        let mut asked = None;
        let recorded = node.known_or(
            |known| &mut known.recorded,
            || {
                let (attr, recorded) = upper.attr_and_record(pinned, b"(node)")?;
                asked = Some(attr);
                Ok(recorded)
            },
        )?;
        asked.map_or_else(|| Ok(upper.attr_as(pinned, recorded)?), Ok)
    }

    /// The default ACL of a directory of the upper.
    pub(super) fn default_acl(&self, dir: &Node, pinned: &OwnedFd) -> Result<Option<Arc<[u8]>>, FsError> {
        let ask = || Ok(self.upper()?.xattr(pinned, posix_acl::DEFAULT)?.map(Arc::from));
        dir.known_or(|known| &mut known.default_acl, ask)
    }

    /// Whether a regular file of the upper has capabilities (capabilities(7)).
    pub(super) fn has_capabilities(&self, node: &Node, pinned: &OwnedFd) -> Result<bool, FsError> {
        let changes = {
            let known = node.known();
            if known.answers.as_ref().is_some_and(|answers| answers.is_incapable) {
                return Ok(false);
            }
            known.changes
        };
        let has = self.upper()?.xattr(pinned, CAPABILITY)?.is_some();
        if !has && let Some(answers) = node.known().answers_after(changes) {
            answers.is_incapable = true;
        }
        Ok(has)
    }
}
