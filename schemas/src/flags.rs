//! What a checked event may be marked with. Flags are judged once, by `validate`,
//! and travel in the checked record's headers (invariant 4).

use std::fmt;

/// One judgement about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Flag {
    /// The same identity with the same content came before.
    Duplicate = 1,
    /// The same identity with other content came before.
    Conflict = 2,
    /// Best bid above best ask.
    Crossed = 4,
    /// Best bid equal to best ask.
    Locked = 8,
    /// Far away from a robust estimate of the recent price.
    PriceJump = 16,
    /// The venue's time is well ahead of the receive time.
    Future = 32,
    /// The venue's time is well behind the receive time.
    Late = 64,
    /// Older than an event of the same symbol that came before it.
    OutOfOrder = 128,
}

impl Flag {
    /// Every flag.
    pub const ALL: [Flag; 8] = [
        Flag::Duplicate,
        Flag::Conflict,
        Flag::Crossed,
        Flag::Locked,
        Flag::PriceJump,
        Flag::Future,
        Flag::Late,
        Flag::OutOfOrder,
    ];

    /// The name in headers, anomalies and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Flag::Duplicate => "duplicate",
            Flag::Conflict => "conflict",
            Flag::Crossed => "crossed",
            Flag::Locked => "locked",
            Flag::PriceJump => "price_jump",
            Flag::Future => "future",
            Flag::Late => "late",
            Flag::OutOfOrder => "out_of_order",
        }
    }
}

/// A set of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(u16);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// Adds `flag`.
    pub fn set(&mut self, flag: Flag) {
        self.0 |= flag as u16;
    }

    /// Whether `flag` is in the set.
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & flag as u16 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the event repeats an identity and is not stored again.
    pub const fn is_repeat(self) -> bool {
        self.has(Flag::Duplicate) || self.has(Flag::Conflict)
    }

    /// Whether the event's own time cannot be trusted to order it (invariant 6).
    pub const fn is_odd_time(self) -> bool {
        self.has(Flag::Future) || self.has(Flag::Late)
    }

    /// The flags in the set.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.into_iter().filter(move |&flag| self.has(flag))
    }

    /// Reads what `Display` writes; names of newer versions are passed over.
    pub fn parse(text: &str) -> Flags {
        let mut flags = Flags::NONE;
        for flag in Flag::ALL {
            if text.split(',').any(|name| name == flag.name()) {
                flags.set(flag);
            }
        }
        flags
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, flag) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_flags_is_read_as_written() {
        for bits in 0..256 {
            let flags = Flags(bits);
            assert_eq!(Flags::parse(&flags.to_string()), flags);
        }
        assert_eq!(Flags::parse("duplicate,from_the_next_version").to_string(), "duplicate");
    }
}
