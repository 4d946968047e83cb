//! Venues: a pure connector each ([`binance`], [`bithumb`], [`coinbase`], [`deribit`], [`kraken`], [`okx`], [`upbit`]) and
//! one [`driver`] for all (C1, C2).
//!
//! A connector says what to subscribe to and turns frames into events; it does no I/O and reads
//! no clock. The driver connects, pings, reconnects, resynchronises and publishes.

use std::future::Future;
use std::time::Duration;

use tapeline_schemas::{Control, GapChange, Kind, Micros};
use thiserror::Error;

pub mod binance;
pub mod bithumb;
pub(crate) mod books;
pub(crate) mod civil;
pub mod coinbase;
pub mod deribit;
pub mod driver;
mod feed;
pub mod history;
mod instrument;
mod json;
pub mod kraken;
pub mod okx;
mod output;
mod sequenced;
mod stats;
mod subscription;
mod symbols;
mod trade_order;
pub mod upbit;

pub use history::{Ask, History, Next, Offer, Page, Past};
pub use instrument::{Instrument, Market, OptionTerms};
pub use output::{Item, Output};
pub use stats::{BookReport, KindReport, StatsReport, VenueStats};
pub use symbols::{SymbolTable, UnknownSymbol};

/// The kinds of events connectors make.
pub const CHANNELS: [Kind; 5] =
    [Kind::Trade, Kind::Ticker, Kind::Book, Kind::Option, Kind::VenueCandle];

/// What a record to publish carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The Avro payload of an event, without the wire header.
    Event(Vec<u8>),
    /// A control record.
    Control(Control),
}

/// A record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Kind of event, or the kind whose raw topic the control record belongs to.
    pub kind: Kind,
    /// `VENUE:SYMBOL`.
    pub key: String,
    /// The event or control record.
    pub body: Body,
}

/// Why nothing can be published any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("publishing failed: {0}")]
pub struct PublishError(pub String);

/// Where a driver's records go, in order. An error ends the driver.
pub trait Publisher: Send + Sync + 'static {
    /// Takes a record; waits while the bounded queue behind it is full.
    fn publish(&self, outgoing: Outgoing) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// Takes a control record for every partition of the kind's raw topic.
    fn broadcast(
        &self,
        kind: Kind,
        control: Control,
    ) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// Waits until everything taken so far is safe.
    fn delivered(&self) -> impl Future<Output = Result<(), PublishError>> + Send {
        std::future::ready(Ok(()))
    }

    /// The holes of what `settings` name that are open, as everything says that was published so far, by whomever. A
    /// connector that goes on in another's place asks: that one may never end them.
    fn left_open(
        &self,
        venue: &'static str,
        settings: &Settings,
    ) -> impl Future<Output = Result<Vec<GapChange>, PublishError>> + Send {
        let _ = (venue, settings);
        std::future::ready(Ok(Vec::new()))
    }

    /// Takes what a venue lists, at a driver's start; must not make it wait.
    fn listed(&self, venue: &'static str, table: SymbolTable) {
        let _ = (venue, table);
    }
}

/// What a connector is asked to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `BASE-QUOTE`.
    pub symbols: Vec<String>,
    /// Out of [`CHANNELS`].
    pub channels: Vec<Kind>,
    /// Levels a side of a published `top` record.
    pub top_levels: usize,
    /// Microseconds between two `top` records of a symbol, by receive time.
    pub top_every_micros: i64,
    /// Levels a side that a venue with a choice is asked for.
    pub book_depth: usize,
}

impl Settings {
    /// The usual settings for these symbols and channels: `top` of 25 levels, every second, books of 1000 levels.
    pub fn new(symbols: Vec<String>, channels: Vec<Kind>) -> Settings {
        Settings {
            symbols,
            channels,
            top_levels: 25,
            top_every_micros: 1_000_000,
            book_depth: 1000,
        }
    }
}

/// What tells that a connection's subscriptions are in force again after a reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// Anything the venue sends: the subscription came with the connection or before it.
    FirstFrame,
    /// A message of its own for every symbol and channel, which the connector reads.
    Message,
}

/// A connection to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionPlan {
    /// Path and query behind the WebSocket's base address.
    pub path: String,
    /// Messages to send once it is open.
    pub subscribe: Vec<String>,
    /// What arrives on it: kinds and symbols.
    pub feeds: Vec<(Kind, String)>,
    /// What confirms the subscriptions.
    pub confirmation: Confirmation,
}

