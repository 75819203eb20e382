//! Made-up events of a shop, 30 days of them, always the same: visits of people some of whom come often, of a few events or
//! many, with twenty names of which the first are a thousand times as frequent as the last.

use std::collections::HashSet;

use rustix::time::ClockId;
use tokio::{sync::mpsc, task::JoinSet};
use uuid::Uuid;
use weir_proto::record::{Event, Money, Value};
use weir_rollup::field::ContextField;
use weir_store::{
    CleanBatch, EventStore as _, Store,
    encode::{Encoder, Row},
};

use crate::{Result, cpu_seconds};

/// Whose events they are.
pub(crate) const PROJECT: &str = "shop";
/// The first moment, microseconds: Monday, 1 June 2026.
pub(crate) const START: i64 = 1_780_272_000_000_000;
/// The moment after the last.
pub(crate) const END: i64 = START + 30 * 86_400_000_000;
/// Properties that are columns in every segment. The others stay in the map.
pub(crate) const COLUMNS: [&str; 8] =
    ["platform", "country", "channel", "plan", "product", "category", "price", "items"];
/// Partitions of the log.
pub(crate) const PARTITIONS: u32 = 3;
/// Events for each of the people who could come; six in ten do, 24 events each on average.
const EVENTS_A_HEAD: u64 = 14;
/// The last visits begin so long before the end, microseconds: all of their events are within the 30 days.
const LONGEST_VISIT: i64 = 7_200_000_000;

/// The steps of the funnel.
pub(crate) const STEPS: [&str; 4] = ["product_view", "add_to_cart", "checkout", "purchase"];
/// What else happens, and how often.
const OTHERS: [(&str, u64); 16] = [
    ("page_view", 3000),
    ("scroll", 2200),
    ("click", 1500),
    ("search", 700),
    ("filter", 420),
    ("image_zoom", 300),
    ("video_play", 180),
    ("share", 90),
    ("wishlist_add", 80),
    ("review_read", 70),
    ("login", 60),
    ("coupon_apply", 30),
    ("support_chat", 16),
    ("error", 10),
    ("signup", 6),
    ("refund_request", 2),
];
const PLATFORMS: [(&str, u64); 4] = [("web", 45), ("android", 27), ("ios", 22), ("tv", 6)];
const COUNTRIES: [(&str, u64); 12] = [
    ("US", 30),
    ("DE", 14),
    ("IN", 13),
    ("GB", 10),
    ("FR", 8),
    ("BR", 7), //
    ("JP", 6),
    ("ES", 4),
    ("IT", 3),
    ("NL", 2),
    ("SE", 2),
    ("NZ", 1),
];
const CHANNELS: [(&str, u64); 6] =
    [("organic", 38), ("direct", 22), ("paid_search", 16), ("email", 12), ("social", 9), ("referral", 3)];
const PLANS: [(&str, u64); 3] = [("free", 74), ("plus", 20), ("business", 6)];
const CATEGORIES: [&str; 6] = ["shoes", "jackets", "bags", "shirts", "watches", "hats"];
const PRODUCTS: u64 = 2000;

/// Numbers that look random (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// 0 to 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn pick(&mut self, from: &[(&'static str, u64)]) -> &'static str {
        let mut at = self.below(from.iter().map(|(_, weight)| weight).sum());
        let found = from.iter().find(|(_, weight)| match at.checked_sub(*weight) {
            None => true,
            Some(rest) => {
                at = rest;
                false
            }
        });
        found.expect("it is below the sum").0
    }
}

/// What was written.
pub(crate) struct Made {
    pub(crate) users: usize,
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
    /// CPU seconds that went into making the events up and encoding them.
    pub(crate) cpu_generating: f64,
}

