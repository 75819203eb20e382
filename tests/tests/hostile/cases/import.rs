//! Hostile files for `weir import`.

use std::io::Write as _;

use rand::{Rng as _, RngCore as _, rngs::StdRng};

use super::{Action, Case, Port, frames::gzip, mutate, size};

/// A file and the arguments with which it is imported.
pub(super) fn case(rng: &mut StdRng) -> Case {
    let mut csv = b"user_id,event_name,event_time,price\n".to_vec();
    for number in 0..rng.random_range(1..50) {
        let _ = writeln!(csv, "u{number},view,2024-01-15 10:00:{:02},{}.50", number % 60, number);
    }
    let (name, mut file): (_, Vec<u8>) = match rng.random_range(0..10) {
        0 => ("quotes.csv", [csv.clone(), b"\"".to_vec(), vec![b'a'; size(rng, 1, 20 << 20)]].concat()),
        1 => {
            let columns = size(rng, 10, 200_000);
            ("wide.csv", format!("{}\n{}\n", vec!["c"; columns].join(","), ",".repeat(columns)).into_bytes())
        }
        2 => ("nested.ndjson", format!("{}1\n", "{\"a\":".repeat(size(rng, 10, 1 << 20))).into_bytes()),
        3 => ("flood.ndjson", format!("{{\"a\":[{}0]}}\n", "0,".repeat(size(rng, 10, 4 << 20))).into_bytes()),
        4 => ("line.ndjson", vec![b' '; size(rng, 1, 64 << 20)]),
        5 => ("bomb.csv.gz", gzip(&vec![b'a'; size(rng, 1, 128 << 20)])),
        6 => {
            let mut file = b"PAR1".to_vec();
            file.resize(size(rng, 12, 100_000), 0);
            rng.fill_bytes(&mut file[4..]);
            file.extend([0xff, 0xff, 0xff, 0x7f]);
            ("garbage.parquet", [file, b"PAR1".to_vec()].concat())
        }
        7 => ("cut.csv.gz", {
            let mut cut = gzip(&csv);
            cut.truncate(cut.len() * 2 / 3);
            cut
        }),
        8 => ("utf16.csv", csv.iter().flat_map(|byte| [*byte, 0]).collect()),
        _ => ("damaged.csv", csv),
    };
    if rng.random_range(0..3) == 0 {
        mutate(rng, &mut file);
    }
    let args = vec!["--no-wait".to_owned(), "--restart".to_owned()];
    Case { family: "import", port: Port::Gateway, action: Action::Import { file, name, args } }
}
