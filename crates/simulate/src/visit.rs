//! One visit: a walk from page to page of the shop, or a sensor's readings.

use jiff::{SignedDuration, Timestamp};
use prost_types::{Struct, Value, value::Kind};
use rand::{Rng, rngs::SmallRng};
use weir_proto::{
    event::v1::{Campaign, Context, Event, EventType, Page},
    google::r#type::Money,
    time::timestamp,
};

use super::person::{CHANNELS, Person, Platform, weighted};

/// Where a visitor is. The name of the event is that of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Home,
    Catalog,
    Search,
    ProductView,
    AddToCart,
    Cart,
    Checkout,
    Purchase,
    Account,
    SupportChat,
    ErrorPage,
    Reading,
    Gone,
}

impl State {
    fn event_name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Catalog => "catalog",
            Self::Search => "search",
            Self::ProductView => "product_view",
            Self::AddToCart => "add_to_cart",
            Self::Cart => "cart",
            Self::Checkout => "checkout",
            Self::Purchase => "purchase",
            Self::Account => "account",
            Self::SupportChat => "support_chat",
            Self::ErrorPage => "error_page",
            Self::Reading => "reading",
            Self::Gone => "gone",
        }
    }

    /// Where visitors go next, with weights. A funnel of about 4 % from the first page to a purchase.
    fn next(self) -> &'static [(Self, u32)] {
        use State::*;
        match self {
            Home => &[(Catalog, 45), (Search, 20), (Account, 5), (ErrorPage, 1), (Gone, 29)],
            Catalog => &[(ProductView, 55), (Search, 12), (Catalog, 8), (Gone, 25)],
            Search => &[(ProductView, 52), (Search, 15), (Catalog, 8), (SupportChat, 2), (Gone, 23)],
            ProductView => &[(ProductView, 25), (AddToCart, 17), (Catalog, 20), (Search, 8), (Gone, 30)],
            AddToCart => &[(Cart, 48), (Catalog, 30), (Gone, 22)],
            Cart => &[(Checkout, 52), (Catalog, 18), (Gone, 30)],
            Checkout => &[(Purchase, 66), (ErrorPage, 6), (SupportChat, 3), (Gone, 25)],
            Purchase => &[(Home, 10), (Account, 8), (Gone, 82)],
            Account => &[(Catalog, 30), (Home, 20), (SupportChat, 6), (Gone, 44)],
            SupportChat => &[(Home, 25), (Checkout, 5), (Gone, 70)],
            ErrorPage => &[(Home, 30), (Checkout, 20), (SupportChat, 10), (Gone, 40)],
            Reading => &[(Reading, 97), (Gone, 3)],
            Gone => &[(Gone, 1)],
        }
    }
}

const CATEGORIES: &[(&str, u32)] =
    &[("shoes", 24), ("jackets", 18), ("bags", 14), ("shirts", 26), ("watches", 6), ("hats", 12)];
const QUERIES: &[&str] = &["running shoes", "rain jacket", "blue", "gift", "backpack 20l", "sale", "wool"];

/// Mean time between two events of a person and of a sensor, seconds.
const THINKING: f64 = 14.0;
const SAMPLING: f64 = 10.0;

/// A visit under way.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) person: Person,
    session_id: String,
    device_id: String,
    context: Context,
    channel: &'static str,
    signed_in: bool,
    state: State,
    /// Cents in the cart, and the number of things.
    cart: (i64, u32),
    product: (u32, &'static str, i64),
    temperature: f64,
}

impl Visit {
    pub(super) fn begin(rng: &mut SmallRng, person: Person, now: Timestamp) -> Self {
        let channel = weighted(rng, CHANNELS);
        let mut context = person.context();
        if matches!(channel, "paid_search" | "email" | "social") && person.platform != Platform::Iot {
            context.campaign = Some(Campaign {
                source: channel.to_owned(),
                name: "autumn".to_owned(),
                ..Campaign::default()
            });
        }
        let first = match person.platform {
            Platform::Iot => State::Reading,
            _ => weighted(
                rng,
                &[(State::Home, 60), (State::Catalog, 20), (State::ProductView, 12), (State::Search, 8)],
            ),
        };
        Self {
            session_id: format!("{:x}{:04x}", now.as_millisecond(), rng.random::<u16>()),
            device_id: person.device_id(),
            signed_in: person.member,
            temperature: rng.random_range(14.0..26.0),
            person,
            context,
            channel,
            state: first,
            cart: (0, 0),
            product: (0, "", 0),
        }
    }

