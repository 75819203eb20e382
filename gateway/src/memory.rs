//! What a request makes this process hold, charged to the budget of the server that it came through.

use http::Extensions;
use prost_reflect::MessageDescriptor;
use tonic::Status;
use weir_runtime::server::RequestMemory;

/// An encoded message is copied into the call's body, and from there into what it is decoded from.
const COPIES: usize = 3;

/// The request's share of the budget; none when the router is not served by `weir_runtime::Server`.
#[derive(Debug, Clone)]
pub(crate) struct Memory(Option<RequestMemory>);

impl Memory {
    pub(crate) fn of(extensions: &Extensions) -> Self {
        Self(extensions.get().cloned())
    }

    /// Nothing yet, of what may grow.
    pub(crate) fn charge(&self) -> Charge {
        Charge { memory: self.clone(), bytes: 0 }
    }

    /// An encoded message and what becomes of it, held until the request is answered. Returns what was charged.
    ///
    /// # Errors
    /// The message would take too much, or the budget is used up.
    pub(crate) fn charge_message(
        &self,
        message: &MessageDescriptor,
        encoded: &[u8],
    ) -> Result<usize, Status> {
        let Some(memory) = &self.0 else { return Ok(0) };
        let copies = COPIES * encoded.len();
        memory.charge(copies)?;
        let decoded = match memory.message(message.full_name()) {
            Some(message) => memory.charge_decoded(message, encoded)?,
            None => 0,
        };
        Ok(copies + decoded)
    }
}

/// Bytes held by something; given back with it.
#[derive(Debug)]
pub(crate) struct Charge {
    memory: Memory,
    bytes: usize,
}

impl Charge {
    /// Takes over what was charged already.
    pub(crate) fn taken(memory: &Memory, bytes: usize) -> Self {
        Self { memory: memory.clone(), bytes }
    }

    /// Holds this much from now on.
    ///
    /// # Errors
    /// The budget is used up.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Status> {
        let Some(memory) = &self.memory.0 else { return Ok(()) };
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes > before {
            return memory.charge(bytes - before);
        }
        memory.release(before - bytes);
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory.0 {
            memory.release(self.bytes);
        }
    }
}
