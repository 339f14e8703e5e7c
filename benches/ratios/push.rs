//! How soon hunters run what was written into the filter file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use crate::Bench;
use crate::process::{Processor, lc, terminate};
use crate::table::{Goal, Row, Spread, Unit};

/// A live hunter on the loopback interface: from the writing of the file until it says that it has applied it. `None` where it cannot capture.
pub(crate) fn row(bench: &Bench, dir: &Path) -> Option<Row> {
    write(dir, 1);
    let processor = Processor::start(dir, &["--insecure", "--filter-file", "filters.yaml"]);
    let address = processor.address();
    let arguments = ["hunt", "voip", "-P", &address, "--insecure", "--id", "bench", "-i", "lo", "--log-format", "json"];
    let mut hunter = lc(dir, &arguments).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(hunter.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut applied = |filters| {
        let told = format!("\"message\":\"filters applied\",\"filters\":{filters},");
        lines.any(|line| line.contains(&told))
    };
    let mut figures = applied(1).then(Vec::new);
    for filters in 2..2 + bench.rounds {
        let start = Instant::now();
        write(dir, filters);
        figures = figures.filter(|_| applied(filters));
        if let Some(figures) = &mut figures {
            figures.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    terminate(&hunter);
    hunter.wait().unwrap();
    processor.stop();
    let what = "push: from a change of the filter file until it is applied".to_owned();
    let from = "the file is looked at every 250 ms".to_owned();
    Some(Row { what, figure: Spread::of(figures?), unit: Unit::Millis, goal: Goal::AtMost(1000.0), from })
}

fn write(dir: &Path, filters: usize) {
    let lines: Vec<String> = (0..filters).map(|n| format!("  - {{id: f{n}, type: sip_user, pattern: 'user{n}'}}")).collect();
    fs::write(dir.join("filters.new"), format!("filters:\n{}\n", lines.join("\n"))).unwrap();
    fs::rename(dir.join("filters.new"), dir.join("filters.yaml")).unwrap();
}
