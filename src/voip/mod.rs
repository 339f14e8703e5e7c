//! (room: voip)
