//! What a driver keeps of what it takes, in the order in which it takes it ([`crate::record`]).

use bytes::Bytes;
use tapeline_schemas::Micros;

use super::connection::Event;
use super::core::Core;
use super::overlap::Takeover;
use super::unit::Unit;
use crate::playback::configuration::configuration;
use crate::record::{self, Recorder};
use crate::venue::{Publisher, VenueSpec};

/// Keeps a snapshot that is about to be used.
pub(super) fn keep_answer(
    recorder: Option<&Recorder>,
    spec: &VenueSpec,
    unit: &Unit,
    symbol: &str,
    body: &[u8],
    at: Micros,
) {
    if let (Some(recorder), Some(path)) = (recorder, unit.connector.snapshot_request(symbol)) {
        recorder.answer(format!("{}{path}", spec.rest_url), at, Bytes::copy_from_slice(body));
    }
}

impl<P: Publisher> Core<P> {
    /// Keeps an event of a connection that is still needed. Addresses are kept as the venue's own: a playback's
    /// say nothing, and others may hold a password.
    pub(super) fn keep(&self, event: &Event) {
        let Some(recorder) = &self.recorder else { return };
        let plan =
            |link: usize| self.units.iter().find_map(|unit| unit.plans.get(unit.connection(link)?));
        match event {
            Event::Opened { connection } => {
                let Some(plan) = plan(*connection) else { return };
                let newest = || self.units.iter().map(|unit| unit.now).max().unwrap_or_default();
                let at = self.clock.receive_time(None).unwrap_or_else(newest);
                let url = format!("{}{}", self.spec.ws_url, plan.path);
                recorder.opened(*connection, url, at, plan.subscribe.clone());
            }
            Event::Frame { connection, frame, at } if plan(*connection).is_some() => {
                recorder.frame(*connection, *at, frame.clone());
            }
            Event::Alive { connection, at } if plan(*connection).is_some() => {
                recorder.alive(*connection, *at);
            }
            Event::Lost { connection, reason } if plan(*connection).is_some() => {
                recorder.lost(*connection, reason.clone());
            }
            _ => {}
        }
    }

    /// Keeps that a unit is opened, whose first connection will be the next one.
    pub(super) fn keep_unit(&self, symbols: &[String], takes: Option<&Takeover>) {
        let Some(recorder) = &self.recorder else { return };
        let old = takes.and_then(|takes| self.units.iter().find(|unit| unit.number == takes.from));
        recorder.unit(&record::Unit {
            first: self.next_link,
            symbols: symbols.to_vec(),
            takes: old.map(|unit| unit.first_link),
        });
    }

    /// Keeps that a unit is closed.
    pub(super) fn keep_closed(&self, unit: &Unit) {
        if let Some(recorder) = &self.recorder {
            recorder.closed(unit.first_link);
        }
    }

    /// Keeps what is subscribed to, and the tables in which that was found, which nobody else needs.
    pub(super) fn keep_subscriptions(&mut self) {
        let tables = std::mem::take(&mut self.subscriptions.tables);
        let Some(recorder) = &self.recorder else { return };
        for (request, answer) in tables {
            let at = self.clock.receive_time(answer.announced).unwrap_or_default();
            let url = format!("{}{request}", self.spec.rest_url);
            recorder.table(url, at, Bytes::from(answer.body));
        }
        recorder.configuration(configuration(&self.subscriptions.settings));
    }
}