/// When a connection is pinged, when it is given up, and how often the venue lets it be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Time between two pings.
    pub ping_every: Duration,
    /// Silence after which the connection counts as lost.
    pub silence: Duration,
    /// What is sent with each ping, where the venue wants to hear it in words.
    pub text: Option<&'static str>,
    /// Most messages on one connection, pings aside, where the venue documents a limit.
    pub pace: Option<Budget>,
}

/// How much a venue may be asked by REST, in units of its requests' weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Weight of the requests that may follow each other at once.
    pub burst: u32,
    /// Time after which one unit more is allowed.
    pub refill: Duration,
}

/// What became of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// The book is whole.
    Applied,
    /// It is older than the first delta at hand: ask again.
    TooOld,
}

/// Why a message gave no event. Every one is counted and the first of each kind logged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not what the venue documents.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A type of message, channel or symbol that nobody subscribed to.
    #[error("unknown message: {0}")]
    Unknown(String),
    /// The venue reports an error.
    #[error("the venue reports an error: {0}")]
    Venue(String),
}

/// A venue's protocol: pure, so that recordings and tests drive it like the real venue.
pub trait Connector: Send {
    /// The venue's name, upper case.
    fn venue(&self) -> &'static str;

    /// Paths and queries of the REST requests for the table of symbols: as far as the configured symbols need
    /// it, or all of it where none is configured.
    fn symbols_requests(&self) -> Vec<String>;

    /// Reads the answer to one of [`Connector::symbols_requests`] into `table`.
    fn decode_symbols(
        &self,
        request: &str,
        body: &[u8],
        table: &mut SymbolTable,
    ) -> Result<(), DecodeError>;

    /// Fixes the subscriptions; an unknown symbol is an error naming near matches. Comes before anything below.
    fn configure(&mut self, table: &SymbolTable) -> Result<(), UnknownSymbol>;

    /// The connections to open; a connection's number is its place here.
    fn connections(&self) -> Vec<ConnectionPlan>;

    /// A connection was opened (again): asks for what it needs to begin, where that does not come with the
    /// subscription.
    fn opened(&mut self, connection: usize, out: &mut Output) {
        let _ = (connection, out);
    }

    /// A connection was lost: its books, if it has any, are no longer right.
    fn closed(&mut self, connection: usize) {
        let _ = connection;
    }

