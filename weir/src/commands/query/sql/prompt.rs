//! The prompt: lines are edited, completed and remembered; statements are asked one after the other.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustyline::{
    CompletionType, Config, Context, Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::DefaultHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};
use weir_proto::analytics::v1::{ListEventNamesRequest, QuerySqlRequest, query_sql_response::Part};

use super::{
    Sql, ask,
    words::{Command, Words, command, is_whole},
};
use crate::{
    output,
    render::{ACCENT, BAD, FAINT, paint},
};

const PROMPT: &str = "weir> ";
/// Statements that are remembered.
const HISTORY: usize = 1000;
/// Names of events that are completed.
const NAMES: u32 = 1000;

const HELP: &str = "\
Statements end with ; and may have several lines. Tab completes words, columns and, within quotes, names of events.
  describe events;                                                      the columns
  select event_name, count(*) from events group by 1 order by 2 desc;   what happens most
  select date_trunc('day', time), count(distinct user_id) from events group by 1 order by 1;
  help, quit                                                            this text; the end, as Ctrl-D
Ctrl-C gives up a statement that runs or is being typed.
";

type Prompt = Editor<Assistant, DefaultHistory>;

/// Asks statement after statement until the end of input.
pub(super) async fn run(args: &Sql) -> Result<()> {
    let words = words(args).await?;
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .history_ignore_space(true)
        .max_history_size(HISTORY)
        .context("the size of the history")?
        .build();
    let mut editor = Prompt::with_config(config).context("cannot use this terminal")?;
    editor.set_helper(Some(Assistant { words }));
    let history = history_file();
    if let Some(path) = &history {
        // There is none before the first time.
        let _ = editor.load_history(path);
    }
    output::line(paint(FAINT, "SQL over the table events; help explains, Ctrl-D ends"))?;
    loop {
        // Typing blocks its thread, and only that.
        let (returned, line) = tokio::task::spawn_blocking(move || {
            let line = editor.readline(&(PROMPT, paint(ACCENT, PROMPT)));
            (editor, line)
        })
        .await
        .context("the prompt broke off")?;
        editor = returned;
        let line = match line {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("cannot read from this terminal"),
        };
        if line.trim().is_empty() {
            continue;
        }
        editor.add_history_entry(line.as_str()).context("cannot remember a statement")?;
        match command(&line) {
            Some(Command::Quit) => break,
            Some(Command::Help) => output::text(HELP)?,
            None => {
                let answered = tokio::select! {
                    answered = ask(args, &line) => answered,
                    _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("given up")),
                };
                if let Err(error) = answered {
                    anstream::eprintln!("{} {error:#}", paint(BAD, "error:"));
                }
            }
        }
    }
    if let Some(path) = &history
        && let Err(error) = save(&mut editor, path)
    {
        output::note(format!("the history is not kept: {error:#}"));
    }
    Ok(())
}

fn save(editor: &mut Prompt, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    editor.save_history(path).with_context(|| format!("cannot write {}", path.display()))
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

/// Completes, and tells when a statement is whole.
struct Assistant {
    words: Words,
}

impl Helper for Assistant {}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.words.complete(line, position))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let whole = is_whole(context.input());
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}
