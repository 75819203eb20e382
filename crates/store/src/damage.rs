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
    let looks = segments.iter().cloned().map(|segment| {
        let look = look(Arc::clone(&segment));
        async move { (segment, look.await) }
    });
    let mut looks = stream::iter(looks).buffer_unordered(at_a_time);
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
    for (segment, error) in refused {
        if !answered {
            return Err(error);
        }
        found(&segment, look(Arc::clone(&segment)).await);
    }
    Ok(())
}
