//! What a request makes this process hold, charged to the budget of the server that it came through.

use http::Extensions;
use prost_reflect::MessageDescriptor;
use tonic::Status;
use weir_runtime::server::RequestMemory;

/// The request's share of the budget; none when the router is not served by `weir_runtime::Host`.
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

    /// Checks what a message will take once decoded. The call that it becomes part of charges that.
    ///
    /// # Errors
    /// The message would take too much.
    pub(crate) fn check(&self, message: &MessageDescriptor, encoded: &[u8]) -> Result<(), Status> {
        if let Some(memory) = &self.0
            && let Some(message) = memory.message(message.full_name())
        {
            memory.measure(message, encoded)?;
        }
        Ok(())
    }
}

/// Bytes held by something; given back with it.
#[derive(Debug)]
pub(crate) struct Charge {
    memory: Memory,
    bytes: usize,
}

impl Charge {
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
