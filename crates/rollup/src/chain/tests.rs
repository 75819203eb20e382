use proptest::prelude::*;

use super::*;

const ALICE: Uuid = Uuid::from_u128(0xa);
const BOB: Uuid = Uuid::from_u128(0xb);

#[test]
fn zombie_batches_are_void() {
    let mut chain = Chain::new();
    assert_eq!(chain.fold_batch(ALICE, 0, 5, 1), Verdict::Void(VoidReason::Unclaimed));
    assert_eq!(chain.fold_claim(ALICE, "a:1"), Verdict::Claimed);
    assert_eq!(chain.fold_batch(ALICE, 0, 5, 1), Verdict::Accepted);
    assert_eq!(chain.fold_claim(BOB, "b:1"), Verdict::Claimed);
    assert_eq!(chain.fold_batch(ALICE, 5, 9, 2), Verdict::Void(VoidReason::Fenced { owner: BOB }));
    assert_eq!(chain.fold_batch(BOB, 5, 7, 3), Verdict::Accepted);
    let expected =
        ChainState { owner: Some(BOB), address: "b:1".to_owned(), next_source_offset: 7, watermark: 3 };
    assert_eq!(chain.state(), &expected);
}

#[test]
fn a_batch_that_lands_twice_counts_once_and_one_after_a_gap_not_at_all() {
    let mut chain = Chain::new();
    chain.fold_claim(ALICE, "");
    assert_eq!(chain.fold_batch(ALICE, 0, 5, 0), Verdict::Accepted);
    assert_eq!(chain.fold_batch(ALICE, 0, 5, 0), Verdict::Void(VoidReason::OutOfSequence { expected: 5 }));
    assert_eq!(chain.fold_batch(ALICE, 6, 8, 0), Verdict::Void(VoidReason::OutOfSequence { expected: 5 }));
    assert_eq!(chain.fold_batch(ALICE, 5, 4, 0), Verdict::Void(VoidReason::Backwards));
    assert_eq!(chain.next_source_offset(), 5);
}

#[test]
fn heartbeats_move_only_the_watermark_and_it_never_falls() {
    let mut chain = Chain::new();
    chain.fold_claim(ALICE, "");
    for (watermark, expected) in [(7, 7), (9, 9), (8, 9)] {
        assert_eq!(chain.fold_batch(ALICE, 0, 0, watermark), Verdict::Accepted);
        assert_eq!((chain.next_source_offset(), chain.state().watermark), (0, expected));
    }
}

#[derive(Debug, Clone, Copy)]
enum Record {
    Claim(u128),
    Batch { owner: u128, start: u64, end: u64, watermark: i64 },
}

/// Records that are near the truth often enough: batches start at offsets that ends fall on.
fn any_records() -> impl Strategy<Value = Vec<Record>> {
    let record = prop_oneof![
        1 => (1u128..4).prop_map(Record::Claim),
        6 => (1u128..4, 0u64..12, 0u64..3, -5i64..5).prop_map(|(owner, start, length, watermark)| {
            Record::Batch { owner, start, end: start + length, watermark }
        }),
    ];
    proptest::collection::vec(record, 0..200)
}

fn fold(chain: &mut Chain, record: Record) -> Verdict {
    match record {
        Record::Claim(owner) => chain.fold_claim(Uuid::from_u128(owner), "host:1"),
        Record::Batch { owner, start, end, watermark } => {
            chain.fold_batch(Uuid::from_u128(owner), start, end, watermark)
        }
    }
}

proptest! {
    #[test]
    fn every_offset_counts_once_in_order_under_the_last_claim(records in any_records()) {
        let mut chain = Chain::new();
        let mut counted = Vec::new();
        for (at, record) in records.iter().enumerate() {
            let last_claim = records[..at].iter().rev().find_map(|earlier| match earlier {
                Record::Claim(owner) => Some(*owner),
                Record::Batch { .. } => None,
            });
            let verdict = fold(&mut chain, *record);
            if let Record::Batch { owner, start, end, .. } = record {
                let counts = last_claim == Some(*owner) && *start == counted.len() as u64;
                prop_assert_eq!(verdict == Verdict::Accepted, counts);
                if counts {
                    counted.extend(*start..*end);
                }
            }
        }
        prop_assert_eq!(chain.next_source_offset(), counted.len() as u64);
        prop_assert_eq!(&counted, &(0..counted.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_may_start_at_any_snapshot(records in any_records(), at in 0usize..200) {
        let (before, after) = records.split_at(at.min(records.len()));
        let mut whole = Chain::new();
        before.iter().for_each(|record| { fold(&mut whole, *record); });
        let hint = Hint { metrics_offset: before.len() as u64, state: whole.state().clone() };
        let mut restored = Chain::restore(hint.to_string().parse::<Hint>().unwrap().state);
        for record in after {
            prop_assert_eq!(fold(&mut restored, *record), fold(&mut whole, *record));
        }
        prop_assert_eq!(restored, whole);
    }
}
