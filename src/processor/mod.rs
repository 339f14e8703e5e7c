//! (room: processor)
