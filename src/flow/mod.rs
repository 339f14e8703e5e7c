//! (room: flow)
