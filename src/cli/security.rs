//! How commands reach a processor: addresses, TLS, and the warning when there is none.

use std::sync::Arc;

use crate::config::ClientSecurity;
use crate::net::{ClientTls, Dialer, Reloading, Target};

use super::exit::{Exit, Stop};

/// Says loudly what is not protected; `what` is what happens to be unprotected.
pub(super) fn warn_about(security: &ClientSecurity, what: &str) {
    match security {
        ClientSecurity::PlainText => tracing::warn!("INSECURE: {what} in plain text, to whoever answers (--insecure)"),
        ClientSecurity::Tls(tls) if tls.skip_verify => {
            tracing::warn!("INSECURE: {what} encrypted, but to whoever answers (--tls-skip-verify)");
        }
        ClientSecurity::Tls(_) => {}
    }
}

/// The processors named.
pub(super) fn targets(addresses: &[String]) -> Result<Vec<Target>, Stop> {
    addresses.iter().map(|a| a.parse().map_err(|e| Stop::usage(format!("processor {e}")))).collect()
}

/// How they are dialled.
pub(super) fn dialer(security: &ClientSecurity) -> Result<Dialer, Stop> {
    let tls = match security {
        ClientSecurity::PlainText => return Ok(Dialer::insecure()),
        ClientSecurity::Tls(tls) => tls,
    };
    let source = ClientTls {
        ca: tls.ca_file.clone(),
        cert: tls.cert_file.clone(),
        key: tls.key_file.clone(),
        server_name: tls.server_name.clone(),
        crl: tls.crl_file.clone(),
        skip_verify: tls.skip_verify,
    };
    let reloading = Reloading::new(source).map_err(|e| Stop::new(Exit::Usage, e))?;
    let dialer = Dialer::tls(Arc::new(reloading)).with_key(tls.api_key_file.clone());
    // what cannot be read is an error now, not at the first connection
    dialer.key().map_err(|e| Stop::new(Exit::Usage, e))?;
    Ok(dialer)
}
