//! Traffic whose every event can be told from the stored row alone: its identity holds the
//! sequence number within its key and a hash of its content.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, ensure};
use tapeline::kafka::RawPublisher;
use tapeline::wiring::Context;
use tapeline_schemas::{
    Book, BookAction, Control, Kind, Level, Micros, Money, Side, Ticker, Trade, encode,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::random::Random;

/// Venue of all that the harness sends.
pub(crate) const VENUE: &str = "FAULT";
/// Time of the first event: 2023-11-14T22:13:20Z.
pub(crate) const START: i64 = 1_700_000_000_000_000;
/// Units of 10⁻¹⁸ in 0.0001.
const STEP: i128 = 10_i128.pow(14);
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// Events that may have to be sent again where their producer fails.
const UNCONFIRMED: usize = 5_000;
/// Producers that may fail one after the other before the feed gives up.
const PRODUCERS: u32 = 5;

/// What is mixed into the traffic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) symbols: usize,
    /// Market time between two events, in microseconds.
    pub(crate) pace: i64,
    /// Events sent a second time, of a thousand.
    pub(crate) duplicates: u64,
    /// Trades with a time of seconds to days ago, of a thousand.
    pub(crate) late: u64,
    /// Records that no schema can read, of a thousand.
    pub(crate) poison: u64,
    /// Events that wait to be sent in another order.
    pub(crate) shuffle: usize,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix { symbols: 6, pace: SECOND / 2, duplicates: 20, late: 10, poison: 5, shuffle: 8 }
    }
}

/// What was sent, so that nothing else needs to be remembered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    /// Events of each symbol: trades, tickers, books; their sequences are below.
    pub(crate) events: Vec<[u64; 3]>,
    /// Records that must be in quarantine.
    pub(crate) poison: u64,
    /// How many of them were sent once more and may be there twice.
    pub(crate) poison_again: u64,
    /// Identities of the newest ticker and book of each symbol, once they are final.
    pub(crate) last: Vec<[String; 2]>,
}

/// Kinds in the order of [`Sent::events`].
pub(crate) const KINDS: [Kind; 3] = [Kind::Trade, Kind::Ticker, Kind::Book];

impl Sent {
    /// Number of events of the kind with this index.
    pub(crate) fn of(&self, kind: usize) -> u64 {
        self.events.iter().map(|events| events[kind]).sum()
    }

    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        (0..KINDS.len()).map(|kind| self.of(kind)).sum()
    }
}

/// `BASE-QUOTE` of a symbol's number.
pub(crate) fn symbol(number: usize) -> String {
    format!("S{number:03}-USD")
}

/// The identity of an event: its sequence, and a hash of what the row says.
pub(crate) fn identity(symbol: &str, sequence: u64, time: i64, figures: &[&str]) -> String {
    let content = format!("{symbol}|{sequence}|{time}|{}", figures.join("|"));
    format!("{sequence}.{:016x}", xxh3_64(content.as_bytes()))
}

/// An event on its way: its payload is in our schema and has no wire header.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
    is_poison: bool,
}

impl Event {
    fn new(kind: Kind, symbol: &str, payload: Vec<u8>) -> Event {
        Event { kind, key: format!("{VENUE}:{symbol}"), payload, is_poison: false }
    }

    /// The same event with half its bytes: no schema reads that.
    fn poisoned(&self) -> Event {
        let payload = self.payload[..self.payload.len() / 2].to_vec();
        Event { payload, is_poison: true, ..self.clone() }
    }
}

/// The generator. Where its producer fails for good, it goes on with another one as a connector
/// does that is started again: what was not confirmed is sent once more.
pub(crate) struct Feed {
    context: Context,
    publisher: RawPublisher,
    /// In the order they were sent.
    unconfirmed: Vec<Event>,
    /// Producers that failed since the last confirmation.
    failed: u32,
    random: Random,
    mix: Mix,
    pub(crate) sent: Sent,
    now: i64,
    waiting: VecDeque<Event>,
    /// Identities of the newest ticker and book of each symbol.
    last: Vec<[String; 2]>,
}

impl Feed {
    /// A feed of the raw topics that `context` has found.
    pub(crate) fn new(context: Context, seed: u64, mix: Mix) -> Result<Feed> {
        Ok(Feed {
            publisher: context.publisher()?,
            context,
            unconfirmed: Vec::new(),
            failed: 0,
            random: Random::named(seed, "feed"),
            mix,
            sent: Sent { events: vec![[0; 3]; mix.symbols], ..Sent::default() },
            now: START,
            waiting: VecDeque::new(),
            last: vec![Default::default(); mix.symbols],
        })
    }

