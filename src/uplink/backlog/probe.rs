//! Asking a silent peer whether its pause is still meant.

/// A question whether a pause is still meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Probe {
    /// None is asked.
    #[default]
    No,
    /// One batch may go out in spite of the pause.
    Allowed,
    /// It went out.
    Sent,
}
