//! The interfaces of this machine, for `lc list interfaces`.

use std::net::IpAddr;

use pcap::{Capture, ConnectionStatus, Device};

use super::handle::link_of;
use super::{CaptureError, bpf, sys};
use crate::packet::LinkType;

/// One interface as libpcap knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "libpcap's independent flags, as they are shown")]
pub struct InterfaceListing {
    /// What `-i` takes.
    pub name: String,
    /// In words, where there are any.
    pub description: Option<String>,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
    /// Administratively up.
    pub up: bool,
    /// Up and able to carry traffic.
    pub running: bool,
    /// The machine talks to itself.
    pub loopback: bool,
    /// Wi-Fi and the like.
    pub wireless: bool,
    /// Whether there is a link, where that means something and is known.
    pub connected: Option<bool>,
    /// The link types it offers, the one in use first, with libpcap's names; `None` where this user may not open it.
    pub links: Option<Vec<(LinkType, String)>>,
}

/// Lists the network interfaces and `any`, in libpcap's order (up and running ones first).
///
/// # Errors
/// libpcap cannot list devices.
pub fn list_interfaces() -> Result<Vec<InterfaceListing>, CaptureError> {
    let devices = Device::list().map_err(|e| CaptureError::Live { name: "any interface".to_owned(), reason: bpf::reason(&e) })?;
    Ok(devices.into_iter().filter(is_interface).map(listing).collect())
}

/// The names of interfaces for an error message.
pub(super) fn names(devices: &[Device]) -> String {
    let names: Vec<&str> = devices.iter().filter(|d| is_interface(d) && d.name != "any").map(|d| d.name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// libpcap also lists log groups, USB and Bluetooth monitors.
fn is_interface(device: &Device) -> bool {
    device.name == "any" || sys::interface_index(&device.name).is_some()
}

fn listing(device: Device) -> InterfaceListing {
    let links = links(&device.name);
    let flags = &device.flags;
    InterfaceListing {
        up: flags.is_up(),
        running: flags.is_running(),
        loopback: flags.is_loopback(),
        wireless: flags.is_wireless(),
        connected: match flags.connection_status {
            ConnectionStatus::Connected => Some(true),
            ConnectionStatus::Disconnected => Some(false),
            ConnectionStatus::Unknown | ConnectionStatus::NotApplicable => None,
        },
        addresses: device.addresses.iter().map(|a| a.addr).collect(),
        name: device.name,
        description: device.desc,
        links,
    }
}

fn links(name: &str) -> Option<Vec<(LinkType, String)>> {
    let open = Capture::from_device(name).ok()?.snaplen(64).buffer_size(1 << 20).timeout(1000).open().ok()?;
    let current = open.get_datalink();
    let mut all = open.list_datalinks().ok()?;
    if name == "any" {
        // It is always opened so; see `live`.
        all.retain(|l| *l == pcap::Linktype::LINUX_SLL);
    }
    all.sort_by_key(|l| *l != current);
    Some(all.into_iter().map(|l| (link_of(l), l.get_name().unwrap_or_else(|_| l.0.to_string()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_listed_and_monitors_are_not() {
        let all = list_interfaces().unwrap();

        let lo = all.iter().find(|i| i.name == "lo").unwrap();
        assert!(lo.loopback);
        assert!(!all.iter().any(|i| i.name.starts_with("nf") || i.name.starts_with("usbmon")));
    }
}
