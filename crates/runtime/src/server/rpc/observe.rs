//! Observing a call to its end. How a gRPC call went is only known from its trailers, so the body of its answer is followed.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

/// Is told once how a call ended.
pub(crate) trait OnEnd {
    /// `CANCELLED` also when the caller went away before there was a status.
    fn ended(&mut self, code: Code);
}

/// Tells what is known of a call when it is dropped, so that every call is told of, however it ends.
#[derive(Debug)]
struct Observer<O: OnEnd> {
    code: Option<Code>,
    on_end: O,
}

impl<O: OnEnd> Drop for Observer<O> {
    fn drop(&mut self) {
        self.on_end.ended(self.code.unwrap_or(Code::Cancelled));
    }
}

pin_project_lite::pin_project! {
    /// A call that is observed until its answer begins, and then with [`Observed`].
    #[derive(Debug)]
    pub(crate) struct Observing<F, O: OnEnd> {
        #[pin]
        call: F,
        observer: Option<Observer<O>>,
    }
}

impl<F, O: OnEnd> Observing<F, O> {
    pub(super) fn new(call: F, on_end: O) -> Self {
        Self { call, observer: Some(Observer { code: None, on_end }) }
    }
}

impl<F, B, O> Future for Observing<F, O>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    O: OnEnd,
{
    type Output = Result<Response<Observed<B, O>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.call.poll(cx));
        let mut observer = this.observer.take();
        if let Some(observer) = &mut observer {
            // A head with a status is all of the answer.
            observer.code = code_of(response.headers());
        }
        Poll::Ready(Ok(response.map(|body| Observed { body, observer })))
    }
}

pin_project_lite::pin_project! {
    /// The body of an observed answer.
    #[derive(Debug)]
    pub(crate) struct Observed<B, O: OnEnd> {
        #[pin]
        body: B,
        observer: Option<Observer<O>>,
    }
}

impl<B: Default, O: OnEnd> Default for Observed<B, O> {
    fn default() -> Self {
        Self { body: B::default(), observer: None }
    }
}

impl<B: Body<Data = Bytes>, O: OnEnd> Body for Observed<B, O> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(observer) = this.observer
            && let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            observer.code = code_of(trailers).or(observer.code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::body::Body as AnswerBody;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Ends(Arc<Mutex<Vec<Code>>>);

    impl OnEnd for Ends {
        fn ended(&mut self, code: Code) {
            self.0.lock().unwrap().push(code);
        }
    }

    fn with_trailers(code: &'static str) -> AnswerBody {
        let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, http::HeaderValue::from_static(code))]);
        let frames = [Ok::<_, Infallible>(Frame::trailers(trailers))];
        AnswerBody::new(StreamBody::new(futures::stream::iter(frames)))
    }

    #[tokio::test]
    async fn a_call_is_told_of_once_however_it_ends() {
        let ends = Ends::default();
        let taken = || std::mem::take(&mut *ends.0.lock().unwrap());

        let answered = std::future::ready(Ok(Response::new(with_trailers("5"))));
        let Ok(response) = Observing::new(answered, ends.clone()).await;
        assert_eq!(taken(), [], "the answer has only begun");
        response.into_body().collect().await.unwrap();
        assert_eq!(taken(), [Code::NotFound], "by the trailers");

        let refused = std::future::ready(Ok(Status::aborted("").into_http::<AnswerBody>()));
        drop(Observing::new(refused, ends.clone()).await);
        assert_eq!(taken(), [Code::Aborted], "by the head");

        let answered = std::future::ready(Ok(Response::new(with_trailers("0"))));
        drop(Observing::new(answered, ends.clone()).await);
        assert_eq!(taken(), [Code::Cancelled], "the caller left before the trailers");

        let never = std::future::pending::<Result<Response<AnswerBody>, Infallible>>();
        drop(Observing::new(never, ends.clone()));
        assert_eq!(taken(), [Code::Cancelled], "the caller left before the answer");
    }
}
