//! `lc --version`: the program, its commit and the libpcap it runs with.

/// `0.1.0 (commit 1a2b3c4, libpcap version 1.10.3)`; what is unknown is left out.
pub(super) fn line() -> String {
    let commit = option_env!("LC_COMMIT").map(|commit| format!("commit {commit}"));
    let libpcap = crate::capture::libpcap_version().to_owned();
    let details: Vec<String> = commit.into_iter().chain([libpcap]).collect();
    format!("{} ({})", env!("CARGO_PKG_VERSION"), details.join(", "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn begins_with_the_package_version() {
        assert!(super::line().starts_with(env!("CARGO_PKG_VERSION")));
    }
}
