//! The E-model (ITU-T G.107), reduced to what a passive listener can know: codec and loss.
//!
//! ```text
//! R      = 93.2 − Id − Ie,eff + A
//! Ie,eff = Ie + (95 − Ie) · Ppl / (Ppl / BurstR + Bpl)
//! MOS    = 1 + 0.035·R + R·(R − 60)·(100 − R)·7·10⁻⁶      (1 below R = 0, 4.5 above 100)
//! ```
//!
//! 93.2 is R of G.107's default values. Id (delay) and A (advantage) are 0: one-way delay cannot be measured from one
//! point. So the value is an upper bound, at most 4.41, on the narrow-band scale.
//!
//! Refuses: a value for a codec without published constants, wide-band ones (another scale, G.107.1) among them.

/// The formula, for records that carry a value made by it.
pub const FORMULA: &str = "R = 93.2 - Id - Ie,eff + A; Ie,eff = Ie + (95 - Ie) * Ppl / (Ppl / BurstR + Bpl); Id = 0; A = 0; \
     MOS = 1 + 0.035 * R + R * (R - 60) * (100 - R) * 7e-6 (ITU-T G.107)";

const R_DEFAULT: f64 = 93.2;

/// A codec's equipment impairment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constants {
    /// Impairment without loss.
    pub ie: f64,
    /// Robustness against loss.
    pub bpl: f64,
    /// For which codec, and where the values stand.
    pub source: &'static str,
}

/// The result and what went into it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Transmission rating, 0–93.2.
    pub r: f64,
    /// Mean opinion score, 1–4.41.
    pub mos: f64,
    /// Packet loss in percent.
    pub ppl: f64,
    /// Burst ratio used.
    pub burst_r: f64,
    /// Codec constants used.
    pub constants: Constants,
}

/// The constants of an encoding, by its RTP name; `None` where no value is published for what the name says alone.
pub fn constants_for(encoding: &str) -> Option<Constants> {
    let is = |name: &str| encoding.eq_ignore_ascii_case(name);
    if is("PCMU") || is("PCMA") {
        Some(Constants { ie: 0.0, bpl: 25.1, source: "G.711 with loss concealment, ITU-T G.113 appendix I" })
    } else if is("G729") {
        Some(Constants { ie: 11.0, bpl: 19.0, source: "G.729A with VAD, ITU-T G.113 appendix I" })
    } else if is("GSM-EFR") {
        Some(Constants { ie: 5.0, bpl: 10.0, source: "GSM EFR, ITU-T G.113 appendix I" })
    } else {
        None
    }
}

/// The rating for a loss of `ppl` percent in bursts of ratio `burst_r` (1 = random loss).
///
/// Values that are no numbers or out of range are brought into it: 0 ≤ `ppl` ≤ 100, `burst_r` ≥ 1.
pub fn estimate(constants: Constants, ppl: f64, burst_r: f64) -> Estimate {
    let ppl = if ppl.is_finite() { ppl.clamp(0.0, 100.0) } else { 0.0 };
    let burst_r = if burst_r.is_finite() { burst_r.max(1.0) } else { 1.0 };
    let Constants { ie, bpl, .. } = constants;
    let ie_eff = ie + (95.0 - ie) * ppl / (ppl / burst_r + bpl);
    let r = R_DEFAULT - ie_eff;
    Estimate { r, mos: mos(r), ppl, burst_r, constants }
}

/// G.107 annex B: from R to the mean opinion score.
pub fn mos(r: f64) -> f64 {
    if r <= 0.0 {
        1.0
    } else if r >= 100.0 {
        4.5
    } else {
        // below R = 6.5 the polynomial dips under the scale's lowest score
        (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 0.005
    }

    #[test]
    fn no_loss_gives_the_narrow_band_maximum() {
        let e = estimate(constants_for("pcmu").unwrap(), 0.0, 1.0);

        // 1 + 0.035·93.2 + 93.2·33.2·6.8·7e-6 = 1 + 3.262 + 0.14728 = 4.409
        assert!(close(e.r, 93.2) && close(e.mos, 4.409), "{e:?}");
    }

    #[test]
    fn loss_lowers_it_as_computed_by_hand() {
        // G.711 with 5 %: Ie,eff = 95·5/(5 + 25.1) = 15.78; R = 77.42;
        // MOS = 1 + 2.7097 + 77.42·17.42·22.58·7e-6 = 3.7097 + 0.2132 = 3.923
        let e = estimate(constants_for("PCMA").unwrap(), 5.0, 1.0);
        assert!(close(e.r, 77.42) && close(e.mos, 3.923), "{e:?}");

        // G.729A with 2 %: Ie,eff = 11 + 84·2/21 = 19; R = 74.2;
        // MOS = 1 + 2.597 + 74.2·14.2·25.8·7e-6 = 3.597 + 0.1903 = 3.787
        let e = estimate(constants_for("G729").unwrap(), 2.0, 1.0);
        assert!(close(e.r, 74.2) && close(e.mos, 3.787), "{e:?}");

        // The same in bursts of ratio 2: Ie,eff = 11 + 168/(1 + 19) = 19.4
        let e = estimate(constants_for("G729").unwrap(), 2.0, 2.0);
        assert!(close(e.r, 73.8), "{e:?}");
    }

    #[test]
    fn stays_on_the_scale_for_every_rating() {
        for tenth in -200..=1200 {
            let score = mos(f64::from(tenth) / 10.0);

            assert!((1.0..=4.5).contains(&score), "R = {}: {score}", f64::from(tenth) / 10.0);
        }
    }

    #[test]
    fn codecs_without_published_constants_get_none() {
        assert!(["opus", "G722", "AMR-WB", "G723", "telephone-event", ""].iter().all(|c| constants_for(c).is_none()));
    }

    #[test]
    fn nonsense_stays_on_the_scale() {
        let c = constants_for("PCMU").unwrap();
        for (ppl, burst) in [(f64::NAN, f64::NAN), (-5.0, 0.0), (1e9, f64::INFINITY), (100.0, 1e300)] {
            let e = estimate(c, ppl, burst);
            assert!((1.0..=4.41).contains(&e.mos), "{e:?}");
        }
        assert!(close(mos(-1.0), 1.0) && close(mos(101.0), 4.5));
    }
}