    /// Sends about `count` events; they are delivered after [`Feed::delivered`].
    pub(crate) async fn send(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            self.now += self.mix.pace;
            let symbol = self.random.below(self.mix.symbols as u64) as usize;
            let event = match self.random.below(10) {
                0 => self.ticker(symbol),
                1 => self.book(symbol),
                _ => self.trade(symbol),
            };
            self.offer(event).await?;
        }
        Ok(())
    }

    /// Goes on into other topics.
    pub(crate) fn go_on_in(&mut self, context: Context) -> Result<()> {
        self.publisher = context.publisher()?;
        self.context = context;
        Ok(())
    }

    /// The next event of `kind`, for the caller to send; it counts as sent.
    pub(crate) fn event(&mut self, kind: Kind) -> Event {
        self.now += self.mix.pace;
        let symbol = self.random.below(self.mix.symbols as u64) as usize;
        match kind {
            Kind::Ticker => self.ticker(symbol),
            Kind::Book => self.book(symbol),
            _ => self.trade(symbol),
        }
    }

    /// An event as [`Feed::event`] makes them that does not count, for the caller to spoil.
    pub(crate) fn draft(&mut self, kind: Kind) -> Event {
        let (events, last) = (self.sent.events.clone(), self.last.clone());
        let event = self.event(kind);
        (self.sent.events, self.last) = (events, last);
        event
    }

    /// One trade whose venue's clock is `ahead` of the receive time.
    pub(crate) async fn send_ahead(&mut self, ahead: Duration) -> Result<()> {
        let now = self.now;
        let symbol = self.random.below(self.mix.symbols as u64) as usize;
        self.now += i64::try_from(ahead.as_micros())?;
        let event = self.trade_received(symbol, now);
        self.now = now;
        self.publish(event).await
    }

    async fn offer(&mut self, event: Event) -> Result<()> {
        if self.random.chance(self.mix.poison) {
            self.publish(event.poisoned()).await?;
            self.sent.poison += 1;
        }
        let again = self.random.chance(self.mix.duplicates);
        if again {
            self.waiting.push_back(event.clone());
        }
        // Only trades may overtake one another: of tickers and books the last one counts.
        if event.kind != Kind::Trade {
            return self.publish(event).await;
        }
        self.waiting.push_back(event);
        while self.waiting.len() > self.mix.shuffle {
            let place = self.random.below(self.waiting.len() as u64) as usize;
            if let Some(event) = self.waiting.remove(place) {
                self.publish(event).await?;
            }
        }
        Ok(())
    }

    async fn publish(&mut self, event: Event) -> Result<()> {
        let sent = self.publisher.event(event.kind, &event.key, &event.payload).await;
        self.unconfirmed.push(event);
        match sent {
            Err(reason) => self.begin_anew(reason).await,
            Ok(()) if self.unconfirmed.len() < UNCONFIRMED => Ok(()),
            Ok(()) => self.confirm().await,
        }
    }

    /// Waits until everything that was sent is in Kafka.
    async fn confirm(&mut self) -> Result<()> {
        while let Err(reason) = self.publisher.delivered().await {
            self.begin_anew(reason).await?;
        }
        self.unconfirmed.clear();
        self.failed = 0;
        Ok(())
    }

    /// Sends what is not confirmed with another producer.
    async fn begin_anew(&mut self, mut reason: String) -> Result<()> {
        loop {
            self.failed += 1;
            ensure!(self.failed <= PRODUCERS, "{PRODUCERS} producers failed: {reason}");
            eprintln!("the feed of the case begins anew: {reason}");
            self.publisher = self.context.publisher()?;
            match self.send_again().await {
                Ok(()) => return Ok(()),
                Err(again) => reason = again,
            }
        }
    }

    async fn send_again(&mut self) -> Result<(), String> {
        for event in &self.unconfirmed {
            self.publisher.event(event.kind, &event.key, &event.payload).await?;
            self.sent.poison_again += u64::from(event.is_poison);
        }
        Ok(())
    }

    fn money(&mut self, least: u64, spread: u64) -> Money {
        let steps = least + self.random.below(spread);
        Money::from_mantissa(i128::from(steps) * STEP).unwrap_or_default()
    }

    fn next_sequence(&mut self, symbol: usize, kind: usize) -> u64 {
        let next = &mut self.sent.events[symbol][kind];
        *next += 1;
        *next - 1
    }

    fn trade(&mut self, number: usize) -> Event {
        self.trade_received(number, self.now)
    }

    fn trade_received(&mut self, number: usize, received: i64) -> Event {
        let sequence = self.next_sequence(number, 0);
        let mut time = self.now;
        if self.random.chance(self.mix.late) {
            // From seconds to days, each order of magnitude as likely as the next.
            let reach = 10_i64.pow(1 + self.random.below(5) as u32) * SECOND;
            time -= SECOND + self.random.below(reach.min(3 * DAY) as u64) as i64;
        }
        let (price, amount) = (self.money(1_000_000, 5_000), self.money(1, 100_000));
        let symbol = symbol(number);
        let figures = [price.to_string(), amount.to_string()];
        let id = identity(&symbol, sequence, time, &[&figures[0], &figures[1]]);
        let trade = Trade {
            exchange: VENUE.into(),
            symbol: symbol.clone().into(),
            trade_id: id.into(),
            price,
            amount,
            side: Side::Buy,
            kind: None,
            taker_or_maker: None,
            sequence: i64::try_from(sequence).ok(),
            venue_time: Micros(time),
            receive_time: Micros(received + 1_000),
        };
        Event::new(Kind::Trade, &symbol, encode(&trade))
    }

    fn ticker(&mut self, number: usize) -> Event {
        let (seq, name, time) = (self.next_sequence(number, 1), symbol(number), self.now);
        let (last, bid) = (self.money(1_000_000, 5_000), self.money(900_000, 5_000));
        let id = identity(&name, seq, time, &[&last.to_string(), &bid.to_string()]);
        self.last[number][0].clone_from(&id);
        let ticker = Ticker {
            exchange: VENUE.into(),
            symbol: name.clone().into(),
            event_id: Some(id.into()),
            last: Some(last),
            bid: Some(bid),
            bid_volume: None,
            ask: None,
            ask_volume: None,
            volume_24h: None,
            quote_volume_24h: None,
            price_change_24h: None,
            price_change_percent_24h: None,
            venue_time: Micros(time),
            receive_time: Micros(time + 1_000),
        };
        Event::new(Kind::Ticker, &name, encode(&ticker))
    }

    fn book(&mut self, number: usize) -> Event {
        let (seq, name, time) = (self.next_sequence(number, 2), symbol(number), self.now);
        let (bid, ask) = (self.money(900_000, 5_000), self.money(1_000_000, 5_000));
        let id = identity(&name, seq, time, &[&bid.to_string(), &ask.to_string()]);
        self.last[number][1].clone_from(&id);
        let level = |price| vec![Level { price, amount: Money::ONE }];
        let book = Book {
            exchange: VENUE.into(),
            symbol: name.clone().into(),
            action: BookAction::Top,
            event_id: Some(id.into()),
            bids: level(bid),
            asks: level(ask),
            first_sequence: None,
            sequence: i64::try_from(seq).ok(),
            checksum: None,
            venue_time: Micros(time),
            receive_time: Micros(time + 1_000),
        };
        Event::new(Kind::Book, &name, encode(&book))
    }

    /// Waits until everything sent so far is in Kafka.
    pub(crate) async fn delivered(&mut self) -> Result<()> {
        while let Some(event) = self.waiting.pop_front() {
            self.publish(event).await?;
        }
        self.confirm().await
    }

    /// The last words: a newest ticker and book of each symbol, and that all of it is complete.
    pub(crate) async fn finish(&mut self) -> Result<Sent> {
        self.delivered().await?;
        self.now += SECOND;
        for number in 0..self.mix.symbols {
            let (ticker, book) = (self.ticker(number), self.book(number));
            self.publish(ticker).await?;
            self.publish(book).await?;
        }
        let through = Micros(self.now + 2 * DAY);
        let complete = Control::Complete { venue: VENUE.to_owned(), through };
        // Only what was sent before may be called complete, and nothing is sent again behind it.
        self.confirm().await?;
        while let Err(reason) = self.complete(&complete).await {
            self.begin_anew(reason).await?;
        }
        self.failed = 0;
        self.sent.last.clone_from(&self.last);
        Ok(self.sent.clone())
    }

    async fn complete(&self, complete: &Control) -> Result<(), String> {
        self.publisher.broadcast(Kind::Trade, complete).await?;
        self.publisher.delivered().await
    }
}
