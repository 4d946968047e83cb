//! Whether this process is ready, component by component.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// What has to be ready, shared by whoever has a part in it. A process without any component is
/// not ready: it has not come to naming them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    components: Arc<Mutex<BTreeMap<String, State>>>,
}

#[derive(Debug)]
enum State {
    Ready,
    Unready(String),
}

/// One component's say. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Component {
    name: String,
    readiness: Readiness,
}

impl Readiness {
    /// A readiness without components.
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// Adds a component, unready until it says otherwise. The same name gives the same component.
    pub fn component(&self, name: &str) -> Component {
        let starting = || State::Unready("starting".to_owned());
        self.lock().entry(name.to_owned()).or_insert_with(starting);
        Component { name: name.to_owned(), readiness: self.clone() }
    }

    /// Whether all components are ready.
    pub fn is_ready(&self) -> bool {
        let components = self.lock();
        !components.is_empty() && components.values().all(|state| matches!(state, State::Ready))
    }

    /// Each component's state, for people and for tests.
    pub fn report(&self) -> Value {
        let say = |state: &State| match state {
            State::Ready => "ready".to_owned(),
            State::Unready(reason) => reason.clone(),
        };
        let components: BTreeMap<String, String> =
            self.lock().iter().map(|(name, state)| (name.clone(), say(state))).collect();
        json!({"ready": self.is_ready(), "components": components})
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Component {
    /// The component is ready.
    pub fn ready(&self) {
        self.readiness.lock().insert(self.name.clone(), State::Ready);
    }

    /// The component is not ready, for this reason.
    pub fn unready(&self, reason: impl Into<String>) {
        self.readiness.lock().insert(self.name.clone(), State::Unready(reason.into()));
    }

    /// The component has ended as it should and is no longer asked for.
    pub fn remove(self) {
        self.readiness.lock().remove(&self.name);
    }
}

/// Whether the address answers with success: the health check of a container.
pub async fn health_client(url: &str) -> bool {
    // What is asked for is this machine, which no proxy knows.
    let client = reqwest::Client::builder().timeout(HEALTH_TIMEOUT).no_proxy().build();
    match client {
        Ok(client) => client.get(url).send().await.is_ok_and(|answer| answer.status().is_success()),
        Err(_) => false,
    }
}
