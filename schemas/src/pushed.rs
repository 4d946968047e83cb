//! Events that producers push: flows, predictions and accounts. One struct a schema in
//! `schemas/avro/`, fields in the same order.

use std::borrow::Cow;

use crate::codec::{Record, record, symbols};
use crate::{Micros, Money};

symbols! {
    /// The side of a position.
    pub enum PositionSide {
        /// Gains when the price rises.
        Long = "long",
        /// Gains when the price falls.
        Short = "short",
    }
}

symbols! {
    /// The side of an order.
    pub enum OrderSide {
        /// Buys.
        Buy = "buy",
        /// Sells.
        Sell = "sell",
    }
}

symbols! {
    /// How far an order has come.
    pub enum OrderStatus {
        /// Sent, not yet acknowledged.
        New = "new",
        /// In the book.
        Open = "open",
        /// In the book, filled in part.
        PartiallyFilled = "partially_filled",
        /// Filled.
        Filled = "filled",
        /// Taken out of the book.
        Canceled = "canceled",
        /// Never taken.
        Rejected = "rejected",
        /// Its time ran out.
        Expired = "expired",
    }
}

record! {
    /// Net buying of a symbol by kind of investor, over one day.
    pub struct Flow {
        /// Venue, upper case.
        pub exchange: Cow<'a, str>,
        /// `BASE-QUOTE`.
        pub symbol: Cow<'a, str>,
        /// Start of the day the figures are of.
        pub date: Micros,
        /// Net buying of institutions, in the quote currency; negative where they sold.
        pub institution_amount: Money,
        /// Net buying of foreigners.
        pub foreign_amount: Money,
        /// Net buying of individuals.
        pub individual_amount: Money,
        /// When the figures were published; later ones replace earlier ones.
        pub venue_time: Micros,
        /// When the producer received or made it.
        pub receive_time: Micros,
    }
}

record! {
    /// What a model predicts of a symbol.
    pub struct Prediction {
        /// Venue, upper case.
        pub exchange: Cow<'a, str>,
        /// `BASE-QUOTE`.
        pub symbol: Cow<'a, str>,
        /// The model and its version.
        pub model_id: Cow<'a, str>,
        /// What is predicted: `price`, `return`, `volatility`.
        pub prediction_type: Cow<'a, str>,
        /// The value predicted.
        pub predicted_value: Money,
        /// 0 to 1.
        pub confidence: Money,
        /// When it was made.
        pub venue_time: Micros,
        /// When the producer received or made it.
        pub receive_time: Micros,
    }
}

record! {
    /// A user's holding of one type of assets at one moment.
    pub struct Portfolio {
        /// UUID in its canonical form.
        pub user_id: Cow<'a, str>,
        /// Type of assets, upper case.
        pub asset_type: Cow<'a, str>,
        /// Size held; negative where short.
        pub position_size: Money,
        /// Mean price paid.
        pub entry_price: Money,
        /// Price at the moment.
        pub current_price: Money,
        /// Profit or loss not yet realised.
        pub pnl: Money,
        /// The moment.
        pub venue_time: Micros,
        /// When the producer received or made it.
        pub receive_time: Micros,
    }
}

record! {
    /// The state of a position; amount 0 closes it.
    pub struct Position {
        /// Venue, upper case.
        pub exchange: Cow<'a, str>,
        /// `BASE-QUOTE`.
        pub symbol: Cow<'a, str>,
        /// Long or short.
        pub side: PositionSide,
        /// Size held; 0: closed.
        pub amount: Money,
        /// Mean price of entry.
        pub entry_price: Money,
        /// Price it is valued at.
        pub mark_price: Option<Money>,
        /// Profit or loss at the mark price.
        pub unrealized_pnl: Option<Money>,
        /// Profit or loss realised since it was opened.
        pub realized_pnl: Option<Money>,
        /// Leverage.
        pub leverage: Option<Money>,
        /// `cross` or `isolated`, where the venue says.
        pub margin_type: Option<Cow<'a, str>>,
        /// Price of forced closing.
        pub liquidation_price: Option<Money>,
        /// When it was opened.
        pub opened_at: Micros,
        /// Size that was closed; with amount 0 only.
        pub closed_amount: Option<Money>,
        /// Mean price of exit; with amount 0 only.
        pub exit_price: Option<Money>,
        /// Fees paid over its life; with amount 0 only.
        pub fees: Option<Money>,
        /// When the venue says it became so; later states replace earlier ones.
        pub venue_time: Micros,
        /// When the producer received or made it.
        pub receive_time: Micros,
    }
}

record! {
    /// The state of an order.
    pub struct Order {
        /// Venue, upper case.
        pub exchange: Cow<'a, str>,
        /// `BASE-QUOTE`.
        pub symbol: Cow<'a, str>,
        /// The venue's id of the order.
        pub exchange_order_id: Cow<'a, str>,
        /// `market`, `limit`, `stop` and what else the venue has.
        pub kind as "type": Cow<'a, str>,
        /// Buy or sell.
        pub side: OrderSide,
        /// Amount ordered, in the base currency.
        pub amount: Money,
        /// Limit, where it has one.
        pub price: Option<Money>,
        /// How far it has come.
        pub status: OrderStatus,
        /// Amount filled.
        pub filled_amount: Money,
        /// Amount left.
        pub remaining_amount: Option<Money>,
        /// Mean price of the fills.
        pub avg_fill_price: Option<Money>,
        /// Fee; negative where the venue pays.
        pub fee: Option<Money>,
        /// When it was placed.
        pub created_at: Micros,
        /// When the venue says it became so; later states replace earlier ones.
        pub venue_time: Micros,
        /// When the producer received or made it.
        pub receive_time: Micros,
    }
}

impl Position<'_> {
    /// Whether this state closes the position.
    pub fn is_closed(&self) -> bool {
        self.amount == Money::ZERO
    }
}

macro_rules! schemas {
    ($($name:ident = $file:literal,)+) => {
        $(impl<'a> Record<'a> for $name<'a> {
            const SCHEMA: &'static str = include_str!(concat!("../avro/", $file));
        })+
    };
}

schemas! {
    Flow = "flow.avsc",
    Prediction = "prediction.avsc",
    Portfolio = "portfolio.avsc",
    Position = "position.avsc",
    Order = "order.avsc",
}