    /// The event of the present state; `happened` lies before `now` when the device was offline.
    pub(super) fn step(
        &mut self,
        rng: &mut SmallRng,
        now: Timestamp,
        happened: Timestamp,
        sequence: u64,
    ) -> Event {
        let person = &self.person;
        let is_app = person.platform != Platform::Web;
        let skew = SignedDuration::from_millis(person.skew_ms);
        let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &rng.random()).into_uuid();
        let mut properties =
            std::collections::BTreeMap::from([("platform".to_owned(), text(person.platform.name()))]);
        let mut put = |key: &str, value: Value| drop(properties.insert(key.to_owned(), value));
        let mut revenue = None;
        if self.state != State::Reading {
            put("country", text(person.region().country));
            put("channel", text(self.channel));
            put("plan", text(person.plan));
        }
        match self.state {
            State::Search => put("query", text(QUERIES[rng.random_range(0..QUERIES.len())])),
            State::ProductView => {
                // Most prices are low, a few high: the shape of a log-normal distribution.
                let price = (1500.0 * (rng.random::<f64>() * 3.2).exp()) as i64;
                self.product = (rng.random_range(1..2000), weighted(rng, CATEGORIES), price);
                product(&mut put, self.product);
            }
            State::AddToCart => {
                product(&mut put, self.product);
                self.cart = (self.cart.0 + self.product.2, self.cart.1 + 1);
            }
            State::Cart | State::Checkout => put("items", number(self.cart.1.into())),
            State::Purchase => {
                put("items", number(self.cart.1.into()));
                put("order_id", text(&format!("o{:08}", rng.random_range(0..100_000_000))));
                revenue = Some(Money {
                    currency_code: person.region().currency.to_owned(),
                    units: self.cart.0 / 100,
                    nanos: (self.cart.0 % 100) as i32 * 10_000_000,
                });
                self.cart = (0, 0);
            }
            State::Reading => {
                self.temperature += rng.random_range(-0.2..0.2);
                put("temperature", number((self.temperature * 100.0).round() / 100.0));
                put("humidity", number(rng.random_range(30..70).into()));
                put("battery", number(rng.random_range(20..100).into()));
            }
            State::Home
            | State::Catalog
            | State::Account
            | State::SupportChat
            | State::ErrorPage
            | State::Gone => {}
        }
        // Who reaches the checkout has signed in; what came before stays anonymous.
        self.signed_in |= matches!(self.state, State::Checkout | State::Purchase | State::Account);
        let knows_user = self.signed_in && person.platform != Platform::Iot;
        let mut context = self.context.clone();
        if person.platform == Platform::Web {
            let path = format!("/{}", self.state.event_name().replace('_', "-"));
            context.page = Some(Page { path, ..Page::default() });
        }
        Event {
            event_id: id.to_string(),
            event_name: self.state.event_name().to_owned(),
            event_type: self.event_type().into(),
            user_id: if knows_user { format!("user_{:06}", person.index) } else { String::new() },
            anonymous_id: if knows_user { String::new() } else { self.device_id.clone() },
            session_id: self.session_id.clone(),
            install_id: if is_app { self.device_id.clone() } else { String::new() },
            sequence: if is_app { sequence } else { 0 },
            event_time: Some(timestamp((happened + skew).as_microsecond())),
            sent_time: is_app.then(|| timestamp((now + skew).as_microsecond())),
            clock_offset: None,
            properties: Some(Struct { fields: properties }),
            revenue,
            context: Some(context),
        }
    }

    /// Moves on: the time until the next event in microseconds, or `None` when the visit is over.
    pub(super) fn pause(&mut self, rng: &mut SmallRng) -> Option<i64> {
        self.state = weighted(rng, self.state.next());
        // Back from an error or a chat with nothing to pay for.
        if self.state == State::Checkout && self.cart.1 == 0 {
            self.state = State::Home;
        }
        if self.state == State::Gone {
            return None;
        }
        let mean = if self.state == State::Reading { SAMPLING } else { THINKING };
        // Exponential, as waiting times are.
        let seconds = -mean * (1.0 - rng.random::<f64>()).ln();
        Some((seconds * 1e6) as i64 + 200_000)
    }

    fn event_type(&self) -> EventType {
        let is_page =
            matches!(self.state, State::Home | State::Catalog | State::ProductView | State::Account);
        match self.person.platform {
            Platform::Web if is_page => EventType::Page,
            Platform::Android | Platform::Ios if is_page => EventType::Screen,
            Platform::Web | Platform::Android | Platform::Ios | Platform::Iot => EventType::Track,
        }
    }
}

fn product(put: &mut impl FnMut(&str, Value), (id, category, cents): (u32, &str, i64)) {
    put("product_id", text(&format!("p{id:05}")));
    put("category", text(category));
    put("price", number(cents as f64 / 100.0));
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn number(number: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(number)) }
}
