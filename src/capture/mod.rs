//! (room: capture)
