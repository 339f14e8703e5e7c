//! `lc list interfaces`, `lc list hunters`.

use clap::ArgMatches;

use crate::capture;
use crate::config::RemoteConfig;
use crate::uplink::manage::HunterAnswer;

use super::exit::{Outcome, Stop};
use super::inspection;
use super::output::Listing;
use super::runtime;
use super::show;
use super::start;

pub(super) fn run(matches: &ArgMatches) -> Result<Outcome, Stop> {
    match matches.subcommand() {
        Some(("interfaces", matches)) => {
            let settings = start::start(matches)?.merged.settings()?;
            interfaces()?.print(settings.remote.output_format)?;
        }
        Some(("hunters", matches)) => {
            let started = start::start(matches)?;
            let config = started.merged.remote(&started.environment)?;
            let format = config.remote.output_format;
            runtime::block_on(hunters(config))?.print(format)?;
        }
        _ => return Err(Stop::usage("list what? see 'lc list --help'")),
    }
    Ok(Outcome::Done)
}

/// Name, addresses and state of every interface.
fn interfaces() -> Result<Listing, Stop> {
    let all = capture::list_interfaces().map_err(inspection::source_error)?;
    let rows = all
        .iter()
        .map(|i| {
            let addresses: Vec<String> = i.addresses.iter().map(ToString::to_string).collect();
            vec![
                i.name.clone(),
                if i.up { "up" } else { "down" }.to_owned(),
                addresses.join(","),
                i.description.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let json = all
        .iter()
        .map(|i| {
            let addresses: Vec<String> = i.addresses.iter().map(ToString::to_string).collect();
            let links: Option<Vec<u16>> = i.links.as_ref().map(|l| l.iter().map(|(link, _)| link.0).collect());
            serde_json::json!({
                "name": i.name, "description": i.description, "up": i.up, "loopback": i.loopback, "addresses": addresses, "link_types": links
            })
        })
        .collect();
    Ok(Listing { columns: vec!["name", "state", "addresses", "description"], rows, json: serde_json::Value::Array(json) })
}

/// Every hunter the processor knows.
async fn hunters(config: RemoteConfig) -> Result<Listing, Stop> {
    let answer = show::fetch(&config, "").await?;
    let row = |h: &HunterAnswer| {
        let [captured, matched, forwarded, dropped] = h.packets.map(|n| n.to_string());
        let filters = format!("{}/{}", h.active_filters, h.filters);
        let (status, from) = (h.status.to_owned(), h.interfaces.join(","));
        vec![h.id.clone(), status, h.remote.clone(), from, filters, captured, matched, forwarded, dropped]
    };
    Ok(Listing {
        columns: vec![
            "hunter",
            "status",
            "remote",
            "captures from",
            "filters",
            "captured",
            "matched",
            "acknowledged",
            "given up",
        ],
        rows: answer.all.iter().map(row).collect(),
        json: answer.all.iter().map(show::json).collect(),
    })
}
