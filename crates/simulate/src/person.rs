//! Who visits: a person or a sensor with everything that stays the same between visits. Made from the seed and the number
//! alone, so that a million of them take no memory.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use weir_proto::event::v1::{App, Context, Device, OperatingSystem};

/// Where people live.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) country: &'static str,
    pub(super) zone: &'static str,
    pub(super) locale: &'static str,
    pub(super) currency: &'static str,
    /// Relative number of people.
    weight: u32,
}

pub(super) const REGIONS: &[Region] = &[
    Region { country: "US", zone: "America/New_York", locale: "en-US", currency: "USD", weight: 22 },
    Region { country: "US", zone: "America/Los_Angeles", locale: "en-US", currency: "USD", weight: 14 },
    Region { country: "BR", zone: "America/Sao_Paulo", locale: "pt-BR", currency: "USD", weight: 8 },
    Region { country: "GB", zone: "Europe/London", locale: "en-GB", currency: "GBP", weight: 10 },
    Region { country: "DE", zone: "Europe/Berlin", locale: "de-DE", currency: "EUR", weight: 14 },
    Region { country: "FR", zone: "Europe/Paris", locale: "fr-FR", currency: "EUR", weight: 8 },
    Region { country: "IN", zone: "Asia/Kolkata", locale: "en-IN", currency: "USD", weight: 16 },
    Region { country: "JP", zone: "Asia/Tokyo", locale: "ja-JP", currency: "USD", weight: 8 },
];

/// What is used to visit, with its share in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Platform {
    Web,
    Android,
    Ios,
    Iot,
}

const PLATFORMS: &[(Platform, u32)] =
    &[(Platform::Web, 42), (Platform::Android, 26), (Platform::Ios, 20), (Platform::Iot, 12)];

impl Platform {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Android => "android",
            Self::Ios => "ios",
            Self::Iot => "iot",
        }
    }
}

pub(super) const CHANNELS: &[(&str, u32)] =
    &[("organic", 38), ("direct", 22), ("paid_search", 16), ("email", 12), ("social", 9), ("referral", 3)];
const PLANS: &[(&str, u32)] = &[("free", 74), ("plus", 20), ("business", 6)];
const ANDROIDS: &[(&str, &str)] =
    &[("Samsung", "SM-S921B"), ("Google", "Pixel 9"), ("Xiaomi", "2312DRA50G"), ("Fairphone", "FP5")];
const IPHONES: &[&str] = &["iPhone14,5", "iPhone15,4", "iPhone16,1", "iPhone17,3"];
const SENSORS: &[(&str, &str)] = &[("Sensirion", "SHT45"), ("Bosch", "BME688"), ("Shelly", "H&T Gen3")];

/// Somebody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Person {
    pub(super) index: u32,
    /// Index into [`REGIONS`].
    pub(super) region: usize,
    pub(super) platform: Platform,
    pub(super) plan: &'static str,
    /// Whether visits begin signed in.
    pub(super) member: bool,
    /// What the device's clock shows beyond the true time, milliseconds.
    pub(super) skew_ms: i64,
    variant: u32,
}

impl Person {
    pub(super) fn new(seed: u64, index: u32, skewed_clocks: bool) -> Self {
        // An odd multiplier spreads neighbours far apart.
        let mut rng =
            SmallRng::seed_from_u64(seed ^ u64::from(index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let regions: Vec<(usize, u32)> = REGIONS.iter().map(|region| region.weight).enumerate().collect();
        let region = weighted(&mut rng, &regions);
        let platform = weighted(&mut rng, PLATFORMS);
        let plan = weighted(&mut rng, PLANS);
        let member = rng.random_bool(0.6);
        let is_wrong = platform != Platform::Web && rng.random_bool(0.05) && skewed_clocks;
        let skew_ms = if is_wrong { rng.random_range(-1_200_000..1_200_000) } else { 0 };
        Self { index, region, platform, plan, member, skew_ms, variant: rng.random() }
    }

    /// How likely a visit is at that hour of the local clock, 0 to 1: least at four in the morning, most at eight in the
    /// evening. Sensors don't sleep.
    pub(super) fn alertness(&self, hour: i8) -> f64 {
        if self.platform == Platform::Iot {
            return 1.0;
        }
        // By hour from midnight, after the usual shape of consumer traffic.
        const BY_HOUR: [f64; 24] = [
            0.35, 0.22, 0.14, 0.10, 0.08, 0.10, 0.20, 0.38, 0.52, 0.60, 0.64, 0.68, //
            0.74, 0.70, 0.66, 0.66, 0.70, 0.76, 0.86, 0.95, 1.00, 0.95, 0.80, 0.55,
        ];
        BY_HOUR[(hour.max(0) as usize) % 24]
    }

    pub(super) fn region(&self) -> &'static Region {
        &REGIONS[self.region]
    }

    /// The number of the install or browser.
    pub(super) fn device_id(&self) -> String {
        format!("{}-{:08x}", self.platform.name(), self.variant ^ self.index)
    }

    /// What stays the same of the context.
    pub(super) fn context(&self) -> Context {
        let pick = |count: usize| self.variant as usize % count;
        let app = |name: &str| App {
            name: name.to_owned(),
            version: format!("4.{}.{}", pick(7), pick(3)),
            build: String::new(),
        };
        let device = |kind: &str, maker: &str, model: &str| Device {
            r#type: kind.to_owned(),
            manufacturer: maker.to_owned(),
            model: model.to_owned(),
        };
        let os = |name: &str, version: usize| OperatingSystem {
            name: name.to_owned(),
            version: version.to_string(),
        };
        let (app, device, os) = match self.platform {
            Platform::Web => {
                let systems = ["Windows", "macOS", "Linux", "Windows"];
                (None, device("desktop", "", ""), os(systems[pick(systems.len())], 10 + pick(5)))
            }
            Platform::Android => {
                let (maker, model) = ANDROIDS[pick(ANDROIDS.len())];
                (Some(app("shop-android")), device("phone", maker, model), os("Android", 13 + pick(4)))
            }
            Platform::Ios => {
                let model = IPHONES[pick(IPHONES.len())];
                (Some(app("shop-ios")), device("phone", "Apple", model), os("iOS", 17 + pick(3)))
            }
            Platform::Iot => {
                let (maker, model) = SENSORS[pick(SENSORS.len())];
                (Some(app("climate-node")), device("sensor", maker, model), os("Zephyr", 3 + pick(2)))
            }
        };
        let locale = if self.platform == Platform::Iot { "" } else { self.region().locale };
        Context { app, device: Some(device), os: Some(os), locale: locale.to_owned(), ..Context::default() }
    }
}

/// One of the choices, as likely as its weight.
pub(super) fn weighted<T: Copy>(rng: &mut SmallRng, choices: &[(T, u32)]) -> T {
    let total: u32 = choices.iter().map(|(_, weight)| weight).sum();
    let mut ticket = rng.random_range(0..total);
    for &(choice, weight) in choices {
        if ticket < weight {
            return choice;
        }
        ticket -= weight;
    }
    unreachable!("the ticket is below the sum of the weights")
}