/// Writes events into an empty store, as so many segments, rounded up to as many in each partition. Each has its part of
/// the time.
pub(crate) async fn write(store: &Store, count: u64, segments: u64) -> Result<Made> {
    if store.next_offset(0).await? > 0 {
        return Err("the store must be empty".into());
    }
    let mut writers = JoinSet::new();
    let mut batches = Vec::new();
    for partition in 0..PARTITIONS {
        // One waits while one is written: a batch takes half a gigabyte per million events.
        let (send, mut receive) = mpsc::channel(1);
        batches.push(send);
        let store = store.clone();
        writers.spawn(async move {
            while let Some(batch) = receive.recv().await {
                store.append(partition, Uuid::from_u128(1), batch).await?;
            }
            Ok::<_, weir_store::Error>(())
        });
    }
    let slices = segments.div_ceil(PARTITIONS.into()).max(1);
    let made = tokio::task::spawn_blocking(move || {
        let before = cpu_seconds(ClockId::ThreadCPUTime);
        let users = make(count, slices, &batches);
        (users, cpu_seconds(ClockId::ThreadCPUTime) - before)
    });
    let (users, cpu_generating) = made.await?;
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let snapshot = store.scan(PROJECT, PARTITIONS).await?;
    let bytes = snapshot.segments.iter().map(|segment| segment.bytes).sum();
    Ok(Made { users: users?, segments: snapshot.segments.len(), bytes, cpu_generating })
}

/// One partition's events on their way.
#[derive(Default)]
struct Share {
    encoder: Encoder,
    start: u64,
}

impl Share {
    fn next_offset(&self) -> u64 {
        self.start + self.encoder.len() as u64
    }

    fn batch(&mut self, watermark_micros: i64) -> CleanBatch {
        let (start, end) = (self.start, self.next_offset());
        self.start = end;
        CleanBatch { start, end, watermark_micros, events: vec![(PROJECT.into(), self.encoder.finish())] }
    }
}

/// Makes the events up, visit by visit, and sends them off in so many slices; returns the number of users.
fn make(count: u64, slices: u64, batches: &[mpsc::Sender<CleanBatch>]) -> Result<usize> {
    let users = (count / EVENTS_A_HEAD).max(1);
    let mut random = Random(20_260_601);
    let mut seen = HashSet::new();
    let mut shares: Vec<Share> = batches.iter().map(|_| Share::default()).collect();
    let (mut made, mut slice) = (0, 1);
    while made < count {
        // A third of the visits is of regular visitors.
        let user = if random.below(3) == 0 { random.below(users.div_ceil(10)) } else { random.below(users) };
        seen.insert(user);
        let begin = START + ((END - START - LONGEST_VISIT) as f64 * (made as f64 / count as f64)) as i64;
        let partition = (Random(user).next() % u64::from(PARTITIONS)) as usize;
        made += visit(&mut random, user, begin, count - made, &mut shares[partition]);
        if made * slices >= slice * count {
            slice += 1;
            for (share, batches) in shares.iter_mut().zip(batches) {
                batches.blocking_send(share.batch(begin))?;
            }
        }
    }
    Ok(seen.len())
}

