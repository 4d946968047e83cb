#!/usr/bin/env python3
"""Pushes trades into the pipeline from Python: any Kafka client can.

    python3 -m venv .venv && .venv/bin/pip install -r examples/python/requirements.txt
    .venv/bin/python examples/python/produce.py --brokers 127.0.0.1:19092 --registry http://127.0.0.1:18081 --count 1000

What a producer must do, in any language, is in this file:

* the value in Confluent's wire format, with the schema `schemas/avro/trade.avsc` (or an older or newer one that is
  compatible), registered under `<topic>-value`;
* prices and amounts as exact decimals of scale 18: `decimal.Decimal`, never a float;
* times in microseconds since 1970, UTC: `venue_time` by the venue's clock, `receive_time` by ours;
* the key `VENUE:SYMBOL`, and the partition by murmur2 of it, as Java's clients do. librdkafka's default partitioner is
  another one (`consistent_random`): without `partitioner=murmur2_random` records are quarantined as misrouted;
* `acks=all`, and looking at every delivery's result.

Trades come from a CSV file (`--csv`, or `-` for standard input) with the columns exchange, symbol, trade_id, price,
amount, side, venue_time and, where wanted, type, taker_or_maker, sequence, receive_time; or they are generated.
The last line of the output is a JSON object: what was sent, digit for digit, and what became of it. The exit code is 0
only if every record was delivered.
"""

import argparse
import csv
import decimal
import json
import pathlib
import sys
import time

from confluent_kafka import KafkaException, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

try:
    import httpx2 as httpx  # what the registry's client is made of; its errors come through
except ImportError:
    import httpx

SCHEMA_FILE = pathlib.Path(__file__).resolve().parents[2] / "schemas" / "avro" / "trade.avsc"
SCALE = 18
PRECISION = 38
FLUSH_TIMEOUT_S = 60
# How many trades are generated where nothing is said, and what they begin with.
GENERATED_COUNT = 100
GENERATED_PRICE = decimal.Decimal("30000.123456789012345678")
GENERATED_AMOUNT = decimal.Decimal("0.000000000000000001")

# More than 38 digits, or a digit beyond the 18th, raises an error: money is never rounded.
EXACT = decimal.Context(prec=PRECISION, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])


def money(text):
    """The decimal of this text, at scale 18."""
    return EXACT.create_decimal(text).quantize(decimal.Decimal(1).scaleb(-SCALE), context=EXACT)


def plain(value):
    """A decimal without exponent and without trailing zeros, as the database would print it."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def generated(args):
    """Trades of one symbol, a millisecond apart."""
    start = time.time_ns() // 1000 if args.start is None else args.start
    run = args.run or format(start, "x")
    for number in range(GENERATED_COUNT if args.count is None else args.count):
        yield {
            "exchange": args.exchange,
            "symbol": args.symbol,
            "trade_id": f"{run}-{number}",
            "price": EXACT.add(money(GENERATED_PRICE), money(number % 1000)),
            "amount": EXACT.multiply(GENERATED_AMOUNT, decimal.Decimal(number * number + 1)),
            "side": "sell" if number % 2 else "buy",
            "type": None,
            "taker_or_maker": None,
            "sequence": number,
            "venue_time": start + number * 1000,
            "receive_time": start + number * 1000 + 250,
        }


def from_csv(path, count):
    """Trades of a CSV file, at most `count` of them."""
    file = sys.stdin if path == "-" else open(path, newline="", encoding="utf-8")
    with file:
        for number, row in enumerate(csv.DictReader(file)):
            if number == count:
                return
            try:
                yield trade_of(row)
            except (KeyError, ValueError, decimal.DecimalException) as error:
                raise SystemExit(f"{path}, record {number + 1}: {error!r}; correct it, nothing was sent")


def trade_of(row):
    """The trade of a row of text."""
    venue_time = int(row["venue_time"])
    return {
        "exchange": row["exchange"],
        "symbol": row["symbol"],
        "trade_id": row["trade_id"],
        "price": money(row["price"]),
        "amount": money(row["amount"]),
        "side": row["side"],
        "type": row.get("type") or None,
        "taker_or_maker": row.get("taker_or_maker") or None,
        "sequence": int(row["sequence"]) if row.get("sequence") else None,
        "venue_time": venue_time,
        "receive_time": int(row.get("receive_time") or venue_time),
    }


class Summary:
    """What was sent and what became of it."""

    def __init__(self):
        self.sent = []
        self.delivered = 0
        self.failed = 0
        self.errors = set()
        self.partitions = {}

    def on_delivery(self, error, message):
        """Called by the client for every record."""
        if error is not None:
            self.failed += 1
            self.errors.add(str(error))
            return
        self.delivered += 1
        offsets = self.partitions.setdefault(str(message.partition()), [message.offset(), message.offset()])
        offsets[0] = min(offsets[0], message.offset())
        offsets[1] = max(offsets[1], message.offset())

    def report(self, args):
        """The summary as an object. Prices and amounts are text: JSON's numbers would be read as floats."""
        return {
            "topic": args.topic,
            "sent": len(self.sent),
            "delivered": self.delivered,
            "failed": self.failed,
            "errors": sorted(self.errors),
            "offsets": self.partitions,
            "trades": self.sent,
        }


