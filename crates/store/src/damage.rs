//! Which segments can't be read.

use std::sync::Arc;

use futures::{StreamExt, stream};

use crate::{
    error::{Error, Result},
    manifest::Segment,
};

/// So many segments that the store does not give, and none that it does, mean that it gives none.
const REFUSED: usize = 8;

/// Looks at segments, `at_a_time`, and tells `found` of each what came of that, as soon as it is known.
///
/// One that the store does not give, while it gives others, is found to be damaged when it does not give it again: its disk sector may
/// be lost or its permissions wrong, and whoever waits for it waits for ever.
///
/// # Errors
/// [`Error::Unavailable`] when the store gives none: nothing is known about its segments then.
pub(crate) async fn look<L: Future<Output = Result<()>>>(
    segments: &[Arc<Segment>],
    at_a_time: usize,
    look: impl Fn(Arc<Segment>) -> L,
    mut found: impl FnMut(&Segment, Result<()>),
) -> Result<()> {
    let look = |segment: Arc<Segment>| {
        let look = look(Arc::clone(&segment));
        async move { (segment, look.await) }
    };
    let mut looks = stream::iter(segments.iter().cloned().map(look)).buffer_unordered(at_a_time);
    let mut answered = false;
    let mut refused: Vec<(Arc<Segment>, Error)> = Vec::new();
    while let Some((segment, looked)) = looks.next().await {
        match looked {
            Err(error) if error.is_retryable() => refused.push((segment, error)),
            looked => {
                answered = true;
                found(&segment, looked);
            }
        }
        if !answered && refused.len() >= REFUSED {
            break;
        }
    }
    drop(looks);
    if !answered {
        return refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error));
    }
    let again = refused.into_iter().map(|(segment, _)| look(segment));
    let mut again = stream::iter(again).buffer_unordered(at_a_time);
    while let Some((segment, looked)) = again.next().await {
        found(&segment, looked);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn what_was_refused_is_looked_at_again_as_many_at_a_time() {
        const AT_A_TIME: usize = 3;
        // All but the first are refused.
        let segment = |rows| Arc::new(Segment { rows, ..Segment::example("") });
        let segments: Vec<_> = (0..7).map(segment).collect();
        let (looks, open, most) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let refuse = async |segment: Arc<Segment>| {
            looks.set(looks.get() + 1);
            open.set(open.get() + 1);
            if looks.get() > segments.len() {
                most.set(most.get().max(open.get()));
            }
            yield_now().await;
            open.set(open.get() - 1);
            let lost = || Error::Unavailable { what: "read it".to_owned(), source: "lost a sector".into() };
            if segment.rows == 0 { Ok(()) } else { Err(lost()) }
        };
        let mut damaged = 0;
        let found = |_: &Segment, looked: Result<()>| damaged += usize::from(looked.is_err());
        look(&segments, AT_A_TIME, refuse, found).await.unwrap();
        assert_eq!((looks.get(), most.get(), damaged), (13, AT_A_TIME, 6));
    }
}
