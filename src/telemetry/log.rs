//! Logs: text on a terminal, JSON lines otherwise, always on stderr, timestamps in UTC (RFC 3339).

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt as lines, reload};

use super::limit::{Limited, Places};

/// Least importance of a line that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Data was lost, or a part stopped.
    Error,
    /// Degraded, still working.
    Warn,
    /// What an operator expects to read.
    Info,
    /// Each flow or decision.
    Debug,
    /// Each packet.
    Trace,
}

impl Level {
    /// Every level, least talkative first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Its name in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The level of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    const fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// Form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The installed log; changes the level while running. Its last word, when it is dropped, is how many lines were suppressed and not told of.
#[derive(Debug)]
pub struct Logging {
    level: reload::Handle<LevelFilter, Registry>,
    json: bool,
    places: Arc<Mutex<Places>>,
}

impl Drop for Logging {
    fn drop(&mut self) {
        let mut text = String::new();
        let told = self.places.lock().tell(usize::MAX);
        let done = told.into_iter().try_for_each(|told| told.write(self.json, &mut lines::format::Writer::new(&mut text)));
        if done.is_ok() {
            // whom to tell that nobody can be told?
            let _unwritten = io::stderr().write_all(text.as_bytes());
        }
    }
}

impl Logging {
    /// Changes the least level, as SIGHUP does.
    pub fn set_level(&self, level: Level) {
        // Fails only when the subscriber is gone, which is at the end of the process.
        let _gone = self.level.reload(level.filter());
    }
}

/// A second log in one process.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up logging")]
pub struct InitError(#[from] TryInitError);

/// Sends all log lines of this process to stderr.
///
/// # Errors
/// When it was called before.
pub fn init(level: Level, format: Format) -> Result<Logging, InitError> {
    let terminal = io::stderr().is_terminal();
    let (filter, handle) = reload::Layer::new(level.filter());
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let places = Arc::default();
    Registry::default().with(filter).with(layer(json, terminal, io::stderr, Arc::clone(&places))).try_init()?;
    Ok(Logging { level: handle, json, places })
}

fn layer<S, W>(json: bool, colour: bool, writer: W, places: Arc<Mutex<Places>>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'w> lines::MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = lines::layer().with_writer(writer).with_timer(lines::time::SystemTime).with_target(false);
    if json {
        layer
            .json()
            .flatten_event(true)
            .with_target(true)
            .with_ansi(false)
            .map_event_format(|f| Limited::new(f, true, places))
            .boxed()
    } else {
        layer.with_ansi(colour).map_event_format(|f| Limited::new(f, false, places)).boxed()
    }
}

/// Longest hostile field in one log line.
pub const MAX_FIELD_BYTES: usize = 256;

/// Bytes from the wire, made fit for one log line: printable ASCII as it is, everything else as `\xNN`, at most
/// [`MAX_FIELD_BYTES`] bytes of input, then `…`.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(MAX_FIELD_BYTES) {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b' '..=b'~' => fmt::Write::write_char(f, char::from(*byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        if self.0.len() > MAX_FIELD_BYTES { f.write_str("…") } else { Ok(()) }
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Longest text of a peer in one log line.
const MAX_TEXT_BYTES: usize = 1024;

/// What a peer says in words, made fit for one log line: control characters as escapes, those too that end a line or turn it around in Unicode,
/// everything else as it is, at most 1 KiB of input, then `…`. For bytes from the wire there is [`Escaped`].
#[derive(Clone, Copy)]
pub struct Said<'a>(pub &'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, c) in self.0.char_indices() {
            if at >= MAX_TEXT_BYTES {
                return f.write_str("…");
            }
            if is_plain(c) { fmt::Write::write_char(f, c)? } else { write!(f, "{}", c.escape_default())? }
        }
        Ok(())
    }
}

/// Whether a sign can be shown as it is: control characters cannot, nor line ends, marks of direction and others that nobody sees (Unicode: Cc, Zl,
/// Zp and most of Cf).
pub fn is_plain(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub(in crate::telemetry) fn logged(json: bool, write: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber =
            Registry::default().with(LevelFilter::INFO).with(layer(json, false, move || writer.clone(), Arc::default()));
        tracing::subscriber::with_default(subscriber, write);
        let bytes = memory.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn any_byte_stays_on_one_line_and_json_parses() {
        let every_byte: Vec<u8> = (0..=255).collect();
        for json in [false, true] {
            for byte in 0..=255_u8 {
                let hostile = [b'a', byte, b'b'];

                let text = logged(json, || tracing::warn!(user = %Escaped(&hostile), raw = ?Escaped(&every_byte), "odd"));

                assert_eq!(text.matches('\n').count(), 1, "{text:?}");
                assert!(text.trim_end().chars().all(|c| !c.is_control()), "{text:?}");
                if json {
                    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(line["message"], "odd");
                    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
                }
            }
        }
    }

    #[test]
    fn what_a_peer_says_stays_on_one_line_and_is_cut() {
        let text = Said("grüße\r\n\u{1b}[2J\u{85}\u{2028}\u{202e}\u{feff}").to_string();

        assert_eq!(text, "grüße\\r\\n\\u{1b}[2J\\u{85}\\u{2028}\\u{202e}\\u{feff}");
        assert_eq!(Said(&"ü".repeat(600)).to_string().chars().count(), 513);
    }

    #[test]
    fn fields_are_cut_at_256_bytes() {
        let text = Escaped(&[b'x'; 1000]).to_string();

        assert_eq!(text.len(), MAX_FIELD_BYTES + "…".len());
    }

    #[test]
    fn less_important_lines_are_not_written() {
        assert_eq!(logged(true, || tracing::debug!("quiet")), "");
    }

    #[test]
    fn every_level_is_found_by_its_name() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Level::from_name("loud"), None);
    }
}
