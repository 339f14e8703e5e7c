//! The names of interfaces: a registration lists those of a live hunter, and the files of one that reads files. What a capture file says of its
//! own interfaces comes to light while it is read; packets of such an interface carry its name with them.

use std::path::Path;
use std::sync::Arc;

use crate::batch::Encoder;
use crate::capture::Source;
use crate::packet::InterfaceId;

/// What the processor knows of a source's interfaces.
pub struct Names {
    registered: Arc<[String]>,
    /// Interfaces of the source that were looked at.
    known: usize,
}

impl Names {
    /// With the names in the registration, by number.
    pub fn new(registered: Arc<[String]>) -> Self {
        Self { registered, known: 0 }
    }

    /// Looks at the interfaces that have come to light since the last time.
    pub fn learn(&mut self, source: &dyn Source, encoder: &mut Encoder) {
        let all = source.interfaces();
        for (n, info) in all.iter().enumerate().skip(self.known) {
            let Ok(id) = u16::try_from(n).map(InterfaceId) else { break };
            // a file that names no interface gives its own name, of which the registration has the last part
            let file = source.file_of(id).is_some_and(|(_, file)| *file == *info.name);
            let name = if file {
                Path::new(&info.name).file_name().map_or("".into(), |n| n.to_string_lossy())
            } else {
                info.name.as_str().into()
            };
            if self.registered.get(n).is_none_or(|r| *r != *name) {
                encoder.name_interface(id, &name);
            }
        }
        self.known = all.len();
    }
}
