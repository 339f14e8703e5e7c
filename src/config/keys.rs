//! Which keys exist, and which one somebody meant.

use super::options::{self, variable_of};
use crate::pattern::edits;

/// What to say about a key that is no option; `as_variable` when it was an environment variable.
pub(super) fn unknown(key: &str, as_variable: bool) -> String {
    if let Some(why) = not_here(key) {
        return format!("unknown option; {why}");
    }
    match nearest(key) {
        Some(right) if as_variable => format!("unknown option; did you mean {}?", variable_of(right)),
        Some(right) => format!("unknown key '{key}'; did you mean '{right}'?"),
        None if as_variable => "unknown option; see 'lc config defaults'".to_owned(),
        None => format!("unknown key '{key}'; see 'lc config defaults'"),
    }
}

/// Why the predecessor's key is not here, if it is one of those.
pub(super) fn not_here(key: &str) -> Option<&'static str> {
    let names = |known: &str| match known.strip_suffix('.') {
        Some(section) => key == section || key.starts_with(known),
        None => key == known,
    };
    options::NOT_HERE.iter().find(|(known, _)| names(known)).map(|(_, why)| *why)
}

/// Whether options stand below this key.
pub(super) fn is_section(key: &str) -> bool {
    options::all().any(|opt| {
        let mut names = opt.aliases.iter().chain([&opt.key]);
        names.any(|name| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    })
}

/// The key most like `key`: the same last word in another section, else the least edits.
fn nearest(key: &str) -> Option<&'static str> {
    const LONGEST: usize = 80;
    if key.len() > LONGEST {
        return None;
    }
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().replace('-', "_");
    let section = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
    let wanted = key.replace('-', "_");
    // A key cut short ("tls.ca") is nearer to its own continuation than its edits say.
    let distance = |right: &str| if right.starts_with(&wanted) { 1 } else { edits(&wanted, right) };
    // Of sections, only those as deep as what was written.
    let depth = wanted.matches('.').count();
    let sections = |key: &'static str| key.match_indices('.').skip(depth).take(1).filter_map(move |(at, _)| key.get(..at));
    let by_edits = options::all()
        .flat_map(|opt| sections(opt.key).chain([opt.key]))
        .map(|right| (distance(right), right))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, right)| *distance <= 1.max(right.len() / 4));
    let by_word = options::all().find(|opt| last(opt.key) == last(key));
    let same_section = by_edits.filter(|(_, right)| section(right) == section(key));
    same_section.map(|(_, right)| right).or(by_word.map(|opt| opt.key)).or(by_edits.map(|(_, right)| right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_what_somebody_meant() {
        for (written, meant) in [
            ("hunter.batchsize", "hunter.batch_size"),
            ("hunter.batch-size", "hunter.batch_size"),
            ("hunter.tls.ca", "hunter.tls.ca_file"),
            ("procesor.listen_addr", "processor.listen_addr"),
            ("batch_size", "hunter.batch_size"),
            ("log.levle", "log.level"),
            ("procesor", "processor"),
            ("hunter.tsl", "hunter.tls"),
        ] {
            assert_eq!(nearest(written), Some(meant), "{written}");
        }
        assert_eq!(nearest("completely.unrelated"), None);
    }

    #[test]
    fn keys_of_the_predecessor_say_why_they_are_not_here() {
        assert!(unknown("security.api_keys.enabled", false).contains("api_keys_file"));
        assert!(unknown("insecure", false).contains("hunter.insecure"));
    }

    #[test]
    fn no_option_is_also_listed_as_missing() {
        for opt in options::all() {
            for key in opt.aliases.iter().chain([&opt.key]) {
                assert_eq!(not_here(key), None, "{key}");
            }
        }
    }
}
