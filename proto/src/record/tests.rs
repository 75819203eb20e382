//! The reader against prost, on records that are well formed, merged from parts, cut, and damaged.

use proptest::prelude::*;
use prost_types::{ListValue, Struct, Value as ProstValue, value::Kind};

use super::*;
use crate::{event::v1 as proto, google::r#type as money};

/// The texts of a context that are not empty, by their places.
fn context_texts(context: &proto::Context) -> Vec<(Place, &str)> {
    let proto::Context { app, device, os, locale, page, referrer, campaign, ip, user_agent } = context;
    let mut texts: Vec<(Place, &str)> = Vec::new();
    if let Some(proto::App { name, version, build }) = app {
        texts.extend([((1, 1), &**name), ((1, 2), version), ((1, 3), build)]);
    }
    if let Some(proto::Device { r#type, manufacturer, model }) = device {
        texts.extend([((2, 1), &**r#type), ((2, 2), manufacturer), ((2, 3), model)]);
    }
    if let Some(proto::OperatingSystem { name, version }) = os {
        texts.extend([((3, 1), &**name), ((3, 2), version)]);
    }
    texts.push(((4, 0), locale));
    if let Some(proto::Page { url, path, title }) = page {
        texts.extend([((5, 1), &**url), ((5, 2), path), ((5, 3), title)]);
    }
    texts.push(((6, 0), referrer));
    if let Some(proto::Campaign { source, medium, name, term, content }) = campaign {
        texts.extend([
            ((7, 1), &**source),
            ((7, 2), medium),
            ((7, 3), name),
            ((7, 4), term),
            ((7, 5), content),
        ]);
    }
    texts.extend([((8, 0), &**ip), ((9, 0), user_agent)]);
    texts.retain(|(_, text)| !text.is_empty());
    texts
}

/// What a property is read as, against prost's.
fn is_same(ours: Value<'_>, theirs: &ProstValue) -> bool {
    match (ours, theirs.kind.as_ref()) {
        (Value::Null, None | Some(Kind::NullValue(_))) => true,
        (Value::Text(ours), Some(Kind::StringValue(theirs))) => ours == theirs,
        // Bits, for the sake of what is not a number.
        (Value::Number(ours), Some(Kind::NumberValue(theirs))) => ours.to_bits() == theirs.to_bits(),
        (Value::Boolean(ours), Some(Kind::BoolValue(theirs))) => ours == *theirs,
        (Value::Nested(nested), Some(Kind::ListValue(_) | Kind::StructValue(_))) => {
            // Encoded, again for the sake of what is not a number.
            nested.read().encode_to_vec() == theirs.encode_to_vec()
        }
        _ => false,
    }
}

/// Reads with both and compares verdict and every value.
fn compare(bytes: &[u8]) -> std::result::Result<(), TestCaseError> {
    let mut parts = Parts::default();
    let before = proto::Event {
        context: Some(proto::Context { locale: "of the event before".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let before = proto::EventRecord { event: Some(before), ..Default::default() }.encode_to_vec();
    read(&before, &mut parts).unwrap();
    let ours = read(bytes, &mut parts);
    let theirs = proto::EventRecord::decode(bytes);
    let (ours, theirs) = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(malformed), Err(_)) => {
            prop_assert!(malformed.position <= bytes.len());
            return Ok(());
        }
        (ours, theirs) => {
            return Err(TestCaseError::fail(format!("ours {ours:?}\ntheirs {theirs:?}\n{bytes:02x?}")));
        }
    };
    let event = theirs.event.unwrap_or_default();
    prop_assert_eq!(ours.project, &theirs.project);
    prop_assert_eq!(ours.import_id, &theirs.import_id);
    prop_assert_eq!(ours.receive_time_micros, theirs.receive_time_micros);
    prop_assert_eq!(ours.corrected_time_micros, theirs.corrected_time_micros);
    prop_assert_eq!(ours.event_id, &event.event_id);
    prop_assert_eq!(ours.event_name, &event.event_name);
    prop_assert_eq!(ours.event_type, event.event_type);
    prop_assert_eq!(ours.user_id, &event.user_id);
    prop_assert_eq!(ours.anonymous_id, &event.anonymous_id);
    prop_assert_eq!(ours.session_id, &event.session_id);
    prop_assert_eq!(ours.install_id, &event.install_id);
    prop_assert_eq!(ours.sequence, event.sequence);
    prop_assert_eq!(ours.event_time, event.event_time);
    let revenue = event.revenue.as_ref();
    let expected = revenue.map(|m| Money { currency: &m.currency_code, units: m.units, nanos: m.nanos });
    prop_assert_eq!(ours.revenue, expected);
    prop_assert!(parts.context(&ours).is_sorted_by(|a, b| a.0 < b.0));
    let context: Vec<_> = parts.context(&ours).iter().filter(|(_, text)| !text.is_empty()).copied().collect();
    let theirs = event.context.unwrap_or_default();
    prop_assert_eq!(context, context_texts(&theirs));
    let properties = parts.properties(&ours);
    // In the order of keys, too, as prost has them.
    let theirs = event.properties.unwrap_or_default().fields;
    prop_assert_eq!(
        properties.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    for ((key, ours), theirs) in properties.iter().zip(theirs.values()) {
        prop_assert!(is_same(*ours, theirs), "{key}: {ours:?} instead of {theirs:?}");
    }
    Ok(())
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z0-9-]{0,12}", 1 => ".{0,8}", 1 => Just(String::new())]
}

fn value() -> impl Strategy<Value = ProstValue> {
    let scalar = prop_oneof![
        4 => text().prop_map(Kind::StringValue),
        2 => any::<f64>().prop_map(Kind::NumberValue),
        2 => (-10..1000i32).prop_map(|n| Kind::NumberValue(n.into())),
        1 => any::<bool>().prop_map(Kind::BoolValue),
        1 => Just(Kind::NullValue(0)),
    ];
    let value = prop_oneof![9 => scalar.prop_map(|k| ProstValue { kind: Some(k) }), 1 => Just(ProstValue { kind: None })];
    value.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| ProstValue { kind: Some(Kind::ListValue(ListValue { values })) }),
            prop::collection::btree_map("[a-z]", inner, 0..4)
                .prop_map(|fields| ProstValue { kind: Some(Kind::StructValue(Struct { fields })) }),
        ]
    })
}

fn context() -> impl Strategy<Value = proto::Context> {
    prop::array::uniform20(text()).prop_map(|t| {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, u] = t;
        proto::Context {
            app: Some(proto::App { name: a, version: b, build: c }),
            device: (!d.is_empty()).then_some(proto::Device { r#type: d, manufacturer: e, model: f }),
            os: Some(proto::OperatingSystem { name: g, version: h }),
            locale: i,
            page: Some(proto::Page { url: j, path: k, title: l }),
            referrer: m,
            campaign: Some(proto::Campaign { source: n, medium: o, name: p, term: q, content: r }),
            ip: s,
            user_agent: u,
        }
    })
}

fn record() -> impl Strategy<Value = proto::EventRecord> {
    let revenue = (text(), any::<i64>(), any::<i32>())
        .prop_map(|(currency_code, units, nanos)| money::Money { currency_code, units, nanos });
    let time = || {
        prop::option::of(
            (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }),
        )
    };
    let properties =
        prop::option::of(prop::collection::btree_map(prop_oneof!["[a-e]", text()], value(), 0..8));
    let ids = (text(), text(), text(), text(), text(), text());
    let event = (
        ids,
        -1..9i32,
        any::<u64>(),
        time(),
        time(),
        properties,
        prop::option::of(revenue),
        prop::option::of(context()),
    )
        .prop_map(|(ids, event_type, sequence, event_time, sent_time, properties, revenue, context)| {
            let (event_id, event_name, user_id, anonymous_id, session_id, install_id) = ids;
            proto::Event {
                event_id,
                event_name,
                event_type,
                user_id,
                anonymous_id,
                session_id,
                install_id,
                sequence,
                event_time,
                sent_time,
                clock_offset: None,
                properties: properties.map(|fields| Struct { fields }),
                revenue,
                context,
            }
        });
    let import_id = prop::option::of(any::<[u8; 16]>());
    (text(), any::<i64>(), any::<i64>(), prop::option::of(event), import_id).prop_map(
        |(project, receive_time_micros, corrected_time_micros, event, import_id)| proto::EventRecord {
            project,
            receive_time_micros,
            corrected_time_micros,
            event,
            import_id: import_id.map(Vec::from).unwrap_or_default(),
        },
    )
}

/// One blow to the bytes.
#[derive(Clone, Debug)]
enum Damage {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), prop::collection::vec(any::<u8>(), 1..4)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        at().prop_map(Damage::Remove),
        at().prop_map(Damage::Cut),
    ]
}

