//! What the upper writes, looked at with plain system calls.

use super::marks::Namespace;
use super::owner::Owners;
use super::{Upper, Whiteouts};

/// In which form an upper keeps what its filesystem or its user cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// What the probes of `open` find.
    Found,
    /// As where device nodes cannot be made.
    NamedWhiteouts,
    /// As for an ordinary user.
    Rootless,
    /// Both.
    RootlessNamed,
}

impl Form {
    /// Whether symlinks cannot carry marks.
    pub(crate) fn is_rootless(self) -> bool {
        matches!(self, Self::Rootless | Self::RootlessNamed) || !rustix::process::geteuid().is_root()
    }
}

impl Upper {
    /// The same upper, as if the probes had found something else.
    pub(crate) fn in_form(mut self, form: Form) -> Self {
        if matches!(form, Form::NamedWhiteouts | Form::RootlessNamed) {
            self.whiteouts = Whiteouts::Named;
        }
        if matches!(form, Form::Rootless | Form::RootlessNamed) {
            self.owners = Owners::Recorded;
            self.namespace = Namespace::User;
        }
        self
    }
}