/// The events of a visit, at most so many; returns their number.
fn visit(random: &mut Random, user: u64, begin: i64, most: u64, share: &mut Share) -> u64 {
    let mut traits = Random(user);
    let name = format!("user_{user:07}");
    let device = format!("{:012x}", traits.next() >> 16);
    let is_member = traits.below(10) < 7;
    let (platform, country) = (traits.pick(&PLATFORMS), traits.pick(&COUNTRIES));
    let (plan, channel) = (traits.pick(&PLANS), random.pick(&CHANNELS));
    let session = format!("{:016x}", random.next());
    let (mut time, mut step, mut items) = (begin, 0, 0u32);
    let (mut product, mut price) = (String::new(), 0.0);
    let mut category = "";
    let mut made = 0;
    // 12 on average, of which one in a hundred is longer than 55.
    while made < most && (made == 0 || random.below(12) != 0) {
        let event_name = match random.below(100) {
            0..15 => STEPS[0],
            15..19 if step >= 1 => STEPS[1],
            19..22 if step >= 2 => STEPS[2],
            22..25 if step >= 3 => STEPS[3],
            _ => random.pick(&OTHERS),
        };
        let reached = STEPS.iter().position(|step| *step == event_name);
        step = step.max(reached.map_or(0, |reached| reached + 1));
        match reached {
            Some(0) => {
                // Squared, so that some are seen far more often than others.
                let number = (random.fraction().powi(2) * PRODUCTS as f64) as u64;
                product = format!("p{number:05}");
                category = CATEGORIES[(number % CATEGORIES.len() as u64) as usize];
                price = (500 + number * 37 % 20_000) as f64 / 100.0;
            }
            Some(1) => items += 1,
            Some(_) | None => {}
        }
        let of_product = matches!(reached, Some(0 | 1))
            || matches!(event_name, "image_zoom" | "review_read" | "wishlist_add");
        let of_cart = matches!(reached, Some(1..));
        let order = (event_name == STEPS[3]).then(|| format!("o{:010}", random.below(10_000_000_000)));
        let query = (event_name == "search").then(|| format!("q{}", random.below(500)));
        let milliseconds = time / 1000;
        let id = uuid::Builder::from_unix_timestamp_millis(
            milliseconds.unsigned_abs(),
            &(random.next() as u128 | (random.next() as u128) << 64).to_le_bytes()[..10]
                .try_into()
                .expect("ten of sixteen"),
        );
        let context = ContextField::ALL.iter().map(|field| {
            let text = match field {
                ContextField::OsName => ["Windows", "Android", "iOS", "macOS"][(user % 4) as usize],
                ContextField::DeviceType if platform == "web" => "desktop",
                ContextField::DeviceType => "phone",
                ContextField::AppVersion => ["4.2.0", "4.2.1", "4.3.0"][(user % 3) as usize],
                ContextField::PagePath if platform == "web" => event_name,
                ContextField::CampaignSource if matches!(channel, "email" | "social" | "paid_search") => {
                    channel
                }
                _ => "",
            };
            (field.numbers(), text)
        });
        let context: Vec<_> = context.filter(|(_, text)| !text.is_empty()).collect();
        let always = [("platform", platform), ("country", country), ("channel", channel), ("plan", plan)];
        let texts = always.into_iter().chain(
            [("product", product.as_str()), ("category", category)]
                .into_iter()
                .filter(|(_, text)| of_product && !text.is_empty()),
        );
        let more = [("order_id", order.as_deref()), ("query", query.as_deref())];
        let more = more.into_iter().filter_map(|(key, text)| Some((key, text?)));
        let numbers = [("price", price, of_product && price > 0.0), ("items", f64::from(items), of_cart)];
        let numbers = numbers
            .into_iter()
            .filter_map(|(key, number, there)| there.then_some((key, Value::Number(number))));
        let properties: Vec<_> =
            texts.chain(more).map(|(key, text)| (key, Value::Text(text))).chain(numbers).collect();
        let id = id.into_uuid().to_string();
        let event = Event {
            corrected_time_micros: milliseconds * 1000,
            receive_time_micros: milliseconds * 1000 + 30_000 + random.below(2_000_000) as i64,
            event_id: &id,
            event_name,
            user_id: if is_member { &name } else { "" },
            anonymous_id: if is_member { "" } else { &device },
            session_id: &session,
            install_id: if platform == "web" { "" } else { &device },
            revenue: order.is_some().then(|| Money {
                currency: "EUR",
                units: (price * f64::from(items)) as i64,
                nanos: 0,
            }),
            ..Event::default()
        };
        share.encoder.push(&Row {
            offset: share.next_offset(),
            late: random.below(100) == 0,
            event,
            context: &context,
            properties: &properties,
        });
        made += 1;
        // Exponential, as waiting times are, with 20 seconds on average; never at the same moment.
        time += 1000 + (-20.0 * (1.0 - random.fraction()).ln() * 1e6) as i64;
    }
    made
}
