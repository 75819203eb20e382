//! The chain of manifests: whoever publishes, an offset counts once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures::future::join_all;
use object_store::ObjectStore;
use proptest::{prelude::*, test_runner::TestRunner};
use uuid::Uuid;
use weir_store::{
    Error, Objects,
    manifest::{Chain, Change, Published, Reason, Refusal, Segment, Span},
};

use crate::depot::{Faulty, depots};

fn segment(offsets: Span<u64>) -> Segment {
    let id = Uuid::now_v7();
    let (times, users) = (Span::of(0), Span::of(0));
    Segment {
        id,
        project: "p".to_owned(),
        path: format!("events/{id}.parquet"),
        rows: 1,
        bytes: 1,
        checksum: String::new(),
        offsets,
        times,
        users,
        late: 0,
        columns: Vec::new(),
        names: None,
        properties: BTreeMap::new(),
        more_properties: false,
        wide: None,
    }
}

fn append(start: u64, end: u64) -> Change {
    let segments = vec![segment(Span { min: start, max: end - 1 })];
    Change::Append { start, end, watermark_micros: end as i64, complete_since_micros: i64::MIN, segments }
}

async fn append_next(chain: &mut Chain, count: u64) -> Published {
    let start = chain.state().next_offset;
    chain.publish(Uuid::nil(), &append(start, start + count)).await.unwrap()
}

/// What someone does with the mirror that he has, which is as old as it is.
#[derive(Clone, Debug)]
enum Step {
    /// An owner, or one that believes he is, publishes the next so many offsets that he has not published yet.
    Append { writer: usize, count: u64 },
    /// A compactor merges the first so many live segments.
    Merge { compactor: usize, count: usize },
    /// Someone looks at the chain.
    Follow { who: usize },
    /// Someone writes a checkpoint.
    Checkpoint { who: usize },
    /// Someone dies and begins anew.
    Restart { who: usize },
}

const WRITERS: usize = 3;
const ALL: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..WRITERS, 1u64..9).prop_map(|(writer, count)| Step::Append { writer, count }),
        2 => (WRITERS..ALL, 2usize..5).prop_map(|(compactor, count)| Step::Merge { compactor, count }),
        1 => (0..ALL).prop_map(|who| Step::Follow { who }),
        1 => (0..ALL).prop_map(|who| Step::Checkpoint { who }),
        1 => (0..ALL).prop_map(|who| Step::Restart { who }),
    ]
}

/// Takes the steps; then every offset below the chain's end is in exactly one live segment, or it says what is not.
async fn play(objects: &Objects, steps: Vec<Step>) -> Result<(), String> {
    let load = || async { Chain::load(objects, 0).await.map_err(|error| error.to_string()) };
    let mut contents: HashMap<Uuid, Vec<u64>> = HashMap::new();
    let mut chains = Vec::new();
    for _ in 0..ALL {
        chains.push(load().await?);
    }
    for step in steps {
        match step {
            Step::Append { writer, count } => {
                let chain = &mut chains[writer];
                let start = chain.state().next_offset;
                let change = append(start, start + count);
                let Change::Append { segments, .. } = &change else { unreachable!() };
                contents.insert(segments[0].id, (start..start + count).collect());
                let published =
                    chain.publish(Uuid::now_v7(), &change).await.map_err(|error| error.to_string())?;
                drop(published);
            }
            Step::Merge { compactor, count } => {
                let chain = &mut chains[compactor];
                let inputs: Vec<_> = chain.state().live.values().take(count).cloned().collect();
                if inputs.is_empty() {
                    continue;
                }
                let span = inputs.iter().map(|input| input.offsets).reduce(Span::join).unwrap();
                let merged = segment(span);
                let removed: Vec<Uuid> = inputs.iter().map(|input| input.id).collect();
                contents.insert(merged.id, removed.iter().flat_map(|id| contents[id].clone()).collect());
                let change = Change::Replace { removed, added: vec![merged], reason: Reason::Compaction };
                let published =
                    chain.publish(Uuid::now_v7(), &change).await.map_err(|error| error.to_string())?;
                drop(published);
            }
            Step::Follow { who } => chains[who].follow().await.map_err(|error| error.to_string())?,
            Step::Checkpoint { who } => {
                if chains[who].state().version > 0 {
                    chains[who].write_checkpoint().await.map_err(|error| error.to_string())?;
                }
            }
            Step::Restart { who } => chains[who] = load().await?,
        }
    }
    let chain = load().await?;
    if let Some(damage) = chain.damage() {
        return Err(damage.to_string());
    }
    let state = chain.state();
    let mut offsets: Vec<u64> = state.live.keys().flat_map(|id| contents[id].clone()).collect();
    offsets.sort_unstable();
    if offsets != (0..state.next_offset).collect::<Vec<_>>() {
        return Err(format!("below {} there are {offsets:?}", state.next_offset));
    }
    for chain in &mut chains {
        chain.follow().await.map_err(|error| error.to_string())?;
        if chain.state() != state {
            return Err("mirrors differ".to_owned());
        }
    }
    Ok(())
}

fn property(unfenced: bool, cases: u32) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let steps = prop::collection::vec(step(), 0..40);
    let played = TestRunner::new(config).run(&steps, |steps| {
        let store: Arc<dyn ObjectStore> = Arc::new(Faulty { unfenced, ..Faulty::default() });
        runtime.block_on(play(&Objects::over(store), steps)).map_err(TestCaseError::fail)
    });
    played.map_err(|error| error.to_string())
}

#[test]
fn whoever_publishes_in_whatever_order_every_offset_counts_once() {
    property(false, 1000).unwrap();
}

