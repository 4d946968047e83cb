//! Up to when everything has been published.

use std::collections::BTreeSet;

use tapeline_schemas::{Kind, Micros, Timeframe};

/// One connection's part in it.
#[derive(Debug)]
pub(super) struct Reach {
    /// What arrives on it.
    pub(super) kinds: BTreeSet<Kind>,
    /// Last moment something was received.
    pub(super) last: Option<Micros>,
    /// Its tape has ended.
    pub(super) ended: bool,
    /// Open, but nothing received yet.
    pub(super) fresh: bool,
    /// Not open.
    pub(super) down: bool,
    /// Receive time of the last look for silent feeds.
    pub(super) looked: Option<Micros>,
}

impl Reach {
    fn carries(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }
}

/// The newest moment up to which every event of `kind` has come: the earliest of the connections that
/// carry it. The moment itself is left out: more may come with the same time.
pub(super) fn through<'r>(reaches: impl Iterator<Item = &'r Reach>, kind: Kind) -> Option<Micros> {
    let carrying = reaches.filter(|reach| reach.carries(kind) && !reach.ended);
    carrying.map(|reach| reach.last).min().flatten().map(|last| last.plus(-1))
}

/// The end of the day of the last thing received: a tape that has ended holds all there is.
pub(super) fn final_through<'r>(reaches: impl Iterator<Item = &'r Reach>) -> Option<Micros> {
    let last = reaches.filter_map(|reach| reach.last).max()?;
    Some(Timeframe::D1.end(Timeframe::D1.start(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(kind: Kind, last: Option<i64>) -> Reach {
        let kinds = BTreeSet::from([kind]);
        let last = last.map(Micros);
        Reach { kinds, last, ended: false, fresh: false, down: false, looked: None }
    }

    #[test]
    fn the_slowest_connection_of_a_kind_decides() {
        let mut reaches = vec![
            reach(Kind::Trade, Some(10)),
            reach(Kind::Trade, Some(7)),
            reach(Kind::Book, None),
        ];
        assert_eq!(through(reaches.iter(), Kind::Trade), Some(Micros(6)));
        assert_eq!(through(reaches.iter(), Kind::Book), None);
        reaches.push(reach(Kind::Trade, None));
        assert_eq!(through(reaches.iter(), Kind::Trade), None);
        reaches[3].ended = true;
        reaches[1].ended = true;
        assert_eq!(through(reaches.iter(), Kind::Trade), Some(Micros(9)));
    }

    #[test]
    fn a_finite_tape_is_complete_through_the_end_of_its_last_day() {
        let noon = 1_618_660_800_000_000;
        let reaches = [reach(Kind::Trade, Some(noon)), reach(Kind::Book, Some(noon - 1))];
        assert_eq!(final_through(reaches.iter()), Some(Micros(1_618_704_000_000_000)));
        assert_eq!(final_through([].iter()), None);
    }
}
