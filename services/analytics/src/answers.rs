//! Answers under way, and answers that are kept: what is asked again of the same events is not computed again.
//!
//! An answer depends on the question and on the [`Moment`] that it is about. Who asks what is being computed waits with those who
//! asked before, and the work goes on as long as anybody waits. Of each question the latest answer is kept, those that are
//! used before others.

use std::{
    collections::HashMap,
    future::Future,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use prost::Message as _;
use quick_cache::{Weighter, unsync::Cache};
use weir_proto::analytics::v1::WatchQueryResponse;

use crate::{
    error::Error,
    question::{self, Answer},
};

/// What an answer depends on beside the question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Moment {
    /// The moments that the question came down to, microseconds since the epoch.
    pub(crate) range: Range<i64>,
    /// By partition, the offset after the last event that is seen.
    pub(crate) next_offsets: Vec<u64>,
    /// Of events themselves, which segments they are in: it changes, too, when some are deleted. `None` of rollups.
    pub(crate) segments: Option<u64>,
}

/// How an answer was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// By evaluating the question.
    Evaluated,
    /// By waiting for the evaluation that another had begun.
    Shared,
    /// It was kept.
    Kept,
}

/// What an evaluation comes to.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub(crate) answer: Answer,
    /// Whether the same would come of it again.
    pub(crate) keep: bool,
}

impl From<Answer> for Evaluated {
    /// One that lacks events may get them the next time.
    fn from(mut answer: Answer) -> Self {
        let keep = question::info(&mut answer).missing_parts.is_empty();
        Self { answer, keep }
    }
}

/// The answers. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Answers(Arc<Mutex<Shelf>>);

type Outcome = Result<Arc<Answer>, Error>;

#[derive(Debug)]
struct Shelf {
    /// By question and moment: as many as there are calls in progress, and what they have left until the next one.
    under_way: HashMap<(Bytes, Moment), WeakShared<BoxFuture<'static, Outcome>>>,
    kept: Kept,
}

