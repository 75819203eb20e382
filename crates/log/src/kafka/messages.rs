//! Many messages at a time: librdkafka hands out an array for the price that rust-rdkafka pays for one message (an event, two
//! locks and two looks at the clock).

use std::{ffi::CStr, fmt, marker::PhantomData, ptr, slice};

use rdkafka::{
    ClientContext,
    bindings::{
        rd_kafka_consume_batch_queue, rd_kafka_header_get_all, rd_kafka_headers_t, rd_kafka_message_destroy,
        rd_kafka_message_headers, rd_kafka_message_t, rd_kafka_message_timestamp, rd_kafka_queue_destroy,
        rd_kafka_queue_get_consumer, rd_kafka_queue_t, rd_kafka_timestamp_type_t, rd_kafka_topic_name,
    },
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use crate::Offset;

/// Messages taken at once at most.
const MANY: usize = 1024;

/// The queue that a consumer's messages arrive in.
pub(super) struct Messages<'c> {
    /// The queue must be given back before the consumer is destroyed.
    consumer: PhantomData<&'c ()>,
    queue: *mut rd_kafka_queue_t,
    /// Room for what is taken; null outside of [`Messages::take`].
    taken: Vec<*mut rd_kafka_message_t>,
}

impl fmt::Debug for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

impl<'c> Messages<'c> {
    pub(super) fn of<C: ClientContext + ConsumerContext>(consumer: &'c BaseConsumer<C>) -> Self {
        // SAFETY: the handle lives as long as the consumer; the queue has a reference count of its own.
        let queue = unsafe { rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Self { consumer: PhantomData, queue, taken: vec![ptr::null_mut(); MANY] }
    }

    /// Gives what is at hand to `each`, without waiting, and returns how much it was. Errors of partitions come among the
    /// messages.
    pub(super) fn take(&mut self, mut each: impl FnMut(Result<Message<'_>, KafkaError>)) -> usize {
        // SAFETY: the array has room for as many pointers as are asked for.
        let count =
            unsafe { rd_kafka_consume_batch_queue(self.queue, 0, self.taken.as_mut_ptr(), self.taken.len()) };
        let count = usize::try_from(count).unwrap_or_default();
        for message in &mut self.taken[..count] {
            let message = Owned(std::mem::replace(message, ptr::null_mut()));
            each(message.read());
        }
        count
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        // SAFETY: the reference taken at the start, given back once.
        unsafe { rd_kafka_queue_destroy(self.queue) };
    }
}

/// A message that is destroyed at the end.
struct Owned(*mut rd_kafka_message_t);

impl Owned {
    fn read(&self) -> Result<Message<'_>, KafkaError> {
        // SAFETY: librdkafka filled the message, and nothing else refers to it until it is destroyed.
        let raw = unsafe { &*self.0 };
        match RDKafkaErrorCode::from(raw.err) {
            RDKafkaErrorCode::NoError => Ok(Message { raw }),
            code => Err(KafkaError::MessageConsumption(code)),
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: it was taken from the queue and is destroyed once.
        unsafe { rd_kafka_message_destroy(self.0) };
    }
}

/// One message, borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    raw: &'a rd_kafka_message_t,
}

impl<'a> Message<'a> {
    /// One that rust-rdkafka handed out.
    pub(super) fn of(message: &'a BorrowedMessage<'_>) -> Self {
        // SAFETY: what is borrowed is a message, and lives as long as the borrow.
        Self { raw: unsafe { &*message.ptr() } }
    }

    pub(super) fn topic(&self) -> &'a str {
        // SAFETY: the name is a C string that lives as long as the topic's handle, which the message holds.
        let name = unsafe { CStr::from_ptr(rd_kafka_topic_name(self.raw.rkt)) };
        name.to_str().unwrap_or_default()
    }

    pub(super) fn partition(&self) -> u32 {
        self.raw.partition as u32
    }

    pub(super) fn offset(&self) -> Offset {
        self.raw.offset as Offset
    }

    /// Unix milliseconds; 0 when the broker gave none.
    pub(super) fn time_ms(&self) -> i64 {
        let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: both pointers are valid for the call.
        unsafe { rd_kafka_message_timestamp(self.raw, &mut kind) }.max(0)
    }

    pub(super) fn key(&self) -> &'a [u8] {
        bytes(self.raw.key.cast(), self.raw.key_len)
    }

    pub(super) fn value(&self) -> &'a [u8] {
        bytes(self.raw.payload.cast(), self.raw.len)
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut headers: *mut rd_kafka_headers_t = ptr::null_mut();
        // SAFETY: both pointers are valid for the call; the headers live as long as the message.
        let found = unsafe { rd_kafka_message_headers(self.raw, &mut headers) };
        let any = RDKafkaErrorCode::from(found) == RDKafkaErrorCode::NoError;
        (0..).map_while(move |index| {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the headers are there, and the pointers are valid for the call.
            let got = any.then(|| unsafe {
                rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut len)
            })?;
            if RDKafkaErrorCode::from(got) != RDKafkaErrorCode::NoError {
                return None;
            }
            // SAFETY: a header's name is a C string that lives as long as the message.
            let name = unsafe { CStr::from_ptr(name) };
            Some((name.to_str().unwrap_or_default(), bytes(value.cast(), len)))
        })
    }
}

/// Absent bytes are empty ones.
fn bytes<'a>(start: *const u8, len: usize) -> &'a [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: librdkafka gives the start and the length of memory that lives as long as its message.
    unsafe { slice::from_raw_parts(start, len) }
}
