//! How much one engine may remember, and how that shrinks to fit a limit on memory.

use crate::flow::TableLimits;
use crate::flow::tcp::Budget;
use crate::packet::defrag;
use crate::voip::lookback::Lookback;

use super::EngineConfig;

/// What one flow takes: measured with a full table, its index included.
const FLOW_BYTES: usize = 160;
/// What one connection takes that nothing is kept of.
const CONNECTION_BYTES: usize = 2048;
/// No part becomes smaller than this share of its usual size: it would not work any more.
const LEAST: usize = 64;

/// Bounds of the parts that the call table does not know.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections followed at once: 16 384.
    pub connections: usize,
    /// Bytes under reassembly over all connections: 128 MiB.
    pub reassembly_bytes: usize,
    /// Bytes of segments kept over all connections: 64 MiB, as much as undecided calls may hold.
    pub kept_bytes: usize,
    /// Fragments.
    pub fragments: defrag::Limits,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 16_384,
            reassembly_bytes: Budget::DEFAULT_MAX_BYTES,
            kept_bytes: 64 << 20,
            fragments: defrag::Limits::default(),
        }
    }
}

impl EngineConfig {
    /// Flows remembered where nobody says how many: 262 144.
    pub fn usual_flows() -> usize {
        TableLimits::default().max_flows
    }

    /// What an engine takes when every part of it is full.
    pub fn bytes(&self) -> usize {
        let limits = &self.table.limits;
        let parts = [
            self.flows.saturating_mul(FLOW_BYTES),
            limits.call_bytes,
            limits.hold_bytes,
            limits.unclaimed_bytes,
            self.bounds.connections.saturating_mul(CONNECTION_BYTES),
            self.bounds.reassembly_bytes,
            self.bounds.kept_bytes,
            self.bounds.fragments.max_bytes,
            self.lookback_bytes(),
        ];
        parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }

    fn lookback_bytes(&self) -> usize {
        Lookback::bytes(self.table.lookback.0, self.table.lookback.1)
    }

    /// The same engine in at most `bytes`: every part in proportion, down to a sixty-fourth.
    #[must_use]
    pub fn within(mut self, bytes: usize) -> Self {
        let full = self.bytes();
        if full <= bytes {
            return self;
        }
        let shrink = |part: &mut usize| {
            let fitting = (*part as u128).saturating_mul(bytes as u128).checked_div(full as u128).unwrap_or(0);
            let least = part.div_ceil(LEAST);
            *part = usize::try_from(fitting).unwrap_or(*part).max(least);
        };
        let mut lookback = self.lookback_bytes();
        let limits = &mut self.table.limits;
        for part in [
            &mut self.flows,
            &mut limits.calls,
            &mut limits.call_bytes,
            &mut limits.hold_bytes,
            &mut limits.unclaimed_bytes,
            &mut self.bounds.connections,
            &mut self.bounds.reassembly_bytes,
            &mut self.bounds.kept_bytes,
            &mut self.bounds.fragments.max_bytes,
            &mut lookback,
        ] {
            shrink(part);
        }
        self.table.lookback.1 = Lookback::media_within(lookback);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::engine::Mode;
    use crate::packet::headers::DecodeOptions;
    use crate::voip::table::TableConfig;

    fn config() -> EngineConfig {
        EngineConfig {
            mode: Mode::Voip,
            table: TableConfig::default(),
            decode: DecodeOptions::default(),
            keep_duplicates: false,
            flows: 262_144,
            bounds: Bounds::default(),
        }
    }

    #[test]
    fn an_engine_fits_into_what_it_is_given_and_keeps_its_proportions() {
        let full = config();
        for mib in [32, 64, 128, 256, 512] {
            let fitted = full.within(mib << 20);
            assert!(fitted.bytes() <= mib << 20, "{mib} MiB: {}", fitted.bytes());
            let (flows, calls) = (fitted.flows * 1000 / full.flows, fitted.table.limits.calls * 1000 / full.table.limits.calls);
            assert!(flows.abs_diff(calls) <= 1, "{mib} MiB: {flows} and {calls} thousandths");
        }
        assert_eq!(full.within(1 << 40).flows, full.flows);
        assert_eq!(full.table.lookback.0, Duration::ZERO);
        let idle = EngineConfig { table: TableConfig { lookback: (Duration::ZERO, 1 << 30), ..full.table }, ..full };
        assert_eq!(idle.bytes(), full.bytes(), "look-back that is off takes nothing from the others");
        let kept = EngineConfig { table: TableConfig { lookback: (Duration::from_secs(30), 256 << 20), ..full.table }, ..full };
        for mib in [64, 128, 512, 700] {
            let fitted = kept.within(mib << 20);
            assert!(fitted.bytes() <= mib << 20 && fitted.bytes() > (mib << 20) * 9 / 10, "{mib} MiB: {}", fitted.bytes());
        }
        assert!(full.within(0).table.limits.calls > 1000, "it still works");
    }
}
