//! (room: sniffer)
