//! (room: uplink)