def serializer(args):
    """The Avro serializer. It registers the schema, or takes what the subject has with --use-latest."""
    registry = SchemaRegistryClient({"url": args.registry})
    settings = {"auto.register.schemas": not args.use_latest, "use.latest.version": args.use_latest}
    return AvroSerializer(registry, SCHEMA_FILE.read_text(encoding="utf-8"), conf=settings)


def send(args, trades):
    """Sends all trades, waits for their deliveries, and sums up."""
    serialize = serializer(args)
    producer = Producer(
        {
            "bootstrap.servers": args.brokers,
            "client.id": "tapeline-example-python",
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": 30000,
            "compression.type": "lz4",
            "linger.ms": 5,
        }
    )
    context = SerializationContext(args.topic, MessageField.VALUE)
    summary = Summary()
    for trade in trades:
        key = f"{trade['exchange']}:{trade['symbol']}"
        value = serialize(trade, context)
        while True:
            try:
                producer.produce(args.topic, key=key.encode(), value=value, on_delivery=summary.on_delivery)
                break
            except BufferError:
                # The client's queue is full: deliveries make room.
                producer.poll(0.1)
        producer.poll(0)
        summary.sent.append({**trade, "price": plain(trade["price"]), "amount": plain(trade["amount"])})
    undelivered = producer.flush(FLUSH_TIMEOUT_S)
    if undelivered:
        summary.failed += undelivered
        summary.errors.add(f"{undelivered} records without an answer after {FLUSH_TIMEOUT_S} s")
    return summary


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--brokers", default="127.0.0.1:19092", help="host:port, separated by commas")
    parser.add_argument("--registry", default="http://127.0.0.1:18081", help="URL of the schema registry")
    parser.add_argument("--topic", default="md.trade.raw")
    parser.add_argument("--count", type=int, help="how many trades, at most; all of a file, 100 generated")
    parser.add_argument("--csv", help="file of trades, - for standard input; generated where missing")
    parser.add_argument("--exchange", default="PYTHON", help="venue of generated trades")
    parser.add_argument("--symbol", default="BTC-USD", help="symbol of generated trades")
    parser.add_argument("--run", help="what ids of generated trades begin with; the start time where missing")
    parser.add_argument("--start", type=int, help="venue time of the first generated trade, microseconds; else now")
    parser.add_argument("--use-latest", action="store_true", help="take the subject's newest schema, register none")
    return parser.parse_args()


def main():
    """Sends, reports, and says by the exit code whether everything arrived."""
    args = arguments()
    # A mistake in the file is found before anything is sent.
    trades = list(from_csv(args.csv, args.count)) if args.csv else generated(args)
    try:
        summary = send(args, trades)
    except KafkaException as error:
        raise SystemExit(f"kafka: {error}; check --brokers")
    except (SchemaRegistryError, httpx.HTTPError) as error:
        raise SystemExit(f"the schema registry at {args.registry}: {error}; check --registry")
    print(json.dumps(summary.report(args)))
    return 0 if summary.delivered == len(summary.sent) and not summary.failed else 1


if __name__ == "__main__":
    sys.exit(main())
