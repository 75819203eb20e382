//! How a file of separated values is written: blanks behind separators, and the names of its columns.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
};

/// Where a byte stands in a file of separated values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Begin,
    Plain,
    Quoted,
    /// Behind a quote within a quoted value: the end of it, or the first of two.
    QuoteInQuoted,
}

impl Place {
    /// The place behind a byte, and whether the byte is a blank before a value.
    fn after(self, byte: u8, delimiter: u8) -> (Self, bool) {
        match (self, byte) {
            (Self::Quoted, b'"') => (Self::QuoteInQuoted, false),
            (Self::Quoted, _) | (Self::QuoteInQuoted, b'"') => (Self::Quoted, false),
            (_, b'\n' | b'\r') => (Self::Begin, false),
            (_, byte) if byte == delimiter => (Self::Begin, false),
            (Self::Begin, b' ') => (Self::Begin, true),
            (Self::Begin, b'"') => (Self::Quoted, false),
            (Self::Begin | Self::Plain | Self::QuoteInQuoted, _) => (Self::Plain, false),
        }
    }
}

/// Whether the blanks behind separators are no part of the values: when the header has one behind each separator, or when one
/// stands before a quote, which would otherwise be no quote.
pub(super) fn has_blanks(start: &[u8], delimiter: u8) -> bool {
    let mut place = Place::default();
    let (mut is_header, mut separators, mut blanks, mut was_blank) = (true, 0, 0, false);
    for (index, &byte) in start.iter().enumerate() {
        let in_value = matches!(place, Place::Quoted);
        let (next, is_blank) = place.after(byte, delimiter);
        if is_header && !in_value {
            separators += usize::from(byte == delimiter);
            let is_behind = index > 0 && start[index - 1] == delimiter;
            blanks += usize::from(is_blank && is_behind);
            is_header = byte != b'\n';
        }
        if was_blank && !is_blank && byte == b'"' {
            return true;
        }
        (place, was_blank) = (next, is_blank);
    }
    separators > 0 && separators == blanks
}

/// Leaves out the blanks before values.
#[derive(Debug)]
pub(super) struct WithoutBlanks<R> {
    inner: R,
    delimiter: u8,
    place: Place,
}

impl<R> WithoutBlanks<R> {
    pub(super) fn new(inner: R, delimiter: u8) -> Self {
        Self { inner, delimiter, place: Place::default() }
    }
}

impl<R: Read> Read for WithoutBlanks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.inner.read(buffer)?;
            let mut kept = 0;
            for index in 0..read {
                let (place, is_blank) = self.place.after(buffer[index], self.delimiter);
                self.place = place;
                if !is_blank {
                    buffer[kept] = buffer[index];
                    kept += 1;
                }
            }
            // None would mean the end.
            if kept > 0 || read == 0 {
                return Ok(kept);
            }
        }
    }
}

/// Notes about the names of columns that are shown.
const SHOWN_NOTES: usize = 10;

/// The names of columns, each once and without blanks around; with what the user has to know of them. A column without a name
/// keeps none, and is left out.
pub(super) fn column_names<'a>(header: impl Iterator<Item = &'a str>) -> (Vec<String>, Vec<String>) {
    let header: Vec<&str> = header.map(str::trim).collect();
    let mut taken: HashSet<String> = header.iter().map(|name| (*name).to_owned()).collect();
    // The number that the next column of a name gets.
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let (mut names, mut notes) = (Vec::with_capacity(header.len()), Vec::new());
    for (index, &name) in header.iter().enumerate() {
        if name.is_empty() {
            notes.push(format!("column {} has no name: it is left out", index + 1));
            names.push(String::new());
            continue;
        }
        let Some(number) = numbers.get_mut(name) else {
            numbers.insert(name, 2);
            names.push(name.to_owned());
            continue;
        };
        let free = loop {
            let free = format!("{name}_{number}");
            *number += 1;
            if taken.insert(free.clone()) {
                break free;
            }
        };
        notes.push(format!("several columns are named `{name}`: column {} is read as `{free}`", index + 1));
        names.push(free);
    }
    if notes.len() > SHOWN_NOTES {
        let more = notes.len() - SHOWN_NOTES;
        notes.truncate(SHOWN_NOTES);
        notes.push(format!("{more} more columns have no name or that of another"));
    }
    (names, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives no more than so many bytes at once, as pipes do.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }

    #[test]
    fn blanks_before_values_are_left_out_wherever_a_read_ends() {
        let text = "a, b,  c\n1, \"x, \"\" y\",  z w \n ,\"\", \" \"\r\n 2, , 3";
        let expected = "a,b,c\n1,\"x, \"\" y\",z w \n,\"\",\" \"\r\n2,,3";
        for at_once in 1..text.len() {
            let mut read = String::new();
            WithoutBlanks::new(Drops(text.as_bytes(), at_once), b',').read_to_string(&mut read).unwrap();
            assert_eq!(read, expected, "{at_once} bytes at once");
        }
    }

    #[test]
    fn blanks_are_no_part_of_values_where_the_header_or_a_quote_says_so() {
        for text in ["a, b\n1, 2\n", "a,b\n1, \"x, y\"\n", "a, \"b\"\n", "a, b"] {
            assert!(has_blanks(text.as_bytes(), b','), "{text}");
        }
        for text in ["a,b\n1, 2\n", "a b,c d\n", "a,b\n\"x, \"\"y\"\"\",2\n", "a, b,c\n", "a\n 1\n", ""] {
            assert!(!has_blanks(text.as_bytes(), b','), "{text}");
        }
    }

    #[test]
    fn column_names_are_told_apart() {
        let (names, notes) = column_names(["plan", " plan", "plan_2", "", "plan"].into_iter());
        assert_eq!(names, ["plan", "plan_3", "plan_2", "", "plan_4"]);
        assert!(notes.iter().any(|note| note.contains("column 4 has no name")), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("`plan`") && note.contains("`plan_3`")), "{notes:?}");
    }

    #[test]
    fn many_columns_of_one_name_are_told_apart_and_few_are_shown() {
        let (names, notes) = column_names(std::iter::repeat_n("c", 100_000));
        assert_eq!((names[1].as_str(), names[99_999].as_str()), ("c_2", "c_100000"));
        assert_eq!(notes.len(), SHOWN_NOTES + 1);
    }
}