#[test]
fn without_the_fence_the_same_test_fails() {
    property(true, 1000).expect_err("entries that overwrite each other must be found out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_publishers_lose_and_double_nothing() {
    const PUBLISHERS: usize = 8;
    const COMMITS: u64 = 50;
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        let publishers = (0..PUBLISHERS).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut chain = store.chain(0).await.unwrap();
                let mut done = 0;
                while done < COMMITS {
                    match append_next(&mut chain, 1).await {
                        Published::Done => done += 1,
                        Published::Refused(Refusal::NotNext { .. }) => {}
                        Published::Refused(other) => panic!("{other}"),
                    }
                }
            })
        });
        for publisher in join_all(publishers).await {
            publisher.unwrap();
        }
        let chain = store.chain(0).await.unwrap();
        let total = PUBLISHERS as u64 * COMMITS;
        assert_eq!((chain.state().version, chain.state().next_offset), (total, total));
        assert_eq!(chain.state().live.len() as u64, total);
        let listed = store.objects().list("manifest/0").await.unwrap();
        assert_eq!(listed.len() as u64, total, "nothing but the entries");
    }
}

#[tokio::test]
async fn an_unreadable_entry_is_named_and_what_precedes_it_counts() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        let mut chain = store.chain(3).await.unwrap();
        for _ in 0..4 {
            assert_eq!(append_next(&mut chain, 10).await, Published::Done);
        }
        let path = format!("manifest/3/{:020}.json", 3);
        let whole = store.objects().get(&path).await.unwrap().unwrap();
        for torn in [Some(whole.slice(..whole.len() / 2)), None] {
            store.objects().delete(&path).await.unwrap();
            if let Some(torn) = torn {
                let _ = store.objects().create(&path, torn).await.unwrap();
            }
            let mut damaged = store.chain(3).await.unwrap();
            assert_eq!(damaged.state().next_offset, 20);
            let damage = damaged.damage().unwrap().to_string();
            assert!(damage.contains(&path), "{damage}");
            let published = damaged.publish(Uuid::nil(), &append(20, 21)).await;
            assert!(
                matches!(published, Err(Error::Manifest { .. })),
                "nothing is published after it: {published:?}"
            );
        }
        assert!(matches!(store.writer(3, Uuid::nil()).await, Err(Error::Manifest { .. })));

        let _ = store.objects().create(&path, whole).await.unwrap();
        let mended = store.chain(3).await.unwrap();
        assert!(mended.damage().is_none());
        assert_eq!(mended.state(), chain.state());
    }
}

#[tokio::test]
async fn an_unreadable_checkpoint_is_passed_over() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        let mut chain = store.chain(0).await.unwrap();
        for version in 1..=6 {
            assert_eq!(append_next(&mut chain, 10).await, Published::Done);
            if version % 2 == 0 {
                chain.write_checkpoint().await.unwrap();
            }
        }
        // As `clean` leaves it: entries from the last checkpoint but one on.
        for version in 1..=4 {
            store.objects().delete(&format!("manifest/0/{version:020}.json")).await.unwrap();
        }
        store.objects().delete(&format!("manifest/0/checkpoint/{:020}.json", 2)).await.unwrap();
        assert_eq!(store.chain(0).await.unwrap().state(), chain.state());

        let last = format!("manifest/0/checkpoint/{:020}.json", 6);
        store.objects().delete(&last).await.unwrap();
        let _ = store.objects().create(&last, Bytes::from_static(b"{\"format\":1,")).await.unwrap();
        assert_eq!(store.chain(0).await.unwrap().state(), chain.state());
    }
}

#[tokio::test]
async fn a_lost_answer_does_not_double_or_lose_a_change() {
    let faults = Arc::new(Faulty::default());
    let objects = Objects::over(Arc::clone(&faults) as Arc<dyn ObjectStore>);
    let mut chain = Chain::load(&objects, 0).await.unwrap();
    let change = append(0, 10);
    faults.lose_answer.store(true, Ordering::SeqCst);
    let error = chain.publish(Uuid::nil(), &change).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(chain.publish(Uuid::nil(), &change).await.unwrap(), Published::Done);

    let removed = chain.state().live.keys().copied().collect();
    let change = Change::Replace {
        removed,
        added: vec![segment(Span { min: 0, max: 9 })],
        reason: Reason::Compaction,
    };
    faults.lose_answer.store(true, Ordering::SeqCst);
    chain.publish(Uuid::nil(), &change).await.unwrap_err();
    chain.follow().await.unwrap();
    assert_eq!(chain.publish(Uuid::nil(), &change).await.unwrap(), Published::Done);
    assert_eq!(Chain::load(&objects, 0).await.unwrap().state().version, 2);
}

/// One that slept while the chain went on, and while the entry that follows his mirror was cleaned away, finds its name free.
#[tokio::test]
async fn a_sleeper_can_not_publish_into_the_past() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        let mut sleeper = store.chain(0).await.unwrap();
        assert_eq!(append_next(&mut sleeper, 10).await, Published::Done);
        let mut other = store.chain(0).await.unwrap();
        for version in 2..=6 {
            assert_eq!(append_next(&mut other, 10).await, Published::Done);
            if version >= 4 {
                other.write_checkpoint().await.unwrap();
            }
        }
        for version in 1..=5 {
            store.objects().delete(&format!("manifest/0/{version:020}.json")).await.unwrap();
        }
        let published = sleeper.publish(Uuid::nil(), &append(10, 99)).await.unwrap();
        assert_eq!(published, Published::Refused(Refusal::NotNext { next_offset: 60, start: 10 }));
        assert_eq!(store.chain(0).await.unwrap().state(), other.state());
    }
}