fn strike(bytes: &mut Vec<u8>, damage: Damage) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match damage {
        Damage::Set(at, byte) => bytes[at.index(len)] = byte,
        Damage::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
        Damage::Insert(at, inserted) => drop(bytes.splice(at.index(len)..at.index(len), inserted)),
        Damage::Remove(at) => drop(bytes.remove(at.index(len))),
        Damage::Cut(at) => bytes.truncate(at.index(len)),
    }
}

/// Fields that no schema has, groups among them.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        (15..40u32, any::<u64>()).prop_map(|(tag, number)| {
            let mut bytes = Vec::new();
            prost::encoding::uint64::encode(tag, &number, &mut bytes);
            bytes
        }),
        (15..40u32, any::<u32>()).prop_map(|(tag, number)| {
            let mut bytes = Vec::new();
            prost::encoding::fixed32::encode(tag, &number, &mut bytes);
            bytes
        }),
        (15..40u32, text()).prop_map(|(tag, text)| {
            let mut bytes = Vec::new();
            prost::encoding::string::encode(tag, &text, &mut bytes);
            bytes
        }),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        (15..40u32, prop::collection::vec(inner, 0..3)).prop_map(|(tag, fields)| {
            let mut bytes = Vec::new();
            prost::encoding::encode_key(tag, prost::encoding::WireType::StartGroup, &mut bytes);
            bytes.extend(fields.concat());
            prost::encoding::encode_key(tag, prost::encoding::WireType::EndGroup, &mut bytes);
            bytes
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn well_formed_records_read_the_same(record in record()) {
        compare(&record.encode_to_vec())?;
    }

    #[test]
    fn parts_merge_and_unknown_fields_pass(parts in prop::collection::vec(prop_oneof![record().prop_map(|r| r.encode_to_vec()), unknown()], 1..4)) {
        compare(&parts.concat())?;
    }

    #[test]
    fn damage_is_judged_the_same(record in record(), blows in prop::collection::vec(damage(), 1..6)) {
        let mut bytes = record.encode_to_vec();
        blows.into_iter().for_each(|blow| strike(&mut bytes, blow));
        compare(&bytes)?;
    }

    #[test]
    fn noise_is_judged_the_same(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        compare(&bytes)?;
    }
}

#[test]
fn entries_of_a_map_are_messages_and_nothing_else() {
    for is_nested in [false, true] {
        for entry in
            [b"\x0a\x00".as_slice(), b"\x0b\x00", b"\x0b\x0c", b"\x08\x00", b"\x09\x00\0\0\0\0\0\0\0"]
        {
            // The struct itself, or one as the value of an entry of it.
            let mut fields = entry.to_vec();
            if is_nested {
                fields = [
                    &[0x0a, fields.len() as u8 + 4, 0x12, fields.len() as u8 + 2, 0x2a, fields.len() as u8],
                    &*fields,
                ]
                .concat();
            }
            let event = [&[0x62, fields.len() as u8], &*fields].concat();
            compare(&[&[0x22, event.len() as u8], &*event].concat()).unwrap();
        }
    }
}

/// A value nested in `depth` lists.
fn nested(depth: usize) -> Vec<u8> {
    let mut value = ProstValue { kind: Some(Kind::NumberValue(1.0)) };
    for _ in 0..depth {
        value = ProstValue { kind: Some(Kind::ListValue(ListValue { values: vec![value] })) };
    }
    let properties = Struct { fields: [("a".to_owned(), value)].into() };
    let event = proto::Event { properties: Some(properties), ..Default::default() };
    proto::EventRecord { event: Some(event), ..Default::default() }.encode_to_vec()
}

#[test]
fn nesting_ends_where_prost_ends_it() {
    for depth in 40..60 {
        compare(&nested(depth)).unwrap();
    }
    let mut parts = Parts::default();
    assert!(read(&nested(40), &mut parts).is_ok());
    let error = read(&nested(60), &mut Parts::default()).unwrap_err();
    assert_eq!(error.fault, Fault::Depth);
}

#[test]
fn groups_end_where_prost_ends_them() {
    for depth in 90..110 {
        let open = [0x7b].repeat(depth);
        let close = [0x7c].repeat(depth);
        compare(&[open.clone(), close].concat()).unwrap();
        compare(&open).unwrap();
    }
}

#[test]
fn faults_name_their_position() {
    let value = [&[0x0a, 3][..], b"a\xffb"].concat();
    let error = read(&value, &mut Parts::default()).unwrap_err();
    assert_eq!(error, Malformed { position: 3, fault: Fault::Utf8 });
    assert_eq!(error.to_string(), "a string is not UTF-8, at byte 3");
}
