//! What bounds the rows that are not reached, written by hand: the page shows a note beneath the table when its row (or
//! series) is missed, and says so when there is none.

/// Keys of rows and series, each with its note in Markdown.
pub(crate) const NOTES: &[(&str, &str)] = &[];

/// The note of a row.
pub(crate) fn note(key: &str) -> Option<&'static str> {
    NOTES.iter().find(|(of, _)| *of == key).map(|(_, note)| *note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows;

    #[test]
    fn every_note_belongs_to_something() {
        let rows = rows::rows();
        let series = rows::series();
        for (key, _) in NOTES {
            let known =
                rows.iter().any(|row| row.key == *key) || series.iter().any(|series| series.key == *key);
            assert!(known, "a note for {key}, which there is not");
        }
    }
}
