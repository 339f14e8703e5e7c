//! `--metrics-listen`: where figures and health are served.

use crate::config::{ClientSecurity, ListenHost, ServerSecurity, split_listen};
use crate::net::{PageListener, Transport, listen_addresses};

use super::exit::{Exit, Stop};

/// Listens, if asked to; the first address of a name.
pub(super) async fn listen(address: Option<&str>) -> Result<Option<PageListener>, Stop> {
    let Some(address) = address else { return Ok(None) };
    let (host, port) = split_listen(address);
    let host = host.map(|h| match h {
        ListenHost::Address(ip) => ip.to_string(),
        ListenHost::Name(name) => name,
    });
    let addresses = listen_addresses(host.as_deref(), port).await.map_err(|e| Stop::new(Exit::Usage, e))?;
    let Some(address) = addresses.first() else { return Ok(None) };
    let listener = PageListener::bind(*address).map_err(|e| Stop::new(Exit::Failure, e))?;
    if let Some(address) = listener.address() {
        if !address.ip().is_loopback() {
            tracing::warn!("figures and health are told in plain text to whoever reaches this address");
        }
        tracing::info!(%address, "serving metrics");
    }
    Ok(Some(listener))
}

/// What a hunter's pages say of its connection.
pub(super) fn of_client(security: &ClientSecurity) -> Transport {
    match security {
        ClientSecurity::PlainText => Transport::new(true, Vec::new()),
        ClientSecurity::Tls(tls) => {
            let files = [("own", &tls.cert_file), ("ca", &tls.ca_file)];
            let files = files.into_iter().filter_map(|(role, file)| Some((role, file.clone()?)));
            Transport::new(tls.skip_verify, files.collect())
        }
    }
}

/// What a processor's pages say of its connections.
pub(super) fn of_server(security: &ServerSecurity) -> Transport {
    match security {
        ServerSecurity::PlainText => Transport::new(true, Vec::new()),
        ServerSecurity::Tls { cert_file, client_ca_file, .. } => {
            let files = [("own", Some(cert_file)), ("ca", client_ca_file.as_ref())];
            let files = files.into_iter().filter_map(|(role, file)| Some((role, file?.clone())));
            Transport::new(false, files.collect())
        }
    }
}
