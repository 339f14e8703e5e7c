//! (room: hunter)
