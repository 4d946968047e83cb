//! Going on where an earlier connector ended: what it did not cover, and the holes that it left open.

use tapeline_schemas::{Kind, Micros};

use super::VenueConfig;
use super::core::Core;
use super::lease::is_held;
use crate::venue::Publisher;

impl VenueConfig {
    /// Starts and causes of the holes of a feed that were left open.
    pub(super) fn left_of(&self, (kind, symbol): &(Kind, String)) -> Vec<(Micros, String)> {
        let of =
            self.left_open.iter().filter(|gap| gap.channel == kind.name() && gap.symbol == *symbol);
        of.map(|gap| (gap.from, gap.cause.clone())).collect()
    }
}

impl<P: Publisher> Core<P> {
    /// After a restart nothing is known from the last covered moment on. A hole that was open already goes on, so that
    /// it ends: nobody else would end it.
    pub(super) fn resume(&mut self) {
        for unit in &mut self.units {
            for feed in unit.plans.iter().flat_map(|plan| &plan.feeds) {
                let (kind, symbol) = feed;
                // What comes from the holder of a lease alone is ended by him: he reads it when he takes the lease.
                let shares = self.config.lease.is_some() && is_held(*kind);
                let left = if shares { Vec::new() } else { self.config.left_of(feed) };
                let oldest = left.iter().map(|(from, _)| *from).min();
                let restart = self.config.resume_from.get(kind);
                if let Some(from) = restart.filter(|from| oldest.is_none_or(|left| **from < left)) {
                    unit.out.open_gap(*kind, symbol, *from, "restart");
                }
                self.held.knows(*kind, &format!("{}:{symbol}", self.spec.name), &left);
                unit.out.take_up(feed, left);
            }
        }
    }
}
