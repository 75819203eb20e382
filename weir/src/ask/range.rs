//! `--from`, `--to`, `--last`, `--zone`: which moments a question is about.

use std::time::Duration;

use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use weir_proto::analytics::v1::TimeRange;

use crate::moment;

/// The range of a question.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Range")]
pub(crate) struct Range {
    /// First moment: 2024-01-31, 2024-01-31T10:00, RFC 3339, now-1h, today, yesterday
    #[arg(long, value_name = "TIME", conflicts_with = "last")]
    from: Option<String>,
    /// The moment after the last, written likewise; now when left out
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// The time before --to, such as 15m, 24h or 7d. Without this and --from: 12 periods of retention, all that is kept of a user,
    /// of names and of exports, else 24h
    #[arg(long, value_name = "DURATION", value_parser = moment::duration)]
    last: Option<Duration>,
    /// IANA time zone, such as Asia/Kolkata: of the dates in --from and --to, and of days, weeks and months
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = moment::zone)]
    pub(crate) zone: TimeZone,
}

impl Range {
    /// As the schema has it; `None` lets the service take its default.
    pub(crate) fn resolve(&self, now: Timestamp) -> Result<Option<TimeRange>, String> {
        let read = |text: &Option<String>| {
            text.as_ref().map(|text| moment::moment(text, &self.zone, now)).transpose()
        };
        let (start, end) = (read(&self.from)?, read(&self.to)?);
        if let (Some(start), Some(end)) = (start, end)
            && start >= end
        {
            return Err(format!("--from {start} is not before --to {end}"));
        }
        if start.is_none() && end.is_none() && self.last.is_none() {
            return Ok(None);
        }
        Ok(Some(TimeRange {
            start_time: start.map(moment::to_proto),
            end_time: end.map(moment::to_proto),
            last: self.last.map(moment::duration_to_proto),
        }))
    }

    /// The zone's name.
    pub(crate) fn zone_name(&self) -> String {
        self.zone.iana_name().unwrap_or("UTC").to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: Option<&str>, to: Option<&str>, last: Option<u64>) -> Range {
        Range {
            from: from.map(Into::into),
            to: to.map(Into::into),
            last: last.map(Duration::from_secs),
            zone: moment::zone("Asia/Kolkata").unwrap(),
        }
    }

    #[test]
    fn dates_are_the_zones_and_the_end_is_not_included() {
        let resolved = range(Some("2024-01-01"), Some("2024-01-02"), None).resolve(Timestamp::UNIX_EPOCH);
        let resolved = resolved.unwrap().unwrap();
        let start = moment::from_proto(&resolved.start_time.unwrap()).to_string();
        let end = moment::from_proto(&resolved.end_time.unwrap()).to_string();
        assert_eq!((start.as_str(), end.as_str()), ("2023-12-31T18:30:00Z", "2024-01-01T18:30:00Z"));
    }

    #[test]
    fn nothing_given_is_left_to_the_service() {
        assert_eq!(range(None, None, None).resolve(Timestamp::UNIX_EPOCH).unwrap(), None);
        let last = range(None, None, Some(60)).resolve(Timestamp::UNIX_EPOCH).unwrap().unwrap();
        assert_eq!((last.start_time, last.end_time, last.last.unwrap().seconds), (None, None, 60));
    }

    #[test]
    fn an_empty_range_is_refused() {
        let error = range(Some("2024-01-02"), Some("2024-01-01"), None).resolve(Timestamp::UNIX_EPOCH);
        assert!(error.unwrap_err().contains("--from"));
    }
}
