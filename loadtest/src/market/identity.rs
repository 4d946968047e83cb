//! What makes an event checkable by itself: its number within its key and a sum over its content,
//! both in its identity.

use tapeline_schemas::{Book, Micros, Ticker, Trade};
use xxhash_rust::xxh3::xxh3_64;

/// The sum's part of an identity: six digits.
const SUM_LIMIT: u64 = 1_000_000;
/// The most bytes that are summed.
const MOST: usize = 96;

/// The identity of a key's event `number` (from 1) with this sum: a number, as most venues give,
/// that only rises.
pub(super) fn identity(number: u64, sum: u64) -> u64 {
    number * SUM_LIMIT + sum % SUM_LIMIT
}

/// The number and the sum in an identity.
fn split(identity: &str) -> Option<(u64, u64)> {
    let identity: u64 = identity.parse().ok()?;
    Some((identity / SUM_LIMIT, identity % SUM_LIMIT))
}

/// The sum of a trade: everything but its identity and its receive time.
pub(super) fn trade_sum(trade: &Trade<'_>) -> u64 {
    let figures = [trade.price.mantissa(), trade.amount.mantissa(), trade.side as i128];
    sum(&trade.symbol, &figures, trade.venue_time)
}

/// The sum of a ticker, over the prices and amounts at its top and its last price.
pub(super) fn ticker_sum(ticker: &Ticker<'_>) -> u64 {
    let figure = |money: Option<tapeline_schemas::Money>| money.map_or(-1, |m| m.mantissa());
    let figures = [figure(ticker.last), figure(ticker.bid), figure(ticker.ask)];
    sum(&ticker.symbol, &figures, ticker.venue_time)
}

/// The sum of a book: over its levels, folded to three figures.
pub(super) fn book_sum(book: &Book<'_>) -> u64 {
    let fold = |levels: &[tapeline_schemas::Level]| {
        levels.iter().fold(0_i128, |sum, level| {
            sum.wrapping_mul(31)
                .wrapping_add(level.price.mantissa())
                .wrapping_add(level.amount.mantissa())
        })
    };
    let figures = [fold(&book.bids), fold(&book.asks), book.action as i128];
    sum(&book.symbol, &figures, book.venue_time)
}

fn sum(symbol: &str, figures: &[i128; 3], time: Micros) -> u64 {
    let mut bytes = [0_u8; MOST];
    for (index, figure) in figures.iter().enumerate() {
        bytes[index * 16..][..16].copy_from_slice(&figure.to_le_bytes());
    }
    bytes[48..56].copy_from_slice(&time.0.to_le_bytes());
    let name = symbol.as_bytes();
    let kept = name.len().min(MOST - 56);
    bytes[56..56 + kept].copy_from_slice(&name[..kept]);
    xxh3_64(&bytes[..56 + kept])
}

/// The number of a trade within its key, if the trade is as it was made.
pub(crate) fn verify_trade(trade: &Trade<'_>) -> Option<u64> {
    verify(&trade.trade_id, trade.sequence, trade_sum(trade))
}

/// The number of a ticker within its key, if the ticker is as it was made.
#[cfg(test)]
pub(crate) fn verify_ticker(ticker: &Ticker<'_>) -> Option<u64> {
    verify(ticker.event_id.as_deref()?, None, ticker_sum(ticker))
}

/// The number of a book record within its key, if the record is as it was made.
#[cfg(test)]
pub(crate) fn verify_book(book: &Book<'_>) -> Option<u64> {
    verify(book.event_id.as_deref()?, book.sequence, book_sum(book))
}

fn verify(identity: &str, sequence: Option<i64>, sum: u64) -> Option<u64> {
    let (number, told) = split(identity)?;
    let ordered = sequence.is_none_or(|sequence| u64::try_from(sequence) == Ok(number));
    (told == sum % SUM_LIMIT && ordered).then_some(number)
}
