//! (room: telemetry)
