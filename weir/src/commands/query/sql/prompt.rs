//! The prompt: lines are edited, completed and remembered; statements are asked one after the other.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use dialoguer::{Completion, History, Input};
use weir_proto::analytics::v1::{ListEventNamesRequest, QuerySqlRequest, query_sql_response::Part};

use super::{
    Sql, ask,
    words::{Command, Words, command, is_whole},
};
use crate::{
    output,
    render::{ACCENT, BAD, FAINT, paint},
};

/// Before a statement, and before its further lines.
const PROMPT: &str = "weir>";
const MORE: &str = "   ..>";
/// Statements that are remembered.
const HISTORY: usize = 1000;
/// Names of events that are completed.
const NAMES: u32 = 1000;

const HELP: &str = "\
Statements end with ; and may have several lines. Tab completes words, columns and, within quotes, names of events; the
arrow keys bring earlier lines back.
  describe events;                                                      the columns
  select event_name, count(*) from events group by 1 order by 2 desc;   what happens most
  select date_trunc('day', time), count(distinct user_id) from events group by 1 order by 1;
  help, quit                                                            this text; the end, as Ctrl-C
Ctrl-C gives up a statement that runs.
";

/// Asks statement after statement until the end of input.
pub(super) async fn run(args: &Sql) -> Result<()> {
    let mut words = words(args).await?;
    let path = history_file();
    let mut past = path.as_deref().map(Past::load).unwrap_or_default();
    output::line(paint(FAINT, "SQL over the table events; help explains, quit ends"))?;
    loop {
        // Typing blocks its thread, and only that.
        let typed = tokio::task::spawn_blocking(move || {
            let statement = statement(&words, &mut past);
            (words, past, statement)
        });
        let statement;
        (words, past, statement) = typed.await.context("the prompt broke off")?;
        let Some(statement) = statement? else { break };
        if let Some(path) = &path
            && let Err(error) = past.save(path)
        {
            output::note(format!("the history is not kept: {error:#}"));
        }
        match command(&statement) {
            Some(Command::Quit) => break,
            Some(Command::Help) => output::text(HELP)?,
            None => {
                let answered = tokio::select! {
                    answered = ask(args, &statement) => answered,
                    _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("given up")),
                };
                if let Err(error) = answered {
                    anstream::eprintln!("{} {error:#}", paint(BAD, "error:"));
                }
            }
        }
    }
    Ok(())
}

/// Reads lines until they make a statement; `None` when there is to be none any more.
fn statement(words: &Words, past: &mut Past) -> Result<Option<String>> {
    let mut statement = String::new();
    loop {
        let prompt = if statement.is_empty() { PROMPT } else { MORE };
        let line = Input::<String>::with_theme(&Plain)
            .with_prompt(paint(ACCENT, prompt).to_string())
            .allow_empty(true)
            .history_with(past)
            .completion_with(words)
            .interact_text();
        match line {
            Ok(line) if statement.is_empty() && line.trim().is_empty() => {}
            Ok(line) => {
                statement.push_str(&line);
                if is_whole(&statement) {
                    return Ok(Some(statement));
                }
                statement.push('\n');
            }
            Err(dialoguer::Error::IO(error)) if error.kind() == std::io::ErrorKind::Interrupted => {
                return Ok(None);
            }
            Err(error) => return Err(error).context("cannot read from this terminal"),
        }
    }
}

/// A prompt without a colon after it.
struct Plain;

impl dialoguer::theme::Theme for Plain {
    fn format_input_prompt(
        &self,
        f: &mut dyn std::fmt::Write,
        prompt: &str,
        _default: Option<&str>,
    ) -> std::fmt::Result {
        write!(f, "{prompt} ")
    }

    fn format_input_prompt_selection(
        &self,
        f: &mut dyn std::fmt::Write,
        prompt: &str,
        selection: &str,
    ) -> std::fmt::Result {
        write!(f, "{prompt} {selection}")
    }
}

/// Completes the last word as far as all that it may become agree.
impl Completion for Words {
    fn get(&self, input: &str) -> Option<String> {
        let (start, candidates) = self.complete(input, input.len());
        let longer = candidates.into_iter().reduce(|a, b| {
            let common = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
            common.map(|(c, _)| c).collect()
        })?;
        (longer.len() > input.len() - start).then(|| format!("{}{longer}", &input[..start]))
    }
}

/// Earlier lines, the latest first.
#[derive(Debug, Default)]
struct Past(VecDeque<String>);

impl History<String> for Past {
    fn read(&self, back: usize) -> Option<String> {
        self.0.get(back).cloned()
    }

    fn write(&mut self, line: &String) {
        // As in shells, what begins with a space is not remembered.
        if line.trim().is_empty() || line.starts_with(' ') {
            return;
        }
        self.0.retain(|known| known != line);
        self.0.push_front(line.clone());
        self.0.truncate(HISTORY);
    }
}

impl Past {
    fn load(path: &Path) -> Self {
        // There is none before the first time.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self(text.lines().rev().map(str::to_owned).take(HISTORY).collect())
    }

    fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let text: String = self.0.iter().rev().flat_map(|line| [line.as_str(), "\n"]).collect();
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Where statements are remembered, by the XDG base directory specification.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
    state.map(|state| state.join("weir/sql_history"))
}

/// What there is to complete. Reaching the service also tells at once whether there is one.
async fn words(args: &Sql) -> Result<Words> {
    let mut client = args.connection.analytics()?;
    let explain = |status| args.connection.explain(status);
    let statement = "select * from events limit 0".to_owned();
    let request = QuerySqlRequest { statement, ..QuerySqlRequest::default() };
    let mut parts = client.query_sql(args.shape.request(request)).await.map_err(explain)?.into_inner();
    let mut columns = Vec::new();
    while let Some(part) = parts.message().await.map_err(explain)? {
        if let Some(Part::Columns(found)) = part.part {
            columns.extend(found.columns.into_iter().map(|column| column.name));
        }
    }
    let request = ListEventNamesRequest { page_size: NAMES, ..ListEventNamesRequest::default() };
    let names = client.list_event_names(args.shape.request(request)).await.map_err(explain)?.into_inner();
    Ok(Words { columns, event_names: names.event_names.into_iter().map(|name| name.event_name).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_completed_as_far_as_is_certain() {
        let columns = vec!["user_id".to_owned(), "user_hash".to_owned()];
        let words = Words { columns, event_names: vec!["purchase".to_owned()] };
        assert_eq!(words.get("select user_").as_deref(), None, "two columns begin so");
        assert_eq!(words.get("select use").as_deref(), Some("select user_"));
        assert_eq!(words.get("select user_i").as_deref(), Some("select user_id"));
        assert_eq!(words.get("where event_name = 'pu").as_deref(), Some("where event_name = 'purchase'"));
    }

    #[test]
    fn lines_are_remembered_once_and_survive() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("state/history");
        let mut past = Past::load(&path);
        for line in ["a;", "b;", " secret;", "a;", ""] {
            past.write(&line.to_owned());
        }
        past.save(&path).expect("the folder can be written");
        assert_eq!(Past::load(&path).0, ["a;", "b;"]);
    }
}
