//! `weir status`: how far processing has come.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use weir_proto::processing::v1::{
    ClockJump, GetStatusRequest, PartitionStatus, Status, WatchStatusRequest, partition_status::State,
};

use crate::{
    client::Connection,
    moment, output, protojson,
    render::{
        BAD, FAINT, GOOD, STRONG, grouped, paint,
        table::{self, numeric, text},
    },
};

/// Show a consumer's partitions: positions, lag, rates
///
/// The consumer that answers knows of its own partitions. Where several share them, ask each by its own address.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir status
  weir status --watch
  weir status --endpoint consumer=http://consumer-1:50052     one of several consumers
  weir status --json | jq '.partitions[].lagEvents'")]
pub(crate) struct StatusCommand {
    /// Go on showing it
    #[arg(long, short)]
    watch: bool,
    /// Time between two updates of --watch
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = moment::duration)]
    interval: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs it.
pub(crate) async fn run(args: StatusCommand) -> Result<()> {
    let mut client = args.connection.processing()?;
    let explain = |status| args.connection.explain(status);
    if !args.watch {
        let status = client.get_status(GetStatusRequest {}).await.map_err(explain)?.into_inner().status;
        return show(&status.unwrap_or_default(), args.json);
    }
    let request = WatchStatusRequest { interval: Some(moment::duration_to_proto(args.interval)) };
    let mut stream = client.watch_status(request).await.map_err(explain)?.into_inner();
    while let Some(response) = stream.message().await.map_err(explain)? {
        output::redraw(!args.json)?;
        show(&response.status.unwrap_or_default(), args.json)?;
    }
    anyhow::bail!("the service closed the stream")
}

fn show(status: &Status, json: bool) -> Result<()> {
    if json {
        output::line(protojson::to_line(status))?;
    } else {
        output::text(render(status))?;
    }
    Ok(())
}

fn render(status: &Status) -> String {
    let lag: u64 = status.partitions.iter().map(|partition| partition.lag_events).sum();
    let rate: f64 = status.partitions.iter().map(|partition| partition.records_per_second).sum();
    let mut out = format!(
        "{}  {} partitions, {} events waiting, {} records/s\n\n",
        paint(STRONG, format_args!("consumer {}", status.instance)),
        status.partitions.len(),
        grouped(lag),
        grouped(rate.round() as u64)
    );
    let columns = [
        numeric("partition"),
        text("state"),
        numeric("position"),
        numeric("end"),
        numeric("lag"),
        numeric("lag time"),
        text("watermark"),
        numeric("counted"),
        numeric("duplicates"),
        numeric("dead letters"),
        numeric("late"),
        numeric("records/s"),
    ];
    out.push_str(&table::table(&columns, status.partitions.iter().map(row)));
    for partition in status.partitions.iter().filter(|partition| !partition.detail.is_empty()) {
        let detail = format!("partition {}: {}", partition.partition, partition.detail);
        out.push_str(&format!("{}\n", paint(FAINT, detail)));
    }
    if let Some(jump) = &status.clock_jump {
        out.push_str(&format!("{}\n", paint(BAD, clock_jump(jump))));
    }
    let others =
        "the partitions of this consumer; others show theirs with --endpoint consumer=http://HOST:50052";
    out.push_str(&format!("{}\n", paint(FAINT, others)));
    out
}

/// Says that the clock of the consumer's machine was set.
fn clock_jump(jump: &ClockJump) -> String {
    let seconds = jump.jump.as_ref().map_or(0, |jump| jump.seconds);
    let to =
        jump.jump_time.as_ref().map(|at| moment::from_proto(at).strftime("%Y-%m-%d %H:%M:%S").to_string());
    let way = if seconds < 0 { "back" } else { "forwards" };
    let by = grouped(seconds.unsigned_abs());
    format!("the clock of this consumer's machine was set {way} by {by} s, to {}", to.unwrap_or_default())
}

fn row(partition: &PartitionStatus) -> Vec<String> {
    let (style, state) = match partition.state() {
        State::Unspecified => (FAINT, "unknown"),
        State::Claiming => (FAINT, "claiming"),
        State::Rebuilding => (FAINT, "rebuilding"),
        State::Running => (GOOD, "running"),
        State::Fenced => (BAD, "fenced"),
        State::Blocked => (BAD, "blocked"),
    };
    let lag_time =
        partition.lag_time.as_ref().map_or(0.0, |time| time.seconds as f64 + f64::from(time.nanos) / 1e9);
    let watermark = partition.watermark.as_ref();
    let watermark = watermark.map(|at| moment::from_proto(at).strftime("%Y-%m-%d %H:%M:%S").to_string());
    vec![
        partition.partition.to_string(),
        paint(style, state),
        grouped(partition.position),
        grouped(partition.end_offset),
        grouped(partition.lag_events),
        format!("{lag_time:.1} s"),
        watermark.unwrap_or_default(),
        grouped(partition.counted),
        grouped(partition.duplicates),
        grouped(partition.dead_lettered),
        grouped(partition.late),
        grouped(partition.records_per_second.round() as u64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_stand_in_a_table() {
        let status = Status {
            instance: "host-1".into(),
            partitions: vec![
                PartitionStatus {
                    partition: 0,
                    state: State::Running.into(),
                    position: 12_345,
                    end_offset: 12_400,
                    lag_events: 55,
                    counted: 12_000,
                    records_per_second: 990.4,
                    ..PartitionStatus::default()
                },
                PartitionStatus {
                    partition: 1,
                    state: State::Blocked.into(),
                    detail: "the log is unavailable".into(),
                    ..PartitionStatus::default()
                },
            ],
            report_time: None,
            clock_jump: Some(ClockJump {
                jump_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
                jump: Some(prost_types::Duration { seconds: -34_560_000, nanos: 0 }),
            }),
        };
        let plain = anstream::adapter::strip_str(&render(&status)).to_string();
        let plain: Vec<&str> = plain.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(plain.join("\n"), @r"
        consumer host-1  2 partitions, 55 events waiting, 990 records/s

        partition  state    position     end  lag  lag time  watermark  counted  duplicates  dead letters  late  records/s
                0  running    12,345  12,400   55     0.0 s              12,000           0             0     0        990
                1  blocked         0       0    0     0.0 s                   0           0             0     0          0
        partition 1: the log is unavailable
        the clock of this consumer's machine was set back by 34,560,000 s, to 2023-11-14 22:13:20
        the partitions of this consumer; others show theirs with --endpoint consumer=http://HOST:50052
        ");
    }
}
