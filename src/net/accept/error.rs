//! Why an address cannot be listened on.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another socket has it.
    #[error("cannot listen on {address}: another program has this address; stop it (`ss -ltnp` shows it) or choose another port")]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// Not allowed.
    #[error("cannot listen on {address}: permission denied; choose a port above 1023 or grant CAP_NET_BIND_SERVICE")]
    Denied {
        /// Where.
        address: SocketAddr,
    },
    /// No interface has it.
    #[error("cannot listen on {address}: no interface of this machine has this address; see `ip address`, or listen on every address with `:{}`", address.port())]
    NotHere {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {cause}; check the address")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The name has no address.
    #[error("cannot listen on `{host}`: the name does not resolve ({cause}); give an address of this machine")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        cause: io::Error,
    },
    /// Nothing to listen on was given.
    #[error("there is no address to listen on; give one with --listen")]
    Nowhere,
}

impl ListenError {
    pub(in crate::net) fn new(address: SocketAddr, cause: io::Error) -> Self {
        let kind = cause.kind();
        if kind == io::ErrorKind::AddrInUse {
            Self::InUse { address }
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::Denied { address }
        } else if kind == io::ErrorKind::AddrNotAvailable {
            Self::NotHere { address }
        } else {
            Self::Other { address, cause }
        }
    }
}
