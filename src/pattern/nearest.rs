//! "Did you mean": the known word nearest to a misspelt one, for errors about keys and names.

/// Longest word compared; a longer one is no slip of the finger.
const MAX_WORD: usize = 64;

/// The candidate with the fewest edits from `word` (insert, delete, replace, swap of neighbours; ASCII case and the
/// difference of `-` and `_` are free), if that is at most a third of its length, at least one. The first wins a tie.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = |s: &str| s.chars().count();
    let limit = (length(word) / 3).max(1);
    candidates
        .into_iter()
        // each letter more or less is an edit
        .filter(|candidate| length(candidate).abs_diff(length(word)) <= limit)
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// How many slips of the finger lie between two words, counted as [`nearest`] does: optimal string alignment distance over
/// three rows. `usize::MAX` for words that are too long.
pub fn edits(a: &str, b: &str) -> usize {
    let plain = |s: &str| -> Vec<char> {
        s.chars().take(MAX_WORD + 1).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
    };
    let (a, b) = (plain(a), plain(b));
    if a.len() > MAX_WORD || b.len() > MAX_WORD {
        return usize::MAX;
    }
    let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i.saturating_add(1)];
        for (j, y) in b.iter().enumerate() {
            let replace = at(&last, j).saturating_add(usize::from(x != y));
            let delete = at(&last, j.saturating_add(1)).saturating_add(1);
            let insert = at(&row, j).saturating_add(1);
            let mut best = replace.min(delete).min(insert);
            let neighbours =
                i.checked_sub(1).and_then(|i| a.get(i)) == Some(y) && j.checked_sub(1).and_then(|j| b.get(j)) == Some(x);
            if neighbours {
                best = best.min(at(&before_last, j.saturating_sub(1)).saturating_add(1));
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    at(&last, b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let keys = ["pattern", "target_hunters", "enabled", "type"];

        assert_eq!(nearest("patern", keys), Some("pattern"));
        assert_eq!(nearest("pattren", keys), Some("pattern"));
        assert_eq!(nearest("target-hunter", keys), Some("target_hunters"));
        assert_eq!(nearest("Enabled", keys), Some("enabled"));
        assert_eq!(nearest("tpye", keys), Some("type"));
    }

    #[test]
    fn a_different_word_has_no_neighbour() {
        assert_eq!(nearest("colour", ["pattern", "type"]), None);
        assert_eq!(nearest("", ["pattern"]), None);
        assert_eq!(nearest(&"x".repeat(10_000), ["pattern"]), None);
    }
}
