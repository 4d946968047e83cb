//! Values as Redis shows them, for whoever compares.

use tapeline_schemas::{CodecError, Micros};

use super::fields;
use crate::cache::{LastValues, Value};

/// A value with the fields that Redis has of it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'v>(&'v Value);

/// The values of a batch.
pub fn shown(out: &LastValues) -> impl Iterator<Item = Shown<'_>> {
    out.values().iter().map(Shown)
}

impl Shown<'_> {
    /// Its key.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// Raw offset of its event; the offset itself where the topic carries no origin.
    pub fn origin(&self) -> i64 {
        self.0.stamp.origin
    }

    /// Time of its event by the venue.
    pub fn venue_time(&self) -> Micros {
        self.0.stamp.venue_time
    }

    /// Every field, where the topic it comes from has this id.
    pub fn fields(&self, topic_id: &str) -> Result<Vec<(String, String)>, CodecError> {
        let mut fields = vec![
            ("topic_id".to_owned(), topic_id.to_owned()),
            ("origin".to_owned(), self.origin().to_string()),
            ("venue_time".to_owned(), self.venue_time().0.to_string()),
        ];
        fields::put(self.0, |name, text| fields.push((name.to_owned(), text)))?;
        Ok(fields)
    }
}
