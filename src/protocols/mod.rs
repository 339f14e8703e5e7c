//! (room: protocols)