    /// Reads one frame. Events before the error, if there is one, are in `out`.
    fn decode(
        &mut self,
        connection: usize,
        frame: &[u8],
        received_at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError>;

    /// Path and query of the REST request for a book's snapshot, where the venue gives them that way.
    fn snapshot_request(&self, symbol: &str) -> Option<String> {
        let _ = symbol;
        None
    }

    /// Reads a book's snapshot; only venues with a [`Connector::snapshot_request`] get one.
    fn decode_snapshot(
        &mut self,
        symbol: &str,
        body: &[u8],
        received_at: Micros,
        out: &mut Output,
    ) -> Result<SnapshotOutcome, DecodeError> {
        let _ = (body, received_at, out);
        Err(DecodeError::Unknown(format!("snapshot of {symbol} by REST")))
    }

    /// Publishes the best levels of this connection's books that changed and are due; with `all`, due or not.
    fn flush_tops(&mut self, connection: usize, now: Micros, all: bool, out: &mut Output) {
        let _ = (connection, now, all, out);
    }

    /// Publishes a symbol's whole book as it stands, if it is whole.
    fn state_book(&self, symbol: &str, now: Micros, out: &mut Output) {
        let _ = (symbol, now, out);
    }

    /// Starts one feed anew, which has been silent for too long; its hole is open already. Where a venue knows
    /// no subscription of a single feed, the connection's own is sent again.
    fn restart(&mut self, kind: Kind, symbol: &str, at: Micros, out: &mut Output) {
        let _ = at;
        let plans = self.connections();
        if let Some(number) = subscription::carrying(&plans, kind, symbol) {
            out.resubscribe(number, plans[number].subscribe.clone());
        }
    }

    /// Whether no book waits for a snapshot while its deltas are held back.
    fn settled(&self) -> bool {
        true
    }

    /// Its rules for staying connected.
    fn keepalive(&self) -> Keepalive;

    /// Its limit of REST requests.
    fn budget(&self) -> Budget;

    /// What a request, by its path and query, takes from that.
    fn weight(&self, request: &str) -> u32 {
        let _ = request;
        1
    }
}

/// A venue that connectors exist for: its addresses and how to make one.
#[derive(Debug)]
pub struct VenueSpec {
    /// Name, upper case.
    pub name: &'static str,
    /// Base address of its REST interface.
    pub rest_url: &'static str,
    /// Base address of its WebSocket.
    pub ws_url: &'static str,
    /// Most symbols of one connection; more are spread.
    pub symbols_per_connection: usize,
    /// Makes its connector.
    pub connector: fn(Settings) -> Box<dyn Connector>,
    /// What it gives of the past by REST.
    pub history: &'static [history::Offer],
}

/// Every venue with a connector.
pub static VENUES: [VenueSpec; 7] = [
    VenueSpec {
        name: binance::VENUE,
        symbols_per_connection: binance::SYMBOLS_PER_CONNECTION,
        rest_url: "https://api.binance.com",
        ws_url: "wss://stream.binance.com:9443",
        connector: |settings| Box::new(binance::Binance::new(settings)),
        history: binance::HISTORY,
    },
    VenueSpec {
        name: bithumb::VENUE,
        symbols_per_connection: bithumb::SYMBOLS_PER_CONNECTION,
        rest_url: "https://api.bithumb.com",
        ws_url: "wss://pubwss.bithumb.com",
        connector: |settings| Box::new(bithumb::Bithumb::new(settings)),
        // Its history has times to the second and no ids: its trades could not be told from those of the feed.
        history: &[],
    },
    VenueSpec {
        name: coinbase::VENUE,
        symbols_per_connection: coinbase::SYMBOLS_PER_CONNECTION,
        rest_url: "https://api.exchange.coinbase.com",
        ws_url: "wss://ws-feed.exchange.coinbase.com",
        connector: |settings| Box::new(coinbase::Coinbase::new(settings)),
        history: coinbase::HISTORY,
    },
    VenueSpec {
        name: deribit::VENUE,
        symbols_per_connection: deribit::SYMBOLS_PER_CONNECTION,
        rest_url: "https://www.deribit.com",
        ws_url: "wss://www.deribit.com",
        connector: |settings| Box::new(deribit::Deribit::new(settings)),
        history: deribit::HISTORY,
    },
    VenueSpec {
        name: kraken::VENUE,
        symbols_per_connection: kraken::SYMBOLS_PER_CONNECTION,
        rest_url: "https://api.kraken.com",
        ws_url: "wss://ws.kraken.com",
        connector: |settings| Box::new(kraken::Kraken::new(settings)),
        history: kraken::HISTORY,
    },
    VenueSpec {
        name: okx::VENUE,
        symbols_per_connection: okx::SYMBOLS_PER_CONNECTION,
        rest_url: "https://www.okx.com",
        ws_url: "wss://ws.okx.com:8443",
        connector: |settings| Box::new(okx::Okx::new(settings)),
        history: okx::HISTORY,
    },
    VenueSpec {
        name: upbit::VENUE,
        symbols_per_connection: upbit::SYMBOLS_PER_CONNECTION,
        rest_url: "https://api.upbit.com",
        ws_url: "wss://api.upbit.com",
        connector: |settings| Box::new(upbit::Upbit::new(settings)),
        history: upbit::HISTORY,
    },
];

/// The names of all of them, for messages.
pub fn venue_names() -> String {
    VENUES.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ")
}

/// The venue with this name, in any case.
pub fn venue(name: &str) -> Option<&'static VenueSpec> {
    VENUES.iter().find(|spec| spec.name.eq_ignore_ascii_case(name))
}

/// Gives a frame to a connector: what it cannot read is counted, and books that are due are shown.
pub fn take_frame(
    connector: &mut dyn Connector,
    connection: usize,
    frame: &[u8],
    received_at: Micros,
    out: &mut Output,
) {
    if let Err(error) = connector.decode(connection, frame, received_at, out) {
        out.complain(&error, frame);
    }
    connector.flush_tops(connection, received_at, false, out);
}
