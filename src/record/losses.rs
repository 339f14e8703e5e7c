//! What hunters lost or have not sent yet, as a restart finds it again.

use std::sync::Arc;

/// Of one hunter. Times are by its clock, in ns since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct HunterLosses {
    /// Its id.
    pub hunter: String,
    /// When packets were lost.
    pub windows: Vec<LossWindow>,
    /// What its runs have said of their kernels and interfaces so far.
    pub runs: Vec<RunLosses>,
    /// The last packet of each epoch.
    pub last: Vec<(u64, i64)>,
    /// Batches it said it gave up: epoch, first and last number.
    pub declared: Vec<(u64, u64, u64)>,
}

/// A time in which packets were lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct LossWindow {
    /// `kernel_dropped`, `interface_dropped`, `undeclared`, `pending`, a drop reason.
    pub reason: String,
    /// Since when; none: since the hunter began.
    pub from: Option<i64>,
    /// Until when.
    pub until: i64,
    /// How many, less those that came after all.
    pub packets: u64,
    /// Where they stand among the packets of their epoch, if they may still come.
    pub gap: Option<Gap>,
    /// Records of closed calls that name this loss.
    pub records: Vec<String>,
}

/// Packets of an epoch that did not come in their turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Gap {
    /// The epoch.
    pub epoch: u64,
    /// Index of the first.
    pub first: u64,
    /// Index of the packet after the last.
    pub end: u64,
}

/// What one run of a hunter has said it lost, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RunLosses {
    /// Its instance.
    pub run: u64,
    /// When it said so.
    pub at: i64,
    /// Frames dropped by its kernel.
    pub kernel: u64,
    /// Frames dropped by its interfaces.
    pub interface: u64,
    /// It said that it stops.
    #[serde(default)]
    pub stopped: bool,
}

/// What a hunter said of one of its runs, as it is written down: no packet says it again after a crash of whoever heard it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RunWord {
    /// The hunter.
    pub hunter: Arc<str>,
    /// The run, and what it has lost so far.
    pub said: RunLosses,
    /// When it began, where its losses are told from there on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<i64>,
    /// It begins to capture.
    #[serde(default)]
    pub begins: bool,
}
