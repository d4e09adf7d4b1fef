"""Writes lines of standard input as records: KEY:VALUE, or VALUE alone. usage: produce.py [BROKER [TOPIC]]"""

import sys

import grpc
from taffrail.v1.producer_pb2 import ProduceRequest
from taffrail.v1.producer_pb2_grpc import ProducerStub
from taffrail.v1.records_pb2 import Record


def record(line):
    key, colon, value = line.rstrip("\n").partition(":")
    return Record(key=key.encode(), value=value.encode()) if colon else Record(value=key.encode())


def main(broker="localhost:9094", topic="orders"):
    records = [record(line) for line in sys.stdin]
    with grpc.insecure_channel(broker) as channel:
        response = ProducerStub(channel).Produce(ProduceRequest(topic=topic, records=records), timeout=30)
    for result in response.results:  # One for each partition that got records: those of a key go to the same one.
        print(f"partition {result.partition}: {len(result.record_indexes)} from offset {result.appended.base_offset}")


if __name__ == "__main__":
    main(*sys.argv[1:])
