//! Named checks: what this process waits for or has lost, for `/readyz` and `grpc.health.v1`.
//!
//! A part registers a check and keeps the handle; it is failing ("starting") until its owner says otherwise, so a service
//! is not ready before every part of it is. Checks say whether traffic should come here, never whether the process should
//! be killed: `/healthz` only tells that it lives.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use tokio::sync::watch;

/// The checks of one service. Clones share them.
#[derive(Debug, Clone)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    draining: bool,
    checks: BTreeMap<String, CheckState>,
}

#[derive(Debug, Clone)]
struct CheckState {
    /// `None`: all is well.
    reason: Option<String>,
    since: SystemTime,
}

/// One check as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Its name.
    pub name: String,
    /// Why it fails; `None` when it does not.
    pub failing: Option<String>,
    /// When it last changed.
    pub since: SystemTime,
}

/// All checks as they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether every check is well and the service is not draining.
    pub ready: bool,
    /// Whether the service is on its way out.
    pub draining: bool,
    /// The checks, by name.
    pub checks: Vec<CheckReport>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Without checks, which is ready.
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Adds a check, which fails with "starting" until [`Check::ok`]. The same name again is the same check.
    pub fn register(&self, name: impl Into<String>) -> Check {
        let name = name.into();
        let starting = CheckState { reason: Some("starting".to_owned()), since: SystemTime::now() };
        self.state.send_modify(|state| {
            state.checks.entry(name.clone()).or_insert(starting);
        });
        Check { health: self.clone(), name }
    }

    /// Says that the service is on its way out; it is not ready again.
    pub fn drain(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Whether traffic should come here.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// Everything, for `/readyz`.
    pub fn report(&self) -> Report {
        let state = self.state.borrow();
        let checks = state.checks.iter().map(|(name, check)| CheckReport {
            name: name.clone(),
            failing: check.reason.clone(),
            since: check.since,
        });
        Report { ready: state.is_ready(), draining: state.draining, checks: checks.collect() }
    }

    /// Waits until [`Health::is_ready`] is `ready`. It may have changed again by the time the caller looks.
    pub async fn until(&self, ready: bool) {
        let mut changes = self.state.subscribe();
        changes.wait_for(|state| state.is_ready() == ready).await.expect("self holds the sender");
    }
}

impl State {
    fn is_ready(&self) -> bool {
        !self.draining && self.checks.values().all(|check| check.reason.is_none())
    }
}

/// The handle of one check, held by the part that it is about. Clones are the same check.
#[derive(Debug, Clone)]
pub struct Check {
    health: Health,
    name: String,
}

impl Check {
    /// All is well.
    pub fn ok(&self) {
        self.set(None);
    }

    /// Something is amiss, and why, in words that an operator can act on.
    pub fn failing(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        self.health.state.send_if_modified(|state| {
            let Some(check) = state.checks.get_mut(&self.name) else { return false };
            if check.reason == reason {
                return false;
            }
            *check = CheckState { reason, since: SystemTime::now() };
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_every_check_is_well() {
        let health = Health::new();
        assert!(health.is_ready());
        let (log, store) = (health.register("log"), health.register("store"));
        assert_eq!(health.report().checks[0].failing.as_deref(), Some("starting"));
        log.ok();
        assert!(!health.is_ready());
        store.ok();
        assert!(health.is_ready());
        log.failing("no broker answers");
        assert_eq!(health.report().checks[0].failing.as_deref(), Some("no broker answers"));
        assert!(!health.is_ready());
    }

    #[test]
    fn draining_is_final() {
        let health = Health::new();
        let check = health.register("log");
        check.ok();
        health.drain();
        check.ok();
        assert!(!health.is_ready() && health.report().draining);
    }

    #[tokio::test]
    async fn a_change_can_be_awaited() {
        let health = Health::new();
        let check = health.register("log");
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.until(true).await }
        });
        check.ok();
        waiting.await.unwrap();
    }
}
