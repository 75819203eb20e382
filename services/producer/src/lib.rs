//! The producer service: validates events and appends them to the log.
