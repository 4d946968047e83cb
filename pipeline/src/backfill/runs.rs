//! Which numbers of a sequence have come, and whether that is all of it.

use tapeline_schemas::Micros;

/// Numbers that have come, as runs without a gap; few, since venues give them in order.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<(i64, i64)>);

impl Runs {
    /// Adds a number.
    pub(super) fn add(&mut self, number: i64) {
        match self.0.last_mut() {
            Some((first, last)) if (*first..=*last).contains(&number) => {}
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            Some((first, _)) if first.checked_sub(1) == Some(number) => *first = number,
            _ => self.0.push((number, number)),
        }
    }

    /// The smallest.
    pub(super) fn first(&self) -> Option<i64> {
        self.0.iter().map(|(first, _)| *first).min()
    }

    /// The runs in order, joined where they touch.
    fn joined(&self) -> Vec<(i64, i64)> {
        let mut runs = self.0.clone();
        runs.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::new();
        for (first, last) in runs {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        joined
    }
}

/// What is known of the numbers of a hole.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Numbers that the venue's past gave.
    pub(super) came: Runs,
    /// Smallest and largest number that it must have given.
    pub(super) must: Option<(i64, i64)>,
    /// The numbers known right before and right behind what was asked for.
    pub(super) around: (Option<i64>, Option<i64>),
    /// Why the venue gave no more, where it did not give all.
    pub(super) exhausted: Option<&'static str>,
    /// The last moment up to which answers had to be whole and did not show it.
    pub(super) short_of: Option<Micros>,
}

impl Evidence {
    /// Includes a number in what the venue must have given.
    pub(super) fn needs(&mut self, number: i64) {
        let (first, last) = self.must.unwrap_or((number, number));
        self.must = Some((first.min(number), last.max(number)));
    }

    /// Includes an answer that had to be whole up to `end` and shows that it is up to `through`.
    pub(super) fn reaches(&mut self, end: Micros, through: Option<Micros>) {
        if through.is_none_or(|through| through < end) {
            self.short_of = self.short_of.max(Some(end));
        }
    }

    /// Why something may still be missing; none where nothing is. Numbers count where `numbered`.
    pub(super) fn doubt(&self, numbered: bool) -> Option<String> {
        let runs = if numbered { self.came.joined() } else { Vec::new() };
        if let ([(first, last)], (Some(before), Some(behind))) = (runs.as_slice(), self.around)
            && *first <= before.saturating_add(1)
            && *last >= behind.saturating_sub(1)
        {
            // Every number between two that are known: whatever the venue no longer keeps is not among them.
            return None;
        }
        if let Some(reason) = self.exhausted {
            return Some(reason.to_owned());
        }
        if let (true, (Some(before), Some(behind))) = (numbered, self.around)
            && behind > before.saturating_add(1)
        {
            let (from, to) = (before.saturating_add(1), behind.saturating_sub(1));
            return Some(lacks(from, to));
        }
        if let Some(end) = self.short_of {
            return Some(format!(
                "nothing that the venue gave shows that its past is whole up to {end} yet, run again"
            ));
        }
        if let [(_, last), (next, _), ..] = runs.as_slice() {
            let (from, to) = (last.saturating_add(1), next.saturating_sub(1));
            return Some(format!("the venue's past leaves out the numbers {from} to {to}"));
        }
        let (first, last) = self.must.filter(|_| numbered)?;
        let all = runs.first().is_some_and(|(from, to)| *from <= first && *to >= last);
        (!all).then(|| lacks(first, last))
    }
}

fn lacks(first: i64, last: i64) -> String {
    format!("the venue's past does not hold all of the numbers {first} to {last} yet")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(numbers: impl IntoIterator<Item = i64>) -> Evidence {
        let mut evidence = Evidence::default();
        numbers.into_iter().for_each(|number| evidence.came.add(number));
        evidence
    }

    #[test]
    fn numbers_that_come_in_any_order_of_pages_are_one_run_or_name_what_is_left_out() {
        assert_eq!(came([]).doubt(true), None);
        assert_eq!(came(5..9).doubt(true), None);
        assert_eq!(came((5..9).rev()).doubt(true), None);
        assert_eq!(came((8..12).rev().chain((4..9).rev())).doubt(true), None);
        let doubt = came([4, 5, 9, 10]).doubt(true).expect("a doubt");
        assert!(doubt.ends_with("the numbers 6 to 8"), "{doubt}");
        assert_eq!(came([4, 5, 9, 10]).doubt(false), None);
        assert_eq!(came([i64::MAX, i64::MIN, i64::MIN]).doubt(false), None);
        assert!(came([i64::MAX, i64::MIN]).doubt(true).is_some());
    }

    #[test]
    fn what_the_feed_gave_in_the_range_must_be_in_the_venues_past() {
        let mut evidence = came(10..20);
        evidence.needs(15);
        evidence.needs(10);
        assert_eq!(evidence.doubt(true), None);
        evidence.needs(20);
        assert!(evidence.doubt(true).expect("a doubt").contains("numbers 10 to 20"));
        assert_eq!(evidence.doubt(false), None);
        let mut nothing = came([]);
        nothing.needs(1);
        assert!(nothing.doubt(true).is_some());
    }

    #[test]
    fn a_past_that_ends_too_early_is_enough_only_between_two_known_numbers() {
        let mut evidence = came(10..20);
        evidence.exhausted = Some("kept for a day");
        assert_eq!(evidence.doubt(true).as_deref(), Some("kept for a day"));
        evidence.around = (Some(9), None);
        assert!(evidence.doubt(true).is_some());
        evidence.around = (Some(9), Some(21));
        assert!(evidence.doubt(true).is_some());
        evidence.around = (Some(9), Some(20));
        assert_eq!(evidence.doubt(true), None);
        assert!(evidence.doubt(false).is_some());
    }

    #[test]
    fn numbers_between_two_known_ones_that_do_not_come_are_missing_however_quiet_the_market_was() {
        let mut evidence = came([]);
        evidence.around = (Some(100), Some(150));
        assert!(evidence.doubt(true).expect("a doubt").contains("numbers 101 to 149"));
        assert_eq!(evidence.doubt(false), None);
        evidence.around = (Some(100), Some(101));
        assert_eq!(evidence.doubt(true), None);
        let mut some = came(101..121);
        some.around = (Some(100), Some(150));
        assert!(some.doubt(true).is_some());
    }

    #[test]
    fn without_numbers_answers_that_do_not_reach_the_end_prove_nothing() {
        let mut evidence = Evidence::default();
        evidence.reaches(Micros(10), Some(Micros(10)));
        assert_eq!(evidence.doubt(false), None);
        evidence.reaches(Micros(20), Some(Micros(19)));
        evidence.reaches(Micros(5), Some(Micros(30)));
        assert!(evidence.doubt(false).expect("a doubt").contains(&Micros(20).to_string()));
        let mut nothing = Evidence::default();
        nothing.reaches(Micros(10), None);
        assert!(nothing.doubt(false).is_some());
    }
}
