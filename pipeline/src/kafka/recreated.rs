//! Topics that are deleted and made again while they are read, as librdkafka notices them.
//!
//! It fetches by topic id (KIP-516). Once its metadata names a new id it goes on in the new topic at
//! the old one's offset, which means nothing there, and tells nobody but its log, in a debug
//! line (`rd_kafka_topic_metadata_update` of `rdkafka_topic.c`, which calls that a thing to be fixed).
//! The line is written before the new id is used, and comes through the queue of the messages, so
//! that whoever looks here behind a message knows of it in time.

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// librdkafka's debug context that has the line, and little else.
pub(super) const DEBUG_CONTEXT: &str = "metadata";

/// What is known of the incarnations of the topics that a consumer reads.
#[derive(Debug, Default)]
pub(super) struct Recreated {
    /// Ids in base 64, as librdkafka writes them, by topic.
    known: HashMap<String, String>,
    found: OnceLock<String>,
}

impl Recreated {
    /// `ids` are 32 hexadecimal digits each, by topic; of others a change of their id is noticed.
    pub(super) fn new(ids: &HashMap<String, String>) -> Recreated {
        let known = ids
            .iter()
            .filter_map(|(topic, id)| {
                let id = u128::from_str_radix(id, 16).ok()?;
                Some((topic.clone(), STANDARD_NO_PAD.encode(id.to_be_bytes())))
            })
            .collect();
        Recreated { known, found: OnceLock::new() }
    }

    /// Takes a line of librdkafka's log.
    pub(super) fn hear(&self, line: &str) {
        let Some((topic, before, now)) = changed_id(line) else { return };
        let nothing = STANDARD_NO_PAD.encode([0; 16]);
        let known = self.known.get(topic).map_or(before, String::as_str);
        if known != now && known != nothing {
            self.found.get_or_init(|| {
                format!(
                    "topic {topic} was recreated under its reader: its id is {now}, what was read \
                     before is {known}. Offsets of the old topic mean nothing in the new one, so \
                     nothing was skipped"
                )
            });
        }
    }

    /// What was noticed, in words.
    pub(super) fn found(&self) -> Option<&str> {
        self.found.get().map(String::as_str)
    }
}

/// Topic, its id before and its id now.
fn changed_id(line: &str) -> Option<(&str, &str, &str)> {
    let (_, line) = line.split_once("Topic ")?;
    let (topic, ids) = line.split_once(" changed id from ")?;
    let (before, now) = ids.split_once(" to ")?;
    Some((topic, before.trim_end_matches('='), now.trim_end_matches('=')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "53e341ed73ba4c50a87cfa087d0cb285";
    const NOTHING: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn line(before: &str, now: &str) -> String {
        format!("[thrd:main]: Topic md.trade.raw changed id from {before} to {now}")
    }

    fn encoded(id: &str) -> String {
        let id = u128::from_str_radix(id, 16).expect("hexadecimal");
        STANDARD_NO_PAD.encode(id.to_be_bytes())
    }

    #[test]
    fn an_id_that_is_not_the_known_one_is_noticed_at_the_first_look_too_invariant_2() {
        let new = encoded("99275a4b34fc4aa3ab5d94a0c32dc23f");
        for before in [NOTHING, &encoded(OLD)] {
            let ids = HashMap::from([("md.trade.raw".to_owned(), OLD.to_owned())]);
            let recreated = Recreated::new(&ids);
            recreated.hear(&line(NOTHING, &encoded(OLD)));
            recreated.hear("[thrd:main]: Topic md.trade.raw [0] Leader 1 Epoch 0");
            assert_eq!(recreated.found(), None, "the id that is known");
            recreated.hear(&line(before, &new));
            let found = recreated.found().expect("noticed");
            assert!(found.contains("md.trade.raw") && found.contains(&new), "{found}");
        }
    }

    #[test]
    fn of_a_topic_without_a_known_id_a_change_is_noticed_and_the_first_id_is_not_one() {
        let recreated = Recreated::new(&HashMap::new());
        recreated.hear(&line(NOTHING, &encoded(OLD)));
        assert_eq!(recreated.found(), None);
        recreated.hear(&line(&encoded(OLD), "mSdaSzT8SqOrXZSgwy3CPw"));
        assert!(recreated.found().is_some());
    }
}
