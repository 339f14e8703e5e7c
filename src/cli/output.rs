//! Results on stdout, errors on stderr. The only file that writes to either (logs apart).

use std::io::{self, IsTerminal, Write};

use crate::config::OutputFormat;
use crate::telemetry::is_plain;

use super::exit::Stop;

/// What a command found, for people and for programs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listing {
    /// Column heads of the table.
    pub(super) columns: Vec<&'static str>,
    /// Its rows, as long as `columns`.
    pub(super) rows: Vec<Vec<String>>,
    /// The same as JSON.
    pub(super) json: serde_json::Value,
}

impl Listing {
    /// Prints it.
    pub(super) fn print(&self, format: OutputFormat) -> Result<(), Stop> {
        match format {
            OutputFormat::Text => print(&self.table()),
            OutputFormat::Json if io::stdout().is_terminal() => print(&format!("{:#}\n", self.json)),
            OutputFormat::Json => print(&format!("{}\n", self.json)),
        }
    }

    fn table(&self) -> String {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, head)| {
                let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| printable(cell).chars().count());
                cells.chain([head.len()]).max().unwrap_or_default()
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = String>| {
            let cells: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        let mut out = line(&mut self.columns.iter().map(|head| head.to_uppercase()));
        for row in &self.rows {
            out.push_str(&line(&mut row.iter().map(|cell| printable(cell))));
        }
        out
    }
}

/// Writes to stdout.
pub(super) fn print(text: &str) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Writes an error to stderr, each line with its head.
pub(super) fn error(text: &str) {
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        // Nobody is left to be told when this fails.
        let _written = writeln!(stderr, "error: {}", printable(line));
    }
}

/// Whether somebody reads stderr as it comes.
pub(super) fn errors_are_on_a_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Writes the last line of a terminal anew; the cursor stays in front of it, so that a log line takes its place.
pub(super) fn status(text: &str) {
    let mut stderr = io::stderr().lock();
    // Nobody is left to be told when this fails.
    let _written = write!(stderr, "\r\x1b[K{text}\r");
}

/// What cannot be shown as it is, escaped: what is printed may come from a peer.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if is_plain(c) { vec![c] } else { c.escape_default().collect::<Vec<_>>() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_hostile_cells_escaped() {
        let listing = Listing {
            columns: vec!["id", "state"],
            rows: vec![vec!["a\u{1b}[2J".to_owned(), "up".to_owned()], vec!["\u{202e}long".to_owned(), "down".to_owned()]],
            json: serde_json::Value::Null,
        };

        assert_eq!(listing.table(), "ID            STATE\na\\u{1b}[2J    up\n\\u{202e}long  down\n");
    }
}
