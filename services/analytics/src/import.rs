//! `GetImport`: what became of the events of an import, added up over the partitions.

use futures::future::try_join_all;
use uuid::Uuid;
use weir_proto::{
    analytics::v1::{GetImportRequest, GetImportResponse, Import},
    time::timestamp,
    validate::Validate as _,
};
use weir_rollup::imports::{self, Counts};
use weir_runtime::auth::ProjectId;

use crate::{
    error::Error,
    partition::{KnownImport, Refusal},
    rollups::engine::Engine,
};

/// Answers from what the partitions have counted now.
///
/// # Errors
/// [`Error::NotFound`] when none of them knows the import, and when a partition has no answers.
pub(crate) async fn find(
    engine: &Engine,
    project: &ProjectId,
    request: &GetImportRequest,
) -> Result<GetImportResponse, Error> {
    request.validate()?;
    let id =
        Uuid::try_parse(&request.import_id).expect("the schema requires a UUID, and the request is valid");
    engine.check_ready()?;
    let asked = engine.partitions.iter().map(|partition| partition.import(project.clone(), id.into_bytes()));
    let known = try_join_all(asked).await.map_err(|refusal| match refusal {
        Refusal::Stopped | Refusal::Expired => Error::ShuttingDown,
    })?;
    match sum(&known) {
        Some(import) => {
            Ok(GetImportResponse { import: Some(Import { import_id: id.to_string(), ..import }) })
        }
        None => Err(Error::NotFound(format!(
            "no event of the import {id} is counted: wait until its events are processed (`min_consistency_token`), or it is \
             forgotten, as only the last {} imports are remembered",
            imports::REMEMBERED
        ))),
    }
}

/// What the partitions know together.
fn sum(partitions: &[KnownImport]) -> Option<Import> {
    let known: Vec<_> = partitions.iter().filter_map(|partition| partition.import).collect();
    let first = known.iter().map(|import| import.first_micros).min()?;
    let last = known.iter().map(|import| import.last_micros).max()?;
    let mut counts = Counts::default();
    known.iter().for_each(|import| counts.add(import.counts));
    let may_have_forgotten =
        |partition: &KnownImport| partition.import.is_none() && partition.forgotten_micros >= first;
    Some(Import {
        import_id: String::new(),
        counted: counts.counted,
        duplicates: counts.duplicates,
        dead_lettered: counts.dead_lettered,
        first_time: Some(timestamp(first)),
        last_time: Some(timestamp(last)),
        incomplete: partitions.iter().any(may_have_forgotten),
    })
}

#[cfg(test)]
mod tests {
    use weir_proto::rollup::v1::ImportTally;
    use weir_rollup::imports::Imports;

    use super::*;

    fn known(counted: u64, time: i64, forgotten_micros: i64) -> KnownImport {
        let mut imports = Imports::default();
        let tally = ImportTally {
            import_id: vec![7; 16],
            project: "p".to_owned(),
            counted,
            ..ImportTally::default()
        };
        imports.add(&tally, time);
        KnownImport { import: imports.get("p", &[7; 16]), forgotten_micros }
    }

    #[test]
    fn numbers_are_incomplete_where_a_partition_may_have_forgotten_some() {
        let nothing = |forgotten_micros| KnownImport { import: None, forgotten_micros };
        assert_eq!(sum(&[nothing(i64::MIN), nothing(5)]), None);
        let whole = sum(&[known(3, 20, i64::MIN), nothing(19), known(4, 30, 25)]).unwrap();
        assert_eq!((whole.counted, whole.incomplete), (7, false));
        assert_eq!((whole.first_time, whole.last_time), (Some(timestamp(20)), Some(timestamp(30))));
        assert!(sum(&[known(3, 20, i64::MIN), nothing(20)]).unwrap().incomplete);
    }
}
