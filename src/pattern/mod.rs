//! (room: pattern)