impl Answers {
    /// Keeps answers of so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(Shelf { under_way: HashMap::new(), kept: Kept::new(bytes) })))
    }

    /// The answer to a question at a moment, evaluated if nobody has it. The evaluation stops when all who wait for it are gone.
    ///
    /// # Errors
    /// Of the evaluation.
    pub(crate) async fn get(
        &self,
        question: &Bytes,
        moment: Moment,
        evaluation: impl Future<Output = Result<Evaluated, Error>> + Send + 'static,
    ) -> Result<(Answer, Origin), Error> {
        if let Some(answer) = self.kept(question, &moment) {
            return Ok((answer, Origin::Kept));
        }
        let (answer, origin) = self.join(question, moment, evaluation);
        Ok((Arc::unwrap_or_clone(answer.await?), origin))
    }

    fn kept(&self, question: &Bytes, moment: &Moment) -> Option<Answer> {
        let answer = lock(&self.0).kept.get(question, moment)?;
        WatchQueryResponse::decode(answer).expect("it was encoded here").result
    }

    fn join(
        &self,
        question: &Bytes,
        moment: Moment,
        evaluation: impl Future<Output = Result<Evaluated, Error>> + Send + 'static,
    ) -> (Shared<BoxFuture<'static, Outcome>>, Origin) {
        let under_way = &mut lock(&self.0).under_way;
        let key = (question.clone(), moment);
        if let Some(answer) = under_way.get(&key).and_then(WeakShared::upgrade) {
            return (answer, Origin::Shared);
        }
        let (shelf, (question, moment)) = (Arc::clone(&self.0), key.clone());
        let answer = async move {
            let Evaluated { answer, keep } = evaluation.await?;
            let answer = Arc::new(answer);
            if keep {
                lock(&shelf).kept.put(question, moment, &answer);
            }
            Ok(answer)
        };
        let answer = answer.boxed().shared();
        under_way.retain(|_, answer| answer.upgrade().is_some());
        under_way.insert(key, answer.downgrade().expect("it is not polled yet"));
        (answer, Origin::Evaluated)
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers, encoded: so they take the bytes that are counted. Those that are asked for go on being kept.
#[derive(Debug)]
struct Kept(Cache<Bytes, Entry, Bytewise>);

#[derive(Debug)]
struct Entry {
    moment: Moment,
    answer: Bytes,
}

/// Weighs entries by the bytes that they take.
#[derive(Debug, Clone, Copy)]
struct Bytewise;

impl Weighter<Bytes, Entry> for Bytewise {
    fn weight(&self, question: &Bytes, entry: &Entry) -> u64 {
        OVERHEAD + (question.len() + entry.answer.len() + 8 * entry.moment.next_offsets.len()) as u64
    }
}

/// Bytes of an entry beside those of question and answer: the index and the moment.
const OVERHEAD: u64 = 256;
/// Bytes of an answer in the middle: for sizing the index.
const USUAL: u64 = 4 << 10;

impl Kept {
    fn new(bytes: u64) -> Self {
        Self(Cache::with_weighter((bytes / USUAL) as usize, bytes, Bytewise))
    }

    fn get(&self, question: &Bytes, moment: &Moment) -> Option<Bytes> {
        self.0.get(question).filter(|entry| entry.moment == *moment).map(|entry| entry.answer.clone())
    }

    fn put(&mut self, question: Bytes, moment: Moment, answer: &Answer) {
        let mut encoded = Vec::with_capacity(answer.encoded_len());
        answer.encode(&mut encoded);
        self.0.insert(question, Entry { moment, answer: encoded.into() });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use weir_proto::analytics::v1::{MissingPart, QueryFunnelResponse, QueryPathsResponse, ResultInfo};

    use super::*;

    fn at(offset: u64) -> Moment {
        Moment { range: 0..1, next_offsets: vec![offset], segments: None }
    }

    fn funnel(omitted_groups: u64) -> Answer {
        let info = Some(ResultInfo::default());
        Answer::Funnel(QueryFunnelResponse { omitted_groups, info, ..Default::default() })
    }

    #[tokio::test]
    async fn what_is_asked_together_is_evaluated_once_and_then_kept_for_its_moment() {
        let (answers, question) = (Answers::new(10_000), Bytes::from_static(b"a funnel"));
        let (release, released) = oneshot::channel::<()>();
        let slow = async move {
            released.await.unwrap();
            Ok(funnel(1).into())
        };
        let never = || async { unreachable!("another evaluates it") };
        let first = answers.get(&question, at(7), slow);
        let second = answers.get(&question, at(7), never());
        let releasing = async { release.send(()).unwrap() };
        let (first, second, ()) = tokio::join!(first, second, releasing);
        assert_eq!(first.unwrap(), (funnel(1), Origin::Evaluated));
        assert_eq!(second.unwrap(), (funnel(1), Origin::Shared));
        assert_eq!(answers.get(&question, at(7), never()).await.unwrap(), (funnel(1), Origin::Kept));
        let newer = answers.get(&question, at(8), async { Ok(funnel(2).into()) }).await.unwrap();
        assert_eq!(newer, (funnel(2), Origin::Evaluated));
        let other = Bytes::from_static(b"other paths");
        let info = Some(ResultInfo::default());
        let paths = Answer::Paths(QueryPathsResponse { info, ..Default::default() });
        let answer = paths.clone();
        let asked = answers.get(&other, at(8), async { Ok(answer.into()) }).await.unwrap();
        assert_eq!(asked, (paths, Origin::Evaluated));
    }

    #[tokio::test]
    async fn an_answer_that_lacks_events_is_not_kept() {
        let (answers, question) = (Answers::new(10_000), Bytes::from_static(b"a funnel"));
        let mut partial = funnel(1);
        question::info(&mut partial).missing_parts.push(MissingPart::default());
        let asked = answers.get(&question, at(1), async { Ok(partial.into()) }).await.unwrap();
        assert_eq!(question::info(&mut asked.0.clone()).missing_parts.len(), 1);
        let again = answers.get(&question, at(1), async { Ok(funnel(1).into()) }).await.unwrap();
        assert_eq!(again, (funnel(1), Origin::Evaluated));
    }

    #[tokio::test]
    async fn an_evaluation_that_fails_is_not_kept() {
        let (answers, question) = (Answers::new(10_000), Bytes::from_static(b"a funnel"));
        let failing =
            answers.get(&question, at(1), async { Err(Error::Internal("a planted one".to_owned())) });
        failing.await.unwrap_err();
        let again = answers.get(&question, at(1), async { Ok(funnel(1).into()) }).await.unwrap();
        assert_eq!(again.1, Origin::Evaluated);
    }

    #[tokio::test]
    async fn an_evaluation_ends_when_the_last_who_waits_is_gone() {
        let (answers, question) = (Answers::new(10_000), Bytes::from_static(b"a funnel"));
        let (held, mut dropped) = oneshot::channel::<()>();
        let endless = async move {
            let _held = held;
            std::future::pending().await
        };
        let mut first = Box::pin(answers.get(&question, at(1), endless));
        let mut second = Box::pin(answers.get(&question, at(1), std::future::pending()));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Empty), "the second still waits");
        drop(second);
        assert_eq!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn what_is_used_again_is_kept_within_the_limit() {
        let question = |number: u64| Bytes::from(format!("question {number:03}"));
        let limit = 20 * (OVERHEAD + 100);
        let mut kept = Kept::new(limit);
        for number in 0..200 {
            kept.put(question(number), at(1), &funnel(number));
            assert!(kept.get(&question(0), &at(1)).is_some(), "it was used a moment ago");
            assert!(kept.0.weight() <= limit);
        }
        assert!((10..=30).contains(&kept.0.len()), "{} answers", kept.0.len());
        assert!(kept.get(&question(0), &at(2)).is_none(), "of another moment");
        kept.put(question(0), at(2), &funnel(7));
        assert!(kept.get(&question(0), &at(1)).is_none() && kept.get(&question(0), &at(2)).is_some());
    }

    #[test]
    fn what_is_larger_than_the_limit_is_not_kept() {
        let mut kept = Kept::new(100);
        kept.put(Bytes::from_static(b"a funnel"), at(1), &funnel(1));
        assert_eq!((kept.0.len(), kept.0.weight()), (0, 0));
    }
}
