//! (room: filter)
